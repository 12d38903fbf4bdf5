"""The order of a pair's tokens: first text, separator, second text, end. What is not its turn cannot be drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PairOrder:
    """Where a model would end a pair whose first text stands alone, it separates; each text has a token at least.

    Once the first text has begun, and until the separator is written, the separator's next token has the end token's
    probability beside its own; the end token has none until the second text has begun. Models that have read few pairs
    put the end where the separator should be.

    This is part of the policy: tokens are drawn and assessed by the same distribution, but for the rounding of the
    model's number format.

    Attributes:
        end: id of the token that ends a pair.
        separator: ids of what stands between its texts, at least one.
    """

    end: int
    separator: tuple[int, ...]

    def __call__(self, logits: Tensor, ids: Tensor, first: int, temperature: float) -> Tensor:
        """A copy of the logits with these changed; -inf for what has no probability.

        Args:
            logits: (n, k, vocabulary) of k places in a row.
            ids: (n, t) tokens from the text's first place on; those before each of the places count, t at least
                first + k - 1.
            first: the first of these places.
            temperature: that they will be divided by; 0 where the most probable token is taken.
        """
        last = first + logits.shape[1]
        written, next_piece = separator_progress(ids[:, : last - 1], self.separator)
        # By one token more: of the second text.
        begun = torch.nn.functional.pad(written[:, :-1], (1, 0))[:, first:]
        written, next_piece = written[:, first:], next_piece[:, first:]
        empty = next_piece == torch.arange(first, last, device=ids.device)

        pieces = torch.tensor(self.separator, device=ids.device)[next_piece].unsqueeze(-1)
        end, piece = logits[..., self.end], logits.gather(-1, pieces).squeeze(-1)
        both = _either(end.float(), piece.float(), temperature).to(logits.dtype)
        piece = torch.where(written | empty, piece, both)
        # The last piece behind nothing but the others would separate an empty text.
        alone = empty & ~written & (next_piece == len(self.separator) - 1)
        piece = piece.masked_fill(alone, -torch.inf)
        logits = logits.scatter(-1, pieces, piece.unsqueeze(-1))
        logits[..., self.end] = end.masked_fill(~begun, -torch.inf)
        return logits


def separator_progress(ids: Tensor, separator: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """How far the separator has come before each place, and behind the last.

    Args:
        ids: (n, t) tokens.
        separator: ids of the separator.

    Returns:
        (n, t + 1) whether it has been written; (n, t + 1) the position in it of the token that would go on with what
        is written of it at the end.
    """
    rows, places = ids.shape
    size = len(separator)
    written = torch.zeros(rows, places + 1, dtype=torch.bool, device=ids.device)
    progress = torch.zeros(rows, places + 1, dtype=torch.int64, device=ids.device)
    for pieces in range(1, size + 1):
        starts = places - pieces + 1
        if starts <= 0:
            break
        found = torch.ones(rows, starts, dtype=torch.bool, device=ids.device)
        for offset, token in enumerate(separator[:pieces]):
            found &= ids[:, offset : offset + starts] == token
        if pieces == size:
            written[:, pieces:] = found.cumsum(dim=1) > 0
        else:
            progress[:, pieces:].masked_fill_(found, pieces)
    return written, progress


def _either(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The logit whose probability is that of both, once it is divided by the temperature."""
    if temperature == 0:
        return torch.maximum(one, other)
    return temperature * torch.logaddexp(one / temperature, other / temperature)

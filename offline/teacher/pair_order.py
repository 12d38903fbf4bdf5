"""The order of a pair's tokens: first text, separator, second text, end. What is not its turn cannot be drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PairOrder:
    """Where a model would end a pair whose first text stands alone, it separates; no text is empty.

    Until the separator is written, its first token has the end token's probability beside its own; the end token has
    none until the second text has begun, the separator none before the first text has. Models that have read few pairs
    put the end where the separator should be.

    This is part of the policy: tokens are drawn and assessed by the same distribution.

    Attributes:
        end: id of the token that ends a pair.
        separator: ids of what stands between its texts.
    """

    end: int
    separator: tuple[int, ...]

    def __call__(self, logits: Tensor, ids: Tensor, first: int) -> Tensor:
        """A copy of the logits with these two changed; -inf for what has no probability.

        Args:
            logits: (n, k, vocabulary) of k places in a row.
            ids: (n, t) tokens from the text's first place on; those before each of the places count, t at least
                first + k - 1.
            first: the first of these places.
        """
        last = first + logits.shape[1]
        written = separator_written(ids[:, : last - 1], self.separator)
        # By one token more: of the second text.
        begun = torch.nn.functional.pad(written[:, :-1], (1, 0))[:, first:]
        end, separate = logits[..., self.end], logits[..., self.separator[0]]
        both = torch.logaddexp(end.float(), separate.float()).to(logits.dtype)
        logits = logits.clone()
        logits[..., self.end] = end.masked_fill(~begun, -torch.inf)
        logits[..., self.separator[0]] = torch.where(written[:, first:], separate, both)
        if first == 0:
            logits[:, 0, self.separator[0]] = -torch.inf
        return logits


def separator_written(ids: Tensor, separator: tuple[int, ...]) -> Tensor:
    """(n, t + 1) whether, before each place and behind the last, the separator has been written.

    Args:
        ids: (n, t) tokens.
        separator: ids of the separator.
    """
    rows, places = ids.shape
    size = len(separator)
    written = torch.zeros(rows, places + 1, dtype=torch.bool, device=ids.device)
    starts = places - size + 1
    if starts > 0:
        found = torch.ones(rows, starts, dtype=torch.bool, device=ids.device)
        for offset, token in enumerate(separator):
            found &= ids[:, offset : offset + starts] == token
        written[:, size:] = found.cumsum(dim=1) > 0
    return written

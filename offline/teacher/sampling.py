"""Drawing texts from a prompted model: temperature, top-p, and the log-probability of every token."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from offline.configs.section import Section
from offline.processor import rounded
from offline.teacher.likelihood import slices
from offline.teacher.pair_order import PairOrder
from offline.teacher.prompted import Continuation, PromptedModel

# Rows that have ended are dropped when they make up this share: copying the cache costs something too.
_ENDED_SHARE = 0.2
# They are kept in numbers that come again; see `rounded`.
_ROWS = 16


class SamplingConfig(Section):
    """How tokens are drawn.

    Attributes:
        temperature: divides the logits: below 1 safer, above 1 more varied.
        top_p: draws from the smallest set of tokens that holds this much probability.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """Token sequences, one a row.

    Attributes:
        ids: (n, t) token ids; the end token's place and all after it hold the end token.
        logprobs: (n, t) float32, log-probability of each token under the distribution that it was
            drawn from (temperature and top-p included); zero after the end.
        lengths: (n,) tokens a row, the end token included.
        complete: (n,) whether the row came to its end token.
    """

    ids: Tensor
    logprobs: Tensor
    lengths: Tensor
    complete: Tensor

    @property
    def mask(self) -> Tensor:
        """(n, t) True at the tokens that were drawn."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places.unsqueeze(0) < self.lengths.unsqueeze(1)


@torch.inference_mode()
def sample(
    model: PromptedModel,
    prompts: Tensor,
    rows: Tensor,
    *,
    end: int,
    max_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    order: PairOrder | None = None,
    cached: bool = True,
) -> Sampled:
    """One text a row.

    Each step draws one uniform number a row, ended or not, so a row's draws do not depend on how
    long the others are.

    Args:
        model: what writes.
        prompts: (p, length, d) prompt embeddings.
        rows: (n,) which prompt each text stands behind.
        end: id of the end token.
        max_tokens: longest text, its end token included.
        generator: source of the draws, on the CPU.
        temperature: divides the logits; 0 takes the most probable token.
        top_p: draws from the smallest set of tokens that holds this much probability.
        order: of the tokens of pairs.
        cached: keep keys and values between steps.
    """
    count, device = len(rows), model.device
    ids = torch.full((count, max_tokens), end, device=device)
    logprobs = torch.zeros(count, max_tokens, device=device)
    lengths = torch.full((count,), max_tokens, device=device)
    complete = torch.zeros(count, dtype=torch.bool, device=device)
    texts = Continuation(model, prompts, rows, cached=cached)
    alive = torch.arange(count, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    for place in range(max_tokens):
        uniform = torch.rand(count, generator=generator).to(device)[alive]
        logits = texts.logits
        if order is not None:
            before = ids[alive, :place]
            logits = order(logits.unsqueeze(1), before, place, temperature).squeeze(1)
        tokens, drawn = draw(logits, uniform, temperature, top_p)
        going = ~ended
        ids[alive[going], place] = tokens[going]
        logprobs[alive[going], place] = drawn[going]
        stopped = going & (tokens == end)
        lengths[alive[stopped]] = place + 1
        complete[alive[stopped]] = True
        ended = ended | stopped
        if bool(ended.all()) or place + 1 == max_tokens:
            break
        left = rounded(len(alive) - int(ended.sum()), _ROWS)
        if left <= (1 - _ENDED_SHARE) * len(alive):
            # Some that have ended fill the count up.
            kept = ended.to(torch.uint8).argsort(stable=True)[:left]
            texts.keep(kept)
            alive, tokens, ended = alive[kept], tokens[kept], ended[kept]
        texts.append(tokens)
    longest = min(rounded(int(lengths.max())), max_tokens)
    return Sampled(ids[:, :longest], logprobs[:, :longest], lengths, complete)


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """Tokens (n,) and their log-probabilities (n,), by the inverse of the cumulative distribution.

    Args:
        logits: (n, vocabulary).
        uniform: (n,) in [0, 1).
        temperature, top_p: as in `sample`.
    """
    if temperature == 0:
        best = logits.argmax(dim=-1)
        return best, torch.zeros_like(uniform)
    parts = [_draw(logits[rows], uniform[rows], temperature, top_p) for rows in slices(logits)]
    tokens, logprobs = (torch.cat(part) for part in zip(*parts, strict=True))
    return tokens, logprobs


def _draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    if top_p < 1:
        logprobs = _nucleus(logprobs, top_p)
    cumulative = logprobs.exp().cumsum(dim=-1)
    # The last sum is one but for rounding; scaled by it, a draw can never fall behind the last token.
    targets = uniform.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    tokens = tokens.clamp_max(logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    dropped = torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= top_p)
    return torch.log_softmax(logprobs.masked_fill(dropped, -torch.inf), dim=-1)

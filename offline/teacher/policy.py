"""A prompted model as a policy: probabilities of sampled tokens, the value head, PPO's losses."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline.teacher.likelihood import likelihood
from offline.teacher.pair_order import PairOrder
from offline.teacher.prompted import PromptedModel


@dataclass(frozen=True, slots=True)
class Assessed:
    """A policy's view of given texts.

    Attributes:
        logprobs: (n, t) of each token.
        entropy: (n, t) nats, of the distribution each token was drawn from.
        hidden: (n, t, d) last layer where each token is chosen.
    """

    logprobs: Tensor
    entropy: Tensor
    hidden: Tensor


class ValueHead(nn.Module):
    """Estimates the return from the frozen model's last layer where a token is chosen."""

    def __init__(self, dimensions: int, width: int = 64) -> None:
        super().__init__()
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.LayerNorm(dimensions), nn.Linear(dimensions, width), nn.Tanh(), last
        )

    def forward(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.layers(hidden).squeeze(-1)
        return values


def assess(
    model: PromptedModel,
    prompts: Tensor,
    labels: Tensor,
    ids: Tensor,
    temperature: float,
    *,
    order: PairOrder | None = None,
    checkpointing: bool = False,
) -> Assessed:
    """Log-probabilities, at a temperature, of (n, t) tokens behind the prompts of (n,) labels.

    With an `order` of the tokens of pairs, of the distribution that is left of the model's by it.
    With `checkpointing` the gradient's memory is that of one layer; see `PromptedModel.score`.
    """
    parts, first = [], 0
    for scored in model.score_parts(prompts, labels, ids, checkpointing=checkpointing):
        last = first + scored.logits.shape[1]
        logits = scored.logits
        if order is not None:
            logits = order(logits, ids, first, temperature)
        said = likelihood(logits, ids[:, first:last], temperature)
        parts.append((*said, scored.hidden))
        first = last
    logprobs, entropy, hidden = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return Assessed(logprobs, entropy, hidden)


def by_length(lengths: Tensor, size: int) -> Iterator[Tensor]:
    """Rows in chunks of like length, so that little of a chunk is padding."""
    yield from torch.split(torch.argsort(lengths, stable=True), size)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The clipped objective, summed over tokens, and what a practitioner watches of it."""

    total: Tensor
    clipped: Tensor
    divergence: Tensor


def policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> PolicyLoss:
    """-min(r A, clip(r, 1 - c, 1 + c) A) summed over the mask (Schulman et al. 2017), r = exp(new - old).

    `clipped` counts the tokens whose ratio is outside; `divergence` sums r - 1 - ln r, an estimate of
    the KL divergence of the new policy from the old one that is never negative.
    """
    difference = (logprobs - old)[mask]
    gain = advantages[mask]
    ratio = difference.exp()
    limited = ratio.clamp(1 - clip, 1 + clip)
    loss = -torch.minimum(ratio * gain, limited * gain).sum()
    with torch.no_grad():
        clipped = ((ratio - 1).abs() > clip).float().sum()
        divergence = (ratio - 1 - difference).sum()
    return PolicyLoss(loss, clipped, divergence)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (clip(V, old - c, old + c) - R)^2) / 2 summed over the mask."""
    values, old, returns = values[mask], old[mask], returns[mask]
    limited = torch.minimum(torch.maximum(values, old - clip), old + clip)
    return torch.maximum((values - returns) ** 2, (limited - returns) ** 2).sum() / 2

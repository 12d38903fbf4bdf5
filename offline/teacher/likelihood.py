"""Log-probabilities and entropies of tokens from a model's logits, a slice of rows at a time.

Logits are (rows, vocabulary), by far the largest thing that a pass computes. Softmax, its logarithm and their
gradients would each be a float32 copy of them; in slices they stay within a processor's cache, and only the
logits themselves, in the model's own number format, are kept for the gradient.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# As far as a logit may be below the largest of its row: its probability is 0 in float32 by then.
_IMPOSSIBLE = -1e4
# Numbers in a slice: what a processor's cache holds; elsewhere few, large operations are quicker.
_ON_PROCESSOR, _ELSEWHERE = 2**18, 2**24


def slices(logits: Tensor) -> Iterator[slice]:
    """Consecutive rows of (rows, vocabulary) logits that are worked on together."""
    size = _ON_PROCESSOR if logits.device.type == "cpu" else _ELSEWHERE
    rows = max(1, size // logits.shape[1])
    for first in range(0, len(logits), rows):
        yield slice(first, first + rows)


def likelihood(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """What a model says of given tokens, with gradients to the logits.

    Args:
        logits: (..., vocabulary) of any floating type.
        ids: (...) token ids.
        temperature: divides the logits.

    Returns:
        (...) float32: log-probability of each token; entropy in nats of the distribution at its place.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    logprobs, entropies = _Likelihood.apply(flat, ids.reshape(-1), temperature)  # type: ignore[no-untyped-call]
    return logprobs.reshape(ids.shape), entropies.reshape(ids.shape)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, logits: Tensor, ids: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, totals = (
            torch.empty(len(ids), dtype=torch.float32, device=logits.device) for _ in range(3)
        )
        for rows in slices(logits):
            scaled = _scaled(logits[rows], temperature)
            total = scaled.logsumexp(dim=-1)
            logs = scaled - total.unsqueeze(-1)
            totals[rows] = total
            logprobs[rows] = logs.gather(-1, ids[rows].unsqueeze(-1)).squeeze(-1)
            entropies[rows] = -(logs.exp() * logs).sum(-1)
        context.save_for_backward(logits, ids, totals, entropies)
        context.temperature = temperature
        return logprobs, entropies

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """With s = softmax(x): d ln s_i / dx_j = [i = j] - s_j and dH / dx_j = -s_j (ln s_j + H).

        So the gradient g of the first and h of the second make g [i = j] - s_j (h x_j + h (H - ln sum exp x) + g).
        """
        logits, ids, totals, entropies = context.saved_tensors
        of_logprobs, of_entropies = (part / context.temperature for part in gradients)
        constants = of_entropies * (entropies - totals) + of_logprobs
        gradient = torch.empty_like(logits)
        for rows in slices(logits):
            scaled = _scaled(logits[rows], context.temperature)
            shares = (scaled - totals[rows].unsqueeze(-1)).exp_()
            factors = scaled * -of_entropies[rows].unsqueeze(-1) - constants[rows].unsqueeze(-1)
            part = shares.mul_(factors)
            part.scatter_add_(-1, ids[rows].unsqueeze(-1), of_logprobs[rows].unsqueeze(-1))
            gradient[rows] = part
        return gradient, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """In float32, the largest of each row 0: what is said of a row does not change, and little is lost by rounding.

    What is impossible (-inf) is as good as that, and makes no NaN of a product with 0.
    """
    shifted = (logits.float() - logits.amax(dim=-1, keepdim=True).float()).clamp_min_(_IMPOSSIBLE)
    return shifted if temperature == 1 else shifted.div_(temperature)

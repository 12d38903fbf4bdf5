"""From rewards to advantages: baselines a label, generalised advantage estimation, the KL coefficient."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(slots=True)
class LabelBaselines:
    """A running mean of the reward for each label, so that a hard label is measured against itself.

    Attributes:
        means: (labels,) running means; NaN until a label has been seen.
        momentum: how much of the old mean stays at each update.
    """

    means: NDArray[np.float64]
    momentum: float

    def centre(
        self, rewards: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Rewards (n,) without their label's mean so far; then the means take these rewards in."""
        for label in np.unique(labels):
            mean = float(rewards[labels == label].mean())
            old = self.means[label]
            # A label's first rewards have nothing else to be measured against.
            self.means[label] = mean if np.isnan(old) else old
        centred = (rewards - self.means[labels]).astype(np.float32)
        for label in np.unique(labels):
            mean = float(rewards[labels == label].mean())
            self.means[label] += (1 - self.momentum) * (mean - self.means[label])
        return centred


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (n, t) each (Schulman et al. 2016).

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t = delta_t + gamma lambda A_{t+1},   R_t = A_t + V_t

    Args:
        rewards: (n, t) reward of each token.
        values: (n, t) estimated return where each token is chosen.
        mask: (n, t) True at tokens; a text's last token is followed by nothing.
        discount: gamma.
        smoothing: lambda.
    """
    values = values * mask
    rewards = rewards * mask
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for place in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, place] + discount * next_value - values[:, place]
        following = (delta + discount * smoothing * following) * mask[:, place]
        advantages[:, place] = following
        next_value = values[:, place]
    return advantages, advantages + values


def normalised(values: Tensor, mask: Tensor) -> Tensor:
    """Values with mean 0 and standard deviation 1 over the mask; zero elsewhere."""
    inside = values[mask]
    spread = inside.std() if inside.numel() > 1 else torch.ones(())
    return (values - inside.mean()) / (spread + 1e-8) * mask


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect value head, 0 for a constant."""
    spread = returns.var()
    return float(1 - (returns - values).var() / spread) if spread > 0 else 0.0


@dataclass(slots=True)
class KLController:
    """The KL coefficient, steered so that a sample's KL stays near a target (Ziegler et al. 2019).

        e = clip(KL / target - 1, -0.2, 0.2),   beta <- beta (1 + rate * e)

    Attributes:
        coefficient: beta.
        target: nats a sample; 0 leaves the coefficient as it is.
        rate: how fast it follows.
    """

    coefficient: float
    target: float
    rate: float

    def update(self, divergence: float) -> None:
        if self.target > 0:
            error = float(np.clip(divergence / self.target - 1, -0.2, 0.2))
            self.coefficient *= 1 + self.rate * error

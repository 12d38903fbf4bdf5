"""Dropout that costs little on a processor, where drawing its mask took a fifth of a student's training."""

import torch
from torch import Tensor, nn

_SHARES = 256


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) by one random byte a number.

    torch's own draws a float for each; here a number is left out where its byte is below `rate * 256`, so
    that the rate is a multiple of 1 / 256, the nearest to the one that is asked for. What is kept is scaled by
    just that share.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.left_out = min(round(rate * _SHARES), _SHARES - 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """The same shape; while the module is not in training, the same numbers."""
        if not self.training or not self.left_out:
            return hidden
        words = torch.empty(-(-hidden.numel() // 8), dtype=torch.int64, device=hidden.device)
        # From the smallest on, so that all 64 bits of each are random.
        drawn = words.random_(-(2**63), None).view(torch.uint8)[: hidden.numel()]
        kept = drawn.view(hidden.shape) >= self.left_out
        return hidden * kept.to(hidden.dtype).mul_(_SHARES / (_SHARES - self.left_out))

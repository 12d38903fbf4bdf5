"""The number format that a frozen model computes in."""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def settled(precision: Precision, device: str) -> str:
    """The precision that `auto` stands for on a torch device, or the one that is named.

    `auto` is bfloat16 where the device computes in it, and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    if torch.device(device).type == "cpu":
        low = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        low = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if low else "float32"

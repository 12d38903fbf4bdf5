"""Where a frozen model computes, and in which number format."""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


SPREAD = "auto"
"""In place of a torch device: the layers of a language model are spread over all GPUs there are."""


def device_type(device: str) -> str:
    """`cpu`, `cuda` …; where a model is spread, that of the devices it is spread over."""
    if device == SPREAD:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device).type


def settled(precision: Precision, device: str) -> str:
    """The precision that `auto` stands for on a device, or the one that is named.

    `auto` is bfloat16 where the device computes in it, and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    if device_type(device) == "cpu":
        low = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        low = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if low else "float32"

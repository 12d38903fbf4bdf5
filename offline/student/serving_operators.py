"""Operators of the exported graph for which ONNX Runtime has a faster form than the exporter would choose."""

import torch
from torch import Tensor, nn


def add(one: Tensor, other: Tensor) -> Tensor:
    """`one + other`, of the shape of `one`, before a layer norm; exported as `Sum`.

    ONNX Runtime fuses an `Add` and a layer norm into `SkipLayerNormalization`, whose kernel for processors takes longer
    than the two together (1.32, a student of 128 hidden units).
    """
    if not torch.compiler.is_exporting():
        return one + other
    return torch.onnx.ops.symbolic(
        "Sum", (one, other), dtype=one.dtype, shape=one.shape, version=13
    )


def self_attention(hidden: Tensor, project: nn.Linear, mask: Tensor, heads: int) -> Tensor:
    """Self-attention with its projections, as ONNX Runtime's operator `Attention`; for export alone.

    Args:
        hidden: (b, t, h).
        project: to queries, keys and values, (3 h, h).
        mask: (b, t), 1 for what may be read.
        heads: of the attention.

    Returns:
        (b, t, h), before the output's projection.
    """
    return torch.onnx.ops.symbolic(
        "com.microsoft::Attention",
        (hidden, project.weight.T, project.bias, mask.to(torch.int32)),
        attrs={"num_heads": heads},
        dtype=hidden.dtype,
        shape=hidden.shape,
        version=1,
    )

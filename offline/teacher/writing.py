"""Samples as texts: what a generator writes behind the prompts of given labels."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.teacher.generator import Generator
from offline.teacher.sampling import Sampled, SamplingConfig, sample


@dataclass(frozen=True, slots=True)
class Written:
    """n samples.

    Attributes:
        texts, pairs: the texts; second texts, or None where the task has single ones. They may be empty.
        labels: (n,) the label each was written for.
        complete: (n,) whether it came to its end in time, for a pair with both texts.
        sampled: its tokens.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64]
    complete: NDArray[np.bool_]
    sampled: Sampled


def write(
    generator: Generator,
    prompts: Tensor,
    labels: NDArray[np.int64],
    sampling: SamplingConfig,
    source: torch.Generator,
) -> Written:
    """One sample for each of (n,) labels behind (labels, t, d) prompts."""
    sampled = sample(
        generator.model,
        prompts,
        torch.from_numpy(labels).to(generator.model.device),
        end=generator.framing.end,
        max_tokens=generator.max_tokens,
        generator=source,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        order=generator.framing.order,
    )
    samples = [generator.framing.decode(ids) for ids in sampled.ids.tolist()]
    return Written(
        texts=[sample.text for sample in samples],
        pairs=[sample.pair or "" for sample in samples] if generator.framing.pair else None,
        labels=labels,
        complete=np.array([sample.complete for sample in samples]),
        sampled=sampled,
    )


def balanced_labels(count: int, labels: int, first: int = 0) -> NDArray[np.int64]:
    """`count` labels in turn, `first` being the first: numbers of two labels differ by one at most."""
    return (np.arange(count, dtype=np.int64) + first) % labels

"""Paired bootstrap intervals: is one system more accurate than another on the same test rows?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of one system minus that of another, as fractions, with a 95 % interval."""

    mean: float
    low: float
    high: float


Outcomes = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Whether our answer and theirs was right, each (seeds, rows) of one test split."""


def paired_difference(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], *, seed: int = 0
) -> Difference:
    """The difference in accuracy with its percentile bootstrap interval.

    Test rows are resampled, each with the outcomes of all seeds: the seeds of a run share their test
    rows, so that the rows, not the answers, are what is independent (Efron and Tibshirani 1993, ch. 8).

    Args:
        ours: (seeds, rows), whether our answer was right.
        theirs: (seeds, rows), the same for the other system.
        seed: of the resampling.

    Raises:
        ValueError: the shapes differ, or there is no row.
    """
    return mean_difference([(ours, theirs)], seed=seed)


def mean_difference(outcomes: Sequence[Outcomes], *, seed: int = 0) -> Difference:
    """The mean over test splits of the difference in accuracy, each split with the same weight.

    The rows of each split are resampled apart from the others', as `paired_difference` does for one.

    Args:
        outcomes: of each test split.
        seed: of the resampling.

    Raises:
        ValueError: there is no split, or the shapes of one differ, or it has no row.
    """
    if not outcomes:
        raise ValueError("expected the outcomes of at least one test split")
    generator = np.random.default_rng(seed)
    means, resampled = zip(*(_resampled(*found, generator) for found in outcomes), strict=True)
    low, high = np.percentile(np.mean(resampled, axis=0), [2.5, 97.5])
    return Difference(float(np.mean(means)), float(low), float(high))


def _resampled(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    """The difference on one split, and that of each resample."""
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.size == 0:
        raise ValueError(f"expected two equal (seeds, rows), got {ours.shape} and {theirs.shape}")
    by_row = (ours.astype(np.float64) - theirs.astype(np.float64)).mean(axis=0)
    rows = len(by_row)
    # A resample is a multinomial count of the few distinct row differences: exact, and quick for
    # ten thousand rows.
    values, counts = np.unique(by_row, return_counts=True)
    drawn = generator.multinomial(rows, counts / rows, size=RESAMPLES)
    return float(by_row.mean()), drawn @ values / rows

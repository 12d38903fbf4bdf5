"""Paired bootstrap intervals: is one system more accurate than another on the same test rows?"""

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
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.size == 0:
        raise ValueError(f"expected two equal (seeds, rows), got {ours.shape} and {theirs.shape}")
    by_row = (ours.astype(np.float64) - theirs.astype(np.float64)).mean(axis=0)
    generator = np.random.default_rng(seed)
    rows = len(by_row)
    # A resample is a multinomial count of the few distinct row differences: exact, and quick for
    # ten thousand rows.
    values, counts = np.unique(by_row, return_counts=True)
    drawn = generator.multinomial(rows, counts / rows, size=RESAMPLES)
    means = drawn @ values / rows
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(by_row.mean()), float(low), float(high))

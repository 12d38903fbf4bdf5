"""Intervals of paired differences cover what they should and see what is there."""

import numpy as np
import pytest

from offline.report.intervals import paired_difference


def outcomes(rate: float, seed: int, rows: int = 600, seeds: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, rows)) < rate


def test_equal_systems_differ_by_nothing() -> None:
    right = outcomes(0.8, 0)
    difference = paired_difference(right, right)
    assert (difference.mean, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_a_real_difference_is_clear_of_zero_and_an_accidental_one_is_not() -> None:
    better = outcomes(0.8, 1) | outcomes(0.5, 2)
    assert paired_difference(better, outcomes(0.8, 3)).low > 0
    near = paired_difference(outcomes(0.8, 4), outcomes(0.8, 5))
    assert near.low < 0 < near.high


def test_the_interval_covers_the_true_difference_nineteen_times_in_twenty() -> None:
    covered = 0
    for trial in range(200):
        ours, theirs = outcomes(0.8, 2 * trial, 300, 1), outcomes(0.75, 2 * trial + 1, 300, 1)
        difference = paired_difference(ours, theirs, seed=trial)
        covered += difference.low <= 0.05 <= difference.high
    assert 180 <= covered <= 198


def test_seeds_that_agree_on_a_row_do_not_count_as_more_rows() -> None:
    ours, theirs = outcomes(0.8, 6, seeds=1), outcomes(0.75, 7, seeds=1)
    once = paired_difference(ours, theirs)
    thrice = paired_difference(np.repeat(ours, 3, axis=0), np.repeat(theirs, 3, axis=0))
    assert thrice == once


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two equal"):
        paired_difference(outcomes(0.5, 0, rows=5), outcomes(0.5, 0, rows=6))

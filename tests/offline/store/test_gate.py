"""A candidate that is worse than the live release, as a whole or on a label, is held back with the reason."""

import numpy as np

from offline.store.gate import ReleaseConfig, reasons_against, recall_reasons, shadow_reasons
from offline.store.shadow import compare

LABELS = ("a", "b", "c", "d")
GOLD = np.repeat(np.arange(4), 25)


def reasons(candidate: np.ndarray, live: np.ndarray = GOLD, rows: slice = slice(None)) -> list[str]:
    config = ReleaseConfig(accuracy_drop=0.02, label_drop=0.1)
    return list(reasons_against(candidate[rows], live[rows], GOLD[rows], LABELS, config))


def wrong(*rows: int) -> np.ndarray:
    answers = GOLD.copy()
    answers[list(rows)] = (answers[list(rows)] + 1) % 4
    return answers


def test_an_equal_or_better_candidate_passes() -> None:
    assert reasons(GOLD) == []
    assert reasons(GOLD, live=wrong(1, 2, 3, 4)) == []


def test_a_drop_in_accuracy_beyond_the_threshold_is_a_reason() -> None:
    assert reasons(wrong(0, 25)) == []
    (reason,) = reasons(wrong(0, 25, 50))
    assert "fell from 1.000 to 0.970" in reason


def test_a_label_that_is_lost_is_a_reason_of_its_own() -> None:
    found = reasons(wrong(0, 1, 2), live=wrong(25, 26, 50))
    assert len(found) == 1
    assert "'a'" in found[0]


def test_labels_with_too_few_rows_do_not_count() -> None:
    assert reasons(wrong(99), rows=slice(97, None), live=GOLD) == [
        "accuracy on 3 held-out rows fell from 1.000 to 0.667, more than the allowed 0.02"
    ]


def test_without_held_out_rows_nothing_speaks_against_it() -> None:
    assert reasons(wrong(0), rows=slice(0, 0)) == []


def shadow_of(candidate: np.ndarray, ours: float = 1.0, theirs: float = 1.0) -> list[str]:
    compared = compare("r-0", candidate, GOLD, GOLD, (ours, theirs))
    return list(shadow_reasons(compared, ReleaseConfig(agreement=0.5)))


def test_a_candidate_that_hardly_ever_agrees_with_the_live_release_is_held_back() -> None:
    assert shadow_of(wrong(*range(50))) == []
    (reason,) = shadow_of(wrong(*range(51)))
    assert reason.startswith("it agrees with the live release on 0.490 of 100 held-out rows")


def test_a_candidate_is_too_slow_by_ratio_and_by_the_clock_or_not_at_all() -> None:
    assert shadow_of(GOLD, ours=9.0, theirs=1.0) == []
    assert shadow_of(GOLD, ours=29.0, theirs=10.0) == []
    (reason,) = shadow_of(GOLD, ours=31.0, theirs=10.0)
    assert reason == (
        "a text takes it 31.0 ms where the live release takes 10.0 ms, more than 3.0 times as long"
    )


def test_a_label_that_only_the_live_release_knows_counts_as_a_difference() -> None:
    compared = compare("r-0", GOLD, np.where(GOLD == 0, -1, GOLD), GOLD, (1.0, 1.0))
    assert (compared.agreement, compared.live_accuracy, compared.accuracy) == (0.75, 0.75, 1.0)


def test_an_index_that_misses_too_much_is_a_reason() -> None:
    assert recall_reasons("v-1", 0.95, ReleaseConfig()) == ()
    (reason,) = recall_reasons("v-1", 0.949, ReleaseConfig())
    assert reason.startswith("approximate search finds 0.949 of the exact nearest items of v-1")

"""A candidate that is worse than the live release, as a whole or on a label, is held back with the reason."""

import numpy as np

from offline.store.gate import ReleaseConfig, reasons_against

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

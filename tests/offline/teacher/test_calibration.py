"""Folds and temperature scaling, and the figures that calibration is reported with."""

import numpy as np
import pytest
from numpy.typing import NDArray

from offline.report.metrics import (
    accuracy,
    expected_calibration_error,
    figures,
    macro_f1,
    negative_log_likelihood,
)
from offline.teacher.calibration import (
    assign_folds,
    cross_fitted_probabilities,
    fit_temperature,
    softmax,
)


def drawn(rows: int, labels: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """True logits, and gold labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (rows, labels))
    shares = softmax(logits)
    gold = np.array([random.choice(labels, p=row) for row in shares])
    return logits, gold


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_undoes_a_scale_on_true_logits(factor: float) -> None:
    logits, gold = drawn(20_000, 5, 0)
    assert fit_temperature(factor * logits, gold) == pytest.approx(factor, rel=0.05)


def test_no_temperature_farther_off_is_more_likely() -> None:
    logits, gold = drawn(300, 4, 1)
    best = fit_temperature(3 * logits, gold)

    def loss(temperature: float) -> float:
        return negative_log_likelihood(softmax(3 * logits / temperature), gold)

    assert loss(best) <= min(loss(best * 1.05), loss(best / 1.05), loss(1.0))


def test_few_rows_without_a_mistake_do_not_make_the_labeller_certain() -> None:
    logits = np.where(np.eye(2, dtype=bool)[np.arange(12) % 2], 1.0, 0.0)
    temperature = fit_temperature(logits, np.arange(12) % 2)
    assert softmax(logits / temperature).max() == pytest.approx(1 - 0.5 / 13, abs=1e-4)


def test_calibrating_lowers_the_calibration_error_of_overconfident_probabilities() -> None:
    logits, gold = drawn(5000, 5, 2)
    folds = np.arange(5000) % 5
    before = expected_calibration_error(softmax(6 * logits), gold)
    after = expected_calibration_error(cross_fitted_probabilities(6 * logits, gold, folds), gold)
    assert before > 0.2
    assert after < 0.03


def test_a_fold_s_own_gold_labels_do_not_touch_its_temperature() -> None:
    logits, gold = drawn(200, 3, 3)
    folds = np.arange(200) % 4
    other = gold.copy()
    other[folds == 0] = (gold[folds == 0] + 1) % 3
    first = cross_fitted_probabilities(logits, gold, folds)
    second = cross_fitted_probabilities(logits, other, folds)
    assert np.array_equal(first[folds == 0], second[folds == 0])
    assert not np.array_equal(first[folds == 1], second[folds == 1])


def test_folds_spread_every_label_and_keep_copies_together() -> None:
    labels = np.repeat([0, 1, 2], [40, 23, 12])
    forms = [f"text{row}" for row in range(75)]
    forms[1] = forms[0]
    forms[41] = forms[40] = forms[42]
    folds = assign_folds(labels, forms, 5, seed=0)
    assert folds[0] == folds[1]
    assert folds[40] == folds[41] == folds[42]
    for label, size in ((0, 40), (1, 23), (2, 12)):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.min() >= size // 5 - 1
        assert counts.max() <= size // 5 + 3
    assert np.array_equal(folds, assign_folds(labels, forms, 5, seed=0))
    assert not np.array_equal(folds, assign_folds(labels, forms, 5, seed=1))


def test_pairs_with_one_first_text_share_a_fold_and_labels_stay_spread() -> None:
    premises = [row // 2 for row in range(60)]
    forms = [f"premise{premise}\x00choice{row}" for row, premise in enumerate(premises)]
    for labels in (np.tile([0, 1], 30), np.array([row % 3 for row in range(60)])):
        folds = assign_folds(labels, forms, 5, seed=0)
        assert np.array_equal(folds[::2], folds[1::2])
        for label in np.unique(labels):
            counts = np.bincount(folds[labels == label], minlength=5)
            assert counts.min() >= 2
            assert counts.max() <= 6


def test_there_are_no_more_folds_than_the_rarest_label_has_texts() -> None:
    labels = np.array([0] * 10 + [1] * 3)
    folds = assign_folds(labels, [str(row) for row in range(13)], 5, seed=0)
    assert set(folds) == {0, 1, 2}
    for fold in range(3):
        assert set(labels[folds != fold]) == {0, 1}


def test_figures_of_a_small_table_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0]])
    gold = np.array([0, 1, 1, 0])
    assert accuracy(probabilities, gold) == 0.5
    # Label 0: 1 right of 2 answers and 2 gold; label 1 the same; label 2 occurs nowhere.
    assert macro_f1(probabilities, gold) == pytest.approx(0.5)
    assert negative_log_likelihood(probabilities, gold) == pytest.approx(
        -np.log([0.9, 0.4, 0.7, 0.2]).mean()
    )
    # Four bins with a row each: |1 - 0.9|, |0 - 0.6|, |1 - 0.7|, |0 - 0.8|.
    assert expected_calibration_error(probabilities, gold) == pytest.approx(1.8 / 4)
    assert set(figures(probabilities, gold)) == {"accuracy", "macro_f1", "nll", "ece"}


def test_rows_of_one_bin_are_averaged_before_the_error_is_taken() -> None:
    probabilities = np.array([[0.75, 0.25]] * 4)
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0)


def test_bins_are_fifteen_and_closed_on_the_right() -> None:
    # 0.6 = 9/15 belongs to the ninth bin, 0.61 to the tenth; apart, their errors do not cancel.
    probabilities = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert expected_calibration_error(probabilities, np.array([0, 1])) == pytest.approx(
        (0.4 + 0.61) / 2
    )


def test_a_certain_wrong_answer_has_a_finite_loss() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(
        -np.log(1e-12)
    )

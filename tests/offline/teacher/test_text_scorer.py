"""Cross-fitting and calibrating a model that reads texts itself."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from offline.report.metrics import accuracy, expected_calibration_error
from offline.teacher.text_scorer import LabelledRows, batches, fit_scorer


class Memory:
    """Is sure of the texts that it has seen, and knows nothing of others."""

    parameters = 0

    def __init__(self, rows: LabelledRows) -> None:
        self.seen = dict(zip(rows.texts, rows.gold.tolist(), strict=True))

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, progress: object = None
    ) -> NDArray[np.float32]:
        found = np.zeros((len(texts), 3), dtype=np.float32)
        for row, text in enumerate(texts):
            if text in self.seen:
                found[row, self.seen[text]] = 9.0
        return found


class Overconfident:
    """Right in three quarters of the texts, and sure of all."""

    parameters = 0

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, progress: object = None
    ) -> NDArray[np.float32]:
        numbers = np.array([int(text) for text in texts])
        said = np.where(numbers % 4 == 0, (numbers + 1) % 3, numbers % 3)
        return 20 * np.eye(3, dtype=np.float32)[said]


def rows(count: int = 120) -> LabelledRows:
    texts = [str(row) for row in range(count)]
    return LabelledRows(texts, None, np.arange(count, dtype=np.int64) % 3, texts)


def test_no_row_is_judged_by_a_model_that_learnt_it() -> None:
    given, told, seeds = rows(), [], []

    def fit(part: LabelledRows, seed: int, progress: object) -> Memory:
        seeds.append(seed)
        return Memory(part)

    fitted = fit_scorer(
        fit, given, 3, learns=True, folds=4, seed=0, progress=lambda *done: told.append(done)
    )
    assert len(set(seeds)) == 5
    assert np.allclose(fitted.cross_fitted, 1 / 3, atol=1e-6)
    assert fitted.scorer.model.seen.keys() == set(given.texts)


def test_what_learns_nothing_is_made_once_and_calibrated() -> None:
    given, made = rows(1200), []

    def fit(part: LabelledRows, seed: int, progress: object) -> Overconfident:
        made.append(seed)
        return Overconfident()

    fitted = fit_scorer(fit, given, 3, learns=False, folds=5, seed=0, progress=lambda *_: None)
    assert len(made) == 1
    assert accuracy(fitted.cross_fitted, given.gold) == pytest.approx(0.75)
    assert expected_calibration_error(fitted.cross_fitted, given.gold) < 0.05
    new = [str(row) for row in range(1000, 1400)]
    sure = fitted.scorer(new, None, None, None).max(1).mean()
    assert sure == pytest.approx(0.75, abs=0.05)


def test_batches_hold_like_lengths_and_lose_no_row() -> None:
    lengths = [3, 1, 2, 3, 3, 1]
    assert [part.tolist() for part in batches(lengths, 4)] == [[0, 3, 4, 2], [1, 5]]
    assert [part.tolist() for part in batches(lengths, 2, equal=True)] == [[0, 3], [4], [2], [1, 5]]
    assert batches([], 4) == []

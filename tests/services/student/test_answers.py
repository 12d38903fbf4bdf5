"""Answers list every label once, best first, and are JSON whatever the labels and the scores are."""

import numpy as np
import orjson
import pytest

from services.student.answers import RankedJson


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("labels", [2, 77])
def test_rows_are_all_labels_best_first(rows: int, labels: int) -> None:
    names = [f'label "{n}" ü' for n in range(labels)]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(labels), rows).astype(np.float32)
    written = RankedJson(names).rows(probabilities)
    assert len(written) == rows
    for row, expected in zip(written, probabilities, strict=True):
        entries = orjson.loads(row)
        scores = [entry["score"] for entry in entries]
        assert scores == sorted(scores, reverse=True)
        assert {entry["label"]: entry["score"] for entry in entries} == pytest.approx(
            dict(zip(names, map(float, expected), strict=True)), abs=1e-7
        )


def test_raw_scores_are_logarithms_and_finite_for_a_probability_of_zero() -> None:
    (row,) = RankedJson(["a", "b"]).rows(np.array([[0.0, 1.0]], np.float32), raw=True)
    entries = orjson.loads(row)
    assert entries[0] == {"label": "b", "score": 0.0}
    assert entries[1]["label"] == "a"
    assert entries[1]["score"] == pytest.approx(np.log(1e-38), rel=1e-3)


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    (row,) = RankedJson(["a", "b", "c"]).rows(np.full((1, 3), 1 / 3, np.float32))
    assert [entry["label"] for entry in orjson.loads(row)] == ["a", "b", "c"]

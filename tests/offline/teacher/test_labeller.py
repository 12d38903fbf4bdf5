"""Fitting the softmax head, and loading labeller and judge back."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from offline.report.metrics import accuracy, expected_calibration_error
from offline.teacher.head import (
    FittedHead,
    SoftmaxHead,
    fit_head,
    head_identity,
    load_head,
    read_description,
    save_head,
)
from offline.teacher.judge import JudgeConfig, fit_judge
from offline.teacher.word_features import WordFeatures, naive_bayes
from services.platform.errors import CorruptArtifact

STRENGTHS = (0.3, 3.0, 30.0)


def clusters(rows: int, labels: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors scattered round one direction a label."""
    random = np.random.default_rng(seed)
    gold = np.arange(rows) % labels
    centres = np.random.default_rng(0).normal(size=(labels, 12))
    points = centres[gold] + random.normal(0, 1.2, (rows, 12))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), gold


def fitted(
    rows: int, labels: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], FittedHead]:
    features, gold = clusters(rows, labels, seed)
    forms = [str(row) for row in range(rows)]
    found = fit_head(features, gold, forms, labels, strengths=STRENGTHS, folds=5, seed=0)
    return features, gold, found


@pytest.mark.parametrize("labels", [2, 5])
def test_cross_fitted_figures_foretell_the_head_on_new_rows(labels: int) -> None:
    _, gold, found = fitted(400, labels)
    new, new_gold = clusters(4000, labels, 1)
    probabilities = found.head.probabilities(new)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert accuracy(found.cross_fitted, gold) == pytest.approx(
        accuracy(probabilities, new_gold), abs=0.06
    )
    assert expected_calibration_error(probabilities, new_gold) < 0.06


def test_cross_fitted_probabilities_do_not_see_the_row_s_own_label() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(200, 150)).astype(np.float32)
    gold = random.integers(0, 2, 200)
    found = fit_head(
        features, gold, [str(row) for row in range(200)], 2, strengths=(100.0,), folds=5, seed=0
    )
    assert accuracy(found.head.probabilities(features), gold) > 0.95
    assert accuracy(found.cross_fitted, gold) < 0.65


def test_the_same_rows_and_seed_give_the_same_head_and_identity() -> None:
    *_, first = fitted(120, 4)
    *_, second = fitted(120, 4)
    *_, other = fitted(120, 4, seed=9)
    assert head_identity("encoder", first.head) == head_identity("encoder", second.head)
    assert head_identity("encoder", first.head) != head_identity("encoder", other.head)
    assert np.array_equal(first.cross_fitted, second.cross_fitted)


def test_a_label_without_rows_gets_no_probability() -> None:
    features, gold = clusters(60, 2, 0)
    found = fit_head(
        features, gold, [str(row) for row in range(60)], 3, strengths=(3.0,), folds=3, seed=0
    )
    assert found.head.probabilities(features)[:, 2].max() < 1e-4


def test_two_examples_a_label_are_enough() -> None:
    features, gold = clusters(8, 4, 0)
    found = fit_head(
        features, gold, [str(row) for row in range(8)], 4, strengths=STRENGTHS, folds=5, seed=0
    )
    assert set(found.folds) == {0, 1}
    assert np.isfinite(found.cross_fitted).all()


def test_a_head_comes_back_from_its_file_to_the_bit(tmp_path: Path) -> None:
    features, _, found = fitted(60, 3)
    save_head(found.head, tmp_path / "head.safetensors", rarity=np.ones(4, np.float32))
    head, further = load_head(tmp_path / "head.safetensors")
    assert np.array_equal(head.probabilities(features), found.head.probabilities(features))
    assert further["rarity"].tolist() == [1, 1, 1, 1]
    assert head_identity("e", head) == head_identity("e", found.head)
    assert load_file(tmp_path / "head.safetensors")["temperature"].dtype == np.float64


def test_a_damaged_or_foreign_head_is_told(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(CorruptArtifact, match=r"head\.safetensors"):
        load_head(path)
    save_head(SoftmaxHead(np.ones((2, 3), np.float32), np.ones(2, np.float32), 1.0), path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CorruptArtifact, match=r"head\.safetensors"):
        load_head(path)
    (tmp_path / "labeller.json").write_text("{")
    with pytest.raises(CorruptArtifact, match=r"labeller\.json"):
        read_description(tmp_path / "labeller.json")


def test_word_features_are_the_same_in_every_process_and_of_unit_length() -> None:
    texts = ["The VPN drops every hour", "vpn DROPS every hour", "printer is out of toner"]
    features = WordFeatures.fit(texts, 512, 512)
    rows = features(texts)
    assert rows.shape == (3, 1024)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows.min() >= 0
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3
    # MurmurHash3 of "vpn" picks this column on every machine.
    alone = WordFeatures(512, 512, np.ones(1024, np.float32))(["vpn"])
    assert np.flatnonzero(alone[0, :512]).tolist() == [108]


def test_a_text_without_words_has_no_features_and_no_nan() -> None:
    features = WordFeatures.fit(["a b", "c d"], 64, 64)
    assert not np.isnan(features(["", "  "])).any()


def test_naive_bayes_prefers_the_label_whose_words_occur() -> None:
    words = np.array([[1, 0, 0.5], [1, 0, 0], [0, 1, 0], [0, 1, 0.5]], np.float32)
    weights = naive_bayes(words, np.array([0, 0, 1, 1]), 2, 0.1)
    assert np.allclose(np.exp(weights).sum(1), 1)
    assert (words @ weights.T).argmax(1).tolist() == [0, 0, 1, 1]


def test_the_judge_reads_words_even_where_the_embedding_says_all() -> None:
    embeddings, gold = clusters(120, 2, 0)
    texts = [f"{'alpha' if label == 0 else 'omega'} {row}" for row, label in enumerate(gold)]
    features = WordFeatures.fit(texts, 256, 256)
    found = fit_judge(embeddings, features(texts), gold, texts, 2, JudgeConfig())
    assert found.head.weight.shape == (2, embeddings.shape[1] + 512)
    nothing = np.zeros((1, embeddings.shape[1]), np.float32)
    answers = [
        found.head.probabilities(np.hstack([nothing, features([text])]))[0].argmax()
        for text in ("alpha", "omega")
    ]
    assert answers == [0, 1]

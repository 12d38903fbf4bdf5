"""Regression on soft labels: scikit-learn's solution where the labels are hard, better ones where they are not."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from offline.student.soft_regression import fit_soft_head

ROWS, WIDTH, LABELS = 300, 12, 3


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def soft(features: np.ndarray) -> np.ndarray:
    logits = features @ np.random.default_rng(1).normal(size=(WIDTH, LABELS))
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return (exponents / exponents.sum(1, keepdims=True)).astype(np.float32)


FORMS = [str(row) for row in range(ROWS)]


def test_hard_labels_give_scikit_learns_solution(features: np.ndarray) -> None:
    gold = soft(features).argmax(1)
    head = fit_soft_head(
        features, np.eye(LABELS, dtype=np.float32)[gold], FORMS, strengths=(1.0,), seed=0
    )
    theirs = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000).fit(features, gold)
    ours = features @ head.weight.T + head.bias
    expected = theirs.decision_function(features)
    centred = ours - ours.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, expected - expected.mean(1, keepdims=True), atol=0.1)


def test_soft_labels_are_followed_and_sparse_features_give_the_same(features: np.ndarray) -> None:
    targets = soft(features)
    head = fit_soft_head(features, targets, FORMS, strengths=(1.0, 100.0), seed=0)
    assert np.abs(head.probabilities(features) - targets).mean() < 0.02
    again = fit_soft_head(
        sparse.csr_matrix(features), targets, FORMS, strengths=(1.0, 100.0), seed=0
    )
    np.testing.assert_allclose(again.weight, head.weight, atol=0.05)

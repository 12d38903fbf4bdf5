import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from offline.student.tfidf import TfidfConfig, fit_tfidf

TEXTS = [
    "the printer is out of paper",
    "printer jammed again",
    "cannot print my document",
    "the print queue is stuck",
    "my password has expired",
    "forgot the password",
    "please reset my password",
    "password reset link is broken",
]
GOLD = np.array([0, 0, 0, 0, 1, 1, 1, 1])
NEW = ["the printer prints nothing", "reset the password please", "paper", "hello there"]
CONFIG = TfidfConfig(strengths=(10.0,), folds=2)


def test_rotated_rows_give_the_regression_on_the_ngrams_themselves() -> None:
    ours = fit_tfidf(TEXTS, None, GOLD, 2, CONFIG, seed=0)
    ngrams = FeatureUnion(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
            (
                "characters",
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
            ),
        ]
    )
    plain = LogisticRegression(C=10.0, tol=1e-8, max_iter=5000)
    plain.fit(ngrams.fit_transform(TEXTS), GOLD)
    expected = plain.decision_function(ngrams.transform(NEW))
    head = ours.fitted.head
    found = ours.probabilities(NEW)
    logits = head.temperature * (np.log(found[:, 1]) - np.log(found[:, 0]))
    np.testing.assert_allclose(logits, expected, atol=0.02)
    assert ours.parameters == 2 * (len(ngrams.get_feature_names_out()) + 1)


def test_the_two_texts_of_a_pair_have_their_own_ngrams() -> None:
    """The label is which side holds the word: features that mix the sides could not tell."""
    others = ["red", "blue", "old", "new", "big", "small", "wet", "dry"]
    firsts = [f"{other} {word}" for other in others for word in ("cat", "dog")]
    seconds = [f"{word} {other}" for other in others for word in ("dog", "cat")]
    fitted = fit_tfidf(firsts, seconds, np.array([0, 1] * 8), 2, CONFIG, seed=0)
    assert fitted.probabilities(["cat", "dog"], ["dog", "cat"]).argmax(1).tolist() == [0, 1]


def test_new_texts_are_classified() -> None:
    found = fit_tfidf(TEXTS, None, GOLD, 2, CONFIG, seed=0).probabilities(NEW)
    assert found.argmax(1)[:2].tolist() == [0, 1]
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_rows_and_seed_give_the_same_answers(seed: int) -> None:
    one, other = (
        fit_tfidf(TEXTS, None, GOLD, 2, CONFIG, seed=seed).probabilities(NEW) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)

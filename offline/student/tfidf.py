"""The baseline without a network: TF-IDF over words and characters, and logistic regression."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion

from offline.configs.section import Section
from offline.tasks.normal_form import letters_and_digits
from offline.teacher.head import FittedHead, fit_head

_SMALLEST_EIGENVALUE = 1e-6


class TfidfConfig(Section):
    """The features and the candidates for the regularisation.

    Attributes:
        word_ngrams: shortest and longest run of words.
        character_ngrams: shortest and longest run of characters, within word boundaries.
        strengths: inverse regularisations to choose from (scikit-learn's `C`), by cross-fitting.
        folds: of the cross-fitting.
    """

    word_ngrams: tuple[int, int] = (1, 2)
    character_ngrams: tuple[int, int] = (2, 5)
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 3.0, 10.0, 30.0, 100.0, 300.0), min_length=1
    )
    folds: Annotated[int, Field(ge=2)] = 5


@dataclass(frozen=True, slots=True)
class TfidfClassifier:
    """A fitted classifier; calibrated by cross-fitting, as the labeller is.

    Attributes:
        fitted: head, chosen strength and cross-fitted probabilities.
        parameters: weights of the regression over the n-grams, biases included.
    """

    fitted: FittedHead
    parameters: int
    _features: "_Features"
    _rotation: NDArray[np.float64]

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(n, labels) of n texts or pairs."""
        coordinates = self._features.products(texts, pairs) @ self._rotation
        return self.fitted.head.probabilities(coordinates.astype(np.float32))


def fit_tfidf(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    gold: NDArray[np.int64],
    labels: int,
    config: TfidfConfig,
    *,
    seed: int,
) -> TfidfClassifier:
    """Fit on labelled rows; strength and temperature by cross-fitting on the same rows.

    The rows are far fewer than their n-grams, so the regression is fitted on the rows' coordinates in
    the space that they span: inner products and penalty, and with them the solution, stay the same,
    at a hundredth of the time.

    Args:
        texts: n texts.
        pairs: n second texts, or None.
        gold: (n,) positions of the labels.
        labels: how many labels there are.
        config: features and candidates.
        seed: of the cross-fitting's folds.
    """
    features = _Features(texts, pairs, config)
    values, vectors = np.linalg.eigh(features.products(texts, pairs))
    kept = values > _SMALLEST_EIGENVALUE
    # Coordinates U·S of the rows; a new row x gets x·Rᵀ·U·S⁻¹.
    rotation = vectors[:, kept] / np.sqrt(values[kept])
    coordinates = vectors[:, kept] * np.sqrt(values[kept])
    forms = [
        letters_and_digits(text, pairs[row] if pairs is not None else None)
        for row, text in enumerate(texts)
    ]
    fitted = fit_head(
        coordinates,
        gold,
        forms,
        labels,
        strengths=config.strengths,
        folds=config.folds,
        seed=seed,
    )
    return TfidfClassifier(fitted, labels * (features.count + 1), features, rotation)


class _Features:
    """Word and character n-grams of the fitted rows; a pair's two texts have their own."""

    def __init__(
        self, texts: Sequence[str], pairs: Sequence[str] | None, config: TfidfConfig
    ) -> None:
        sides = [texts] if pairs is None else [texts, pairs]
        self._vectorizers = [ngram_features(config) for _ in sides]
        self._rows = [
            vectorizer.fit_transform(side)
            for vectorizer, side in zip(self._vectorizers, sides, strict=True)
        ]
        self.count = sum(int(rows.shape[1]) for rows in self._rows)

    def products(self, texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float64]:
        """(n, fitted rows) inner products."""
        sides = [texts] if pairs is None else [texts, pairs]
        blocks: list[NDArray[np.float64]] = [
            (vectorizer.transform(side) @ rows.T).toarray()
            for vectorizer, side, rows in zip(self._vectorizers, sides, self._rows, strict=True)
        ]
        total: NDArray[np.float64] = np.sum(blocks, axis=0)
        return total


def ngram_features(config: TfidfConfig) -> Any:
    """Word and character n-grams side by side, not fitted yet: scikit-learn's `FeatureUnion`."""
    words = TfidfVectorizer(ngram_range=config.word_ngrams, sublinear_tf=True)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=config.character_ngrams, sublinear_tf=True
    )
    return FeatureUnion([("words", words), ("characters", characters)])

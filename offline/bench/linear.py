"""Linear baselines: a softmax head over n-grams or static embeddings, on labelled rows or on knowledge items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from offline.student.items import TrainingItems
from offline.student.soft_regression import fit_soft_head
from offline.student.tfidf import TfidfConfig, ngram_features
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import Examples
from offline.teacher.head import SoftmaxHead, fit_head

BYTES_A_WEIGHT = 4
STRENGTHS_ON_KNOWLEDGE = (3.0, 10.0, 30.0)
STRENGTHS_ON_LABELS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
_COMMON = {"words__min_df": 2, "characters__min_df": 2}

Features = Callable[[Sequence[str], Sequence[str] | None], Any]
"""Texts and their second texts to (n, d), dense or sparse."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A head over features.

    Attributes:
        features: of texts or pairs.
        head: the regression.
        feature_weights: weights that the features need.
        feature_bytes: of the features' files.
    """

    features: Features
    head: SoftmaxHead
    feature_weights: int = 0
    feature_bytes: int = 0

    @property
    def parameters(self) -> int:
        return self.feature_weights + self.head.parameters

    @property
    def model_bytes(self) -> int:
        return self.feature_bytes + BYTES_A_WEIGHT * self.head.parameters

    @property
    def store_bytes(self) -> int:
        return 0

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(n, labels) of n texts or pairs."""
        return self.head.probabilities(self.features(texts, pairs))


def tfidf_on_items(items: TrainingItems, config: TfidfConfig, *, seed: int) -> Linear:
    """The n-grams of the baseline `tfidf` that two items have, and regression on the items' soft labels.

    There are thousands of items: an n-gram of one of them alone says nothing of the others, and takes a
    weight a label.

    Args:
        items: of the knowledge file.
        config: the baseline's n-grams.
        seed: of the held-out texts that choose the regularisation.
    """
    sides = [items.texts] if items.pairs is None else [items.texts, items.pairs]
    fitted = [ngram_features(config).set_params(**_COMMON).fit(side) for side in sides]

    def features(texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
        both = [texts] if pairs is None else [texts, pairs]
        blocks = [found.transform(side) for found, side in zip(fitted, both, strict=True)]
        return sparse.hstack(blocks, format="csr")

    return Linear(features, _on_items(features, items, seed))


class StaticFeatures(Protocol):
    """Features with weights of their own; see `offline.bench.static_embeddings`."""

    @property
    def parameters(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]: ...


def static_on_items(static: StaticFeatures, items: TrainingItems, *, seed: int) -> Linear:
    """Static embeddings, and regression on the soft labels of knowledge items."""
    return Linear(static, _on_items(static, items, seed), static.parameters, static.bytes)


def static_on_labels(
    static: StaticFeatures,
    examples: Examples,
    gold: NDArray[np.int64],
    labels: int,
    *,
    seed: int,
) -> Linear:
    """Static embeddings, and logistic regression on labelled rows as the teacher's head is fitted.

    Args:
        static: the embeddings.
        examples: the labelled rows of the run.
        gold: (n,) positions of their labels.
        labels: how many there are.
        seed: of the folds that choose regularisation and temperature.
    """
    pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
    fitted = fit_head(
        static(examples.texts, examples.pairs),
        gold,
        [letters_and_digits(text, pair) for text, pair in zip(examples.texts, pairs, strict=True)],
        labels,
        strengths=STRENGTHS_ON_LABELS,
        folds=FOLDS,
        seed=seed,
    )
    return Linear(static, fitted.head, static.parameters, static.bytes)


def _on_items(features: Features, items: TrainingItems, seed: int) -> SoftmaxHead:
    return fit_soft_head(
        features(items.texts, items.pairs),
        items.soft_labels,
        items.forms,
        strengths=STRENGTHS_ON_KNOWLEDGE,
        seed=seed,
    )

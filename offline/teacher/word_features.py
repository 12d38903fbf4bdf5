"""Hashed words and character sequences of a text, and a naive Bayes classifier on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer


@dataclass(frozen=True, slots=True)
class WordFeatures:
    """TF-IDF of hashed words, pairs of words and character sequences of 3 to 5.

    Hashing (MurmurHash3, the same on every machine) needs no vocabulary, so that the whole is one array.

    Attributes:
        words: columns of words and pairs of words.
        characters: columns of character sequences.
        rarity: (words + characters,) float32, the inverse document frequencies.
    """

    words: int
    characters: int
    rarity: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[str], words: int, characters: int) -> "WordFeatures":
        """The features with the (smoothed) inverse document frequencies of `texts`."""
        counts = _counts(texts, words, characters)
        rarity = np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1
        return cls(words, characters, rarity.astype(np.float32))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, words + characters) float32, rows of unit length; zero where a text has no word."""
        weighted = _counts(texts, self.words, self.characters) * self.rarity
        lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
        unit: NDArray[np.float32] = weighted / np.maximum(lengths, np.float32(1e-12))
        return unit


def naive_bayes(
    features: NDArray[np.float32], gold: NDArray[np.int64], labels: int, smoothing: float
) -> NDArray[np.float64]:
    """(labels, d) log-likelihoods of features by label: multinomial naive Bayes, uniform prior.

    Args:
        features: (n, d), not negative.
        gold: (n,) positions of the labels.
        labels: how many labels there are.
        smoothing: added to each label's sum of each feature.
    """
    sums = np.full((labels, features.shape[1]), smoothing)
    for label in range(labels):
        sums[label] += features[gold == label].sum(0)
    likelihoods: NDArray[np.float64] = np.log(sums / sums.sum(1, keepdims=True))
    return likelihoods


def _counts(texts: Sequence[str], words: int, characters: int) -> NDArray[np.float32]:
    shared = {"norm": None, "alternate_sign": False, "dtype": np.float32}
    parts = [
        HashingVectorizer(n_features=words, ngram_range=(1, 2), **shared),
        HashingVectorizer(n_features=characters, analyzer="char_wb", ngram_range=(3, 5), **shared),
    ]
    return np.hstack([part.transform(list(texts)).toarray() for part in parts])

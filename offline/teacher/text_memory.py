"""Texts as the reward compares samples with them: word sequences, embeddings, and what is usual."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offline.tasks.normal_form import letters_and_digits

ORDERS = (2, 3, 4)
Ngram = tuple[str, ...]

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return _WORD.findall(text.lower())


def ngrams(words: Sequence[str], order: int) -> list[Ngram]:
    return [tuple(words[at : at + order]) for at in range(len(words) - order + 1)]


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Texts with their labels and embeddings.

    Attributes:
        words: words of each of n texts.
        labels: (n,).
        embeddings: (n, d) of unit length.
        holders: in how many of the texts each word sequence of the orders 2 to 4 occurs.
    """

    words: Sequence[Sequence[str]]
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    holders: Mapping[Ngram, int] = field(repr=False)

    @classmethod
    def of(
        cls, texts: Sequence[str], labels: NDArray[np.int64], embeddings: NDArray[np.float32]
    ) -> "LabelledTexts":
        return cls.of_words([words_of(text) for text in texts], labels, embeddings)

    @classmethod
    def none(cls) -> "LabelledTexts":
        return cls([], np.zeros(0, np.int64), np.zeros((0, 0), np.float32), {})

    def followed_by(self, other: "LabelledTexts", limit: int) -> "LabelledTexts":
        """These texts and then the others, the last `limit` of them."""
        if limit == 0:
            return self.none()
        if not self.words:
            return self.of_words(
                other.words[-limit:], other.labels[-limit:], other.embeddings[-limit:]
            )
        return self.of_words(
            [*self.words, *other.words][-limit:],
            np.concatenate([self.labels, other.labels])[-limit:],
            np.concatenate([self.embeddings, other.embeddings])[-limit:],
        )

    @classmethod
    def of_words(
        cls,
        words: Sequence[Sequence[str]],
        labels: NDArray[np.int64],
        embeddings: NDArray[np.float32],
    ) -> "LabelledTexts":
        """Texts that are words already."""
        holders: Counter[Ngram] = Counter()
        for text in words:
            holders.update({ngram for order in ORDERS for ngram in ngrams(text, order)})
        return cls(words, labels, embeddings, holders)


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """Texts that samples may turn out to be copies of.

    Attributes:
        forms: letters and digits of each text.
        holders: which texts each sequence of three words occurs in.
    """

    forms: frozenset[str]
    holders: Mapping[Ngram, Sequence[int]] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "KnownTexts":
        holders: dict[Ngram, list[int]] = {}
        for row, text in enumerate(texts):
            for ngram in set(ngrams(words_of(text), 3)):
                holders.setdefault(ngram, []).append(row)
        return cls(frozenset(map(letters_and_digits, texts)), holders)

    def share_of(self, text: str) -> float:
        """How much of a text one of these has: 1 for a copy, else the share of its three-word sequences."""
        if letters_and_digits(text) in self.forms:
            return 1.0
        found = set(ngrams(words_of(text), 3))
        shared: Counter[int] = Counter()
        for ngram in found:
            shared.update(self.holders.get(ngram, ()))
        return max(shared.values()) / len(found) if shared else 0.0


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """The training texts, and what is usual in them.

    Attributes:
        known: the texts, pairs joined.
        sides: the first texts and the second texts of a pair task.
        echo: how much of a second text its first one has, see `echo_of`: the largest that is usual (95 % quantile).
        unlabelled: the unlabelled texts, pairs joined.
        lengths: (4,) the shortest length in words, the 5 % and the 95 % quantile, and the longest.
        nearest: median cosine similarity of a text to its nearest fellow of the same label.
        label_words: (labels,) share of a text's words that are its label's: the largest that is usual (95 %
            quantile of the label's texts).
    """

    known: KnownTexts
    sides: tuple[KnownTexts, KnownTexts] | None
    echo: float
    unlabelled: KnownTexts
    lengths: tuple[float, float, float, float]
    nearest: float
    label_words: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        labels: NDArray[np.int64],
        embeddings: NDArray[np.float32],
        label_words: Sequence[str],
        sides: tuple[Sequence[str], Sequence[str]] | None = None,
        unlabelled: Sequence[str] = (),
    ) -> "TrainingTexts":
        """Measure labelled training texts; those of pairs are joined by the caller, who gives both sides too.

        Of the unlabelled texts nothing is measured: they are there to be told from new ones.
        """
        words = [words_of(text) for text in texts]
        counts = np.array([len(text) for text in words])
        low, high = np.quantile(counts, [0.05, 0.95])
        shares = np.array(
            [share_of(text, label_words[label]) for text, label in zip(words, labels, strict=True)]
        )
        usual = [
            float(np.quantile(shares[labels == label], 0.95)) if np.any(labels == label) else 0.0
            for label in range(len(label_words))
        ]
        return cls(
            known=KnownTexts.of(texts),
            sides=None if sides is None else (KnownTexts.of(sides[0]), KnownTexts.of(sides[1])),
            echo=0.0 if sides is None else float(np.quantile(_echoes(*sides), 0.95)),
            unlabelled=KnownTexts.of(unlabelled),
            lengths=(float(counts.min()), float(low), float(high), float(counts.max())),
            nearest=_nearest_fellow(embeddings, labels),
            label_words=np.array(usual, dtype=np.float32),
        )


def echo_of(text: str, pair: str) -> float:
    """How much of a pair's second text the first one has: 1 where it says the same, else the share of its three-word
    sequences."""
    return KnownTexts.of([text]).share_of(pair)


def _echoes(texts: Sequence[str], pairs: Sequence[str]) -> list[float]:
    return [echo_of(text, pair) for text, pair in zip(texts, pairs, strict=True)]


def share_of(words: Sequence[str], name: str) -> float:
    """Share of the words that occur in a label's words."""
    known = set(words_of(name))
    return sum(word in known for word in words) / len(words) if words else 0.0


def _nearest_fellow(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    similarity = embeddings @ embeddings.T
    similarity[labels[:, None] != labels[None, :]] = -1.0
    np.fill_diagonal(similarity, -1.0)
    nearest = similarity.max(1)
    found = nearest[nearest > -1.0]
    return float(np.median(found)) if len(found) else 0.0

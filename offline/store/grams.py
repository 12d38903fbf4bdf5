"""The n-grams of a lexical index in the texts that it is fitted on, as features."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from services.student.lexical import Words, characters_of, runs_of

LEAST_ITEMS = 2
"""Items that an n-gram must be in: of one alone it says nothing about the others."""


class Grams:
    """The n-grams of one kind in the fitted texts.

    Attributes:
        kept: those that the index has, sorted.
        idf: (kept,) their inverse document frequencies.
    """

    def __init__(
        self, texts: int, places: Sequence[NDArray[np.int64]], names: Sequence[str]
    ) -> None:
        """Of each text the places of its n-grams in `names`, repeated ones as often as they count."""
        self._texts = texts
        self._names = names
        self._rows = np.repeat(np.arange(texts), [len(of_text) for of_text in places])
        self._places = np.concatenate([*places, np.empty(0, np.int64)])
        # Each text counts once, however often it has the n-gram.
        once = np.unique(self._places * texts + self._rows) // texts
        self.frequency = np.bincount(once, minlength=len(names))
        self._keep(np.flatnonzero(self.frequency >= LEAST_ITEMS))

    @classmethod
    def of_runs(cls, texts: Sequence[Words]) -> "Grams":
        numbers: dict[str, int] = {}
        places = [_numbered(runs_of(words), numbers) for words in texts]
        return cls(len(texts), places, list(numbers))

    @classmethod
    def of_characters(cls, texts: Sequence[Words]) -> "Grams":
        numbers: dict[str, int] = {}
        known: dict[str, NDArray[np.int64]] = {}
        nothing = np.empty(0, np.int64)
        places = []
        for words in texts:
            own = dict.fromkeys(words)
            for word in own:
                if word not in known:
                    known[word] = _numbered(characters_of(word), numbers)
            places.append(np.concatenate([nothing, *(known[word] for word in own)]))
        return cls(len(texts), places, list(numbers))

    def keep_most_frequent(self, other: "Grams", most: int) -> None:
        """Keep at most so many of both kinds together."""
        both = [
            (-grams.frequency[number], kind, name, number)
            for kind, grams in enumerate((self, other))
            for name, number in zip(grams.kept, grams._numbers, strict=True)
        ]
        if len(both) <= most:
            return
        chosen = sorted(both)[:most]
        for kind, grams in enumerate((self, other)):
            grams._keep(np.array([entry[3] for entry in chosen if entry[1] == kind], np.int64))

    def features(self) -> sparse.csr_array:
        """(texts, kept) float32: each row divided by its length."""
        columns = np.full(len(self._names), -1)
        columns[self._numbers] = np.arange(len(self._numbers))
        found = columns[self._places]
        rows, found = self._rows[found >= 0], found[found >= 0]
        values = self.idf[found].astype(np.float64)
        squares = np.bincount(rows, weights=np.square(values), minlength=self._texts)
        values /= np.sqrt(squares)[rows]
        matrix = sparse.csr_array((values, (rows, found)), shape=(self._texts, len(self.kept)))
        return matrix.astype(np.float32)

    def _keep(self, numbers: NDArray[np.int64]) -> None:
        self._numbers = np.array(
            sorted(numbers.tolist(), key=self._names.__getitem__), dtype=np.int64
        )
        self.kept = tuple(self._names[number] for number in self._numbers)
        frequency = self.frequency[self._numbers]
        self.idf = (np.log((1 + self._texts) / (1 + frequency)) + 1).astype(np.float32)


def _numbered(grams: Iterable[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    """Their numbers; new ones are given the next."""
    number: Callable[[str, int], int] = numbers.setdefault
    return np.array([number(gram, len(numbers)) for gram in grams], np.int64)

"""Fitting a release's lexical index: softmax regression of the teacher's soft labels on the n-grams of the knowledge.

It is the baseline `tfidf_on_knowledge`, whose features are here those that a server can look up quickly
(`services.student.lexical`), kept for its own sake: as a part of the answer it tells what the student has missed.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from offline.student.soft_regression import fit_soft_head
from offline.tasks.normal_form import letters_and_digits
from services.student.lexical import LexicalWeights, Words, characters_of, runs_of, words_of

STRENGTHS = (10.0, 30.0)
"""Candidates for the inverse regularisation (scikit-learn's `C`)."""
LEAST_ITEMS = 2
"""Items that an n-gram must be in: of one alone it says nothing about the others."""
MOST_GRAMS = 1 << 17
MOST_WEIGHTS = 4_000_000
"""N-grams times labels: the most frequent n-grams are kept."""
MOST_ITEMS = 100_000
"""Items that are fitted; of more, so many drawn at random. The weights hardly change with more of them."""
MOST_ANSWERS = 1_500_000
"""Fitted items times labels: what a fit takes grows with it, and every edit is followed by one."""
MOST_WORDS = 1_000_000
"""Words of all fitted items together."""

_SEED = 0
_LEAST_KNOWN = 0.5


def fit_lexical(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    soft_labels: NDArray[np.float32],
    *,
    known: int,
    most_words: int,
) -> LexicalWeights:
    """Fit on knowledge items; the same items give the same weights.

    The labels that the student does not know have no part in it: an item of one says nothing, and is left out.
    Less than two distinct texts are nothing to learn from: the index then has no n-grams and says nothing.

    Args:
        texts: n texts.
        pairs: n second texts, or None.
        soft_labels: (n, L).
        known: how many labels, the first ones, the student knows.
        most_words: of a text that are looked at: the student's `max_tokens`.
    """
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    shares = soft_labels[:, :known].sum(1)
    rows: list[int] = np.flatnonzero(shares >= _LEAST_KNOWN).tolist()
    words = [words_of(texts[row], seconds[row], most=most_words) for row in rows]
    drawn = _drawn(words, known)
    rows, words = [rows[place] for place in drawn], [words[place] for place in drawn]
    forms = [letters_and_digits(texts[row], seconds[row]) for row in rows]
    if len(set(forms)) < 2:
        nothing = np.zeros((0, known), np.float16)
        return LexicalWeights(
            (), (), np.zeros(0, np.float32), nothing, np.zeros(known, np.float32), most_words
        )
    runs, characters = _Grams.of_runs(words), _Grams.of_characters(words)
    runs.keep_most_frequent(characters, min(MOST_GRAMS, MOST_WEIGHTS // known))
    # The bytes are to be the same on any number of cores, and a sum by several threads is not.
    with threadpool_limits(1):
        head = fit_soft_head(
            sparse.hstack([runs.features(), characters.features()], format="csr"),
            soft_labels[rows, :known] / shares[rows, None],
            forms,
            strengths=STRENGTHS,
            seed=_SEED,
        )
    idf = np.concatenate([runs.idf, characters.idf])
    scaled = head.weight.T * (idf[:, None] / head.temperature)
    return LexicalWeights(
        runs.kept,
        characters.kept,
        idf,
        scaled.astype(np.float16),
        (head.bias / head.temperature).astype(np.float32),
        most_words,
    )


class _Grams:
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
    def of_runs(cls, texts: Sequence[Words]) -> "_Grams":
        numbers: dict[str, int] = {}
        places = [_numbered(runs_of(words), numbers) for words in texts]
        return cls(len(texts), places, list(numbers))

    @classmethod
    def of_characters(cls, texts: Sequence[Words]) -> "_Grams":
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

    def keep_most_frequent(self, other: "_Grams", most: int) -> None:
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


def _drawn(texts: Sequence[Words], known: int) -> list[int]:
    """Positions of the items that are fitted, ascending: all, or as many as the limits allow, at random."""
    most = min(MOST_ITEMS, max(2, MOST_ANSWERS // known))
    lengths = np.array([len(words) for words in texts], np.int64)
    if len(texts) <= most and lengths.sum() <= MOST_WORDS:
        return list(range(len(texts)))
    order = np.random.default_rng(_SEED).permutation(len(texts))[:most]
    within = max(2, int(np.searchsorted(np.cumsum(lengths[order]), MOST_WORDS, side="right")))
    return sorted(order[:within].tolist())

"""Fitting the words of labels that came with edits (`services.student.added_words`), and judging them fairly.

It is the lexical index's own regression with other classes: all labels that the student knows are one, so that a fit
does not grow with their number. The few items of an added label stand against thousands of others; what they say
is corrected for that as the store's answer is (`services.student.label_balance`), here all the way.

An index recognises the items that it was fitted on. Items that stand for texts to come are therefore asked about
by one that was fitted without them (`LeftOutWords`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from offline.store.grams import Grams
from offline.store.lexical_fit import MOST_ANSWERS, MOST_GRAMS, MOST_WEIGHTS, MOST_WORDS
from offline.student.soft_regression import fit_soft_head
from offline.tasks.normal_form import letters_and_digits
from services.student.added_words import AddedWords
from services.student.label_balance import label_weights
from services.student.lexical import LexicalWeights, words_of

MOST_LABELS = 100
"""Of more added labels than that, the neighbours alone tell: too few items a label could be fitted."""
STRENGTH = 10.0
"""Inverse regularisation (scikit-learn's `C`): too few items of an added label are held out to choose it."""
MOST_KNOWN = 20_000
"""Items of the labels that the student knows; of more, so many drawn at random."""

_FOLDS = 5
_MOST_KNOWN_A_FOLD = 2_000
_SEED = 0

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedItems:
    """What is fitted: n items' `texts`, their second texts `pairs` or None, and `soft_labels` (n, L)."""

    texts: Sequence[str]
    pairs: Sequence[str] | None
    soft_labels: NDArray[np.float32]

    def texts_at(self, rows: Sequence[int]) -> tuple[list[str], list[str] | None]:
        """Texts, and second texts, of the items at those rows."""
        pairs = None if self.pairs is None else [self.pairs[row] for row in rows]
        return [self.texts[row] for row in rows], pairs

    def length(self, row: int, most_words: int) -> int:
        """Words and marks of an item that are looked at."""
        pair = None if self.pairs is None else self.pairs[row]
        return len(words_of(self.texts[row], pair, most=most_words))


def fit_added_words(items: FittedItems, *, known: int, most_words: int) -> AddedWords | None:
    """Fit on all items; the same items give the same weights.

    None where the student knows all labels, or there is nothing to learn from.

    Args:
        items: of the edited release.
        known: how many labels, the first ones, the student knows.
        most_words: of a text that are looked at: the student's `max_tokens`.
    """
    if not 0 < items.soft_labels.shape[1] - known <= MOST_LABELS:
        return None
    return _fit(
        items, _sample(items, known, MOST_KNOWN, most_words), known=known, most_words=most_words
    )


class LeftOutWords:
    """The words' answers to items, each by a fit that has seen neither it nor those that are worded like it."""

    def __init__(
        self, items: FittedItems, groups: Iterable[Sequence[int]], *, known: int, most_words: int
    ) -> None:
        """Fit once a fold.

        Args:
            items: of the edited release.
            groups: rows of the items that will be asked about, in groups that are left out together.
            known: how many labels, the first ones, the student knows.
            most_words: of a text that are looked at.
        """
        self._items = items
        self._fold = {row: place % _FOLDS for place, group in enumerate(groups) for row in group}
        rows = _sample(items, known, _MOST_KNOWN_A_FOLD, most_words)
        folds = np.array([self._fold.get(row, -1) for row in rows.tolist()])
        self._fits = [
            _fit(items, rows[folds != fold], known=known, most_words=most_words)
            for fold in range(_FOLDS)
        ]

    def ask(self, rows: Sequence[int]) -> NDArray[np.float32] | None:
        """(rows, added): probabilities of the added labels; None where one of the fits had nothing to learn from."""
        found = None
        for fold, fit in enumerate(self._fits):
            if fit is None:
                return None
            places = [place for place, row in enumerate(rows) if self._fold[row] == fold]
            if found is None:
                found = np.zeros((len(rows), fit.labels), np.float32)
            if places:
                found[places] = fit.ask(*self._items.texts_at([rows[place] for place in places]))
        return found


def _sample(items: FittedItems, known: int, most: int, most_words: int) -> Rows:
    """Rows to fit on, ascending: of added labels all, and of the others at most so many.

    Of both no more than half of what a lexical index is fitted on, drawn at random.
    """
    classes = 1 + items.soft_labels.shape[1] - known
    of_known = items.soft_labels[:, :known].sum(1) >= 0.5
    room = MOST_ANSWERS // classes // 2
    rows = [
        _drawn(items, np.flatnonzero(of_known), min(most, room), most_words),
        _drawn(items, np.flatnonzero(~of_known), room, most_words),
    ]
    return np.sort(np.concatenate(rows))


def _drawn(items: FittedItems, rows: Rows, most: int, most_words: int) -> Rows:
    """At most so many of the rows, and of at most half of the words that an index is fitted on; one at least."""
    drawn = np.random.default_rng(_SEED).permutation(rows)[: max(1, most)]
    words = np.cumsum([items.length(row, most_words) for row in drawn.tolist()])
    return drawn[: max(1, int(np.searchsorted(words, MOST_WORDS // 2, side="right")))]


def _fit(items: FittedItems, rows: Rows, *, known: int, most_words: int) -> AddedWords | None:
    soft = items.soft_labels
    texts, pairs = items.texts_at(rows.tolist())
    classes = np.concatenate([soft[rows, :known].sum(1, keepdims=True), soft[rows, known:]], 1)
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    both = list(zip(texts, seconds, strict=True))
    forms = [letters_and_digits(text, pair) for text, pair in both]
    if len(set(forms)) < 2:
        return None
    words = [words_of(text, pair, most=most_words) for text, pair in both]
    runs, characters = Grams.of_runs(words), Grams.of_characters(words)
    runs.keep_most_frequent(characters, min(MOST_GRAMS, MOST_WEIGHTS // classes.shape[1]))
    # The bytes are to be the same on any number of cores, and a sum by several threads is not.
    with threadpool_limits(1):
        # Its temperature is left aside: held-out items, hardly one of which is of an added label, tell nothing of it.
        head = fit_soft_head(
            sparse.hstack([runs.features(), characters.features()], format="csr"),
            classes,
            forms,
            strengths=(STRENGTH,),
            seed=_SEED,
        )
    # One item at least: what is said of a label without any must stay a number.
    counts = np.maximum(soft.sum(axis=0, dtype=np.float64), 1)
    wanted = label_weights(counts, known, [1.0] * (len(counts) - known))
    assert wanted is not None
    # Of the known labels' items a share alone was fitted, and where some are left out, not all of the others'.
    share = classes[:, 0].sum() / counts[:known].sum()
    missing = counts[known:] / np.maximum(classes[:, 1:].sum(0), 1)
    bias = head.bias.astype(np.float32)
    bias[1:] += np.log(wanted[known:] * missing * share)
    idf = np.concatenate([runs.idf, characters.idf])
    weights = (head.weight.T * idf[:, None]).astype(np.float16)
    return AddedWords(LexicalWeights(runs.kept, characters.kept, idf, weights, bias, most_words))

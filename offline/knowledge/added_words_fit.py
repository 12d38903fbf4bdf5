"""Fitting the words of labels that came with edits (`services.student.added_words`), and judging them fairly.

It is the lexical index's own regression with other classes: all labels that the student knows are one, so that a fit
takes seconds whatever their number. The few items of an added label stand against thousands of others; what they say
is corrected for that as the store's answer is (`services.student.label_balance`), here all the way.

An index recognises the items that it was fitted on. FittedItems that stand for texts to come are therefore asked about
by one that was fitted without them (`LeftOutWords`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.store.lexical_fit import MOST_ANSWERS, MOST_WORDS, fit_lexical
from services.student.added_words import AddedWords
from services.student.label_balance import label_weights
from services.student.lexical import LexicalWeights, words_of

MOST_LABELS = 100
"""Of more added labels than that, the neighbours alone tell: too few items a label could be fitted."""
MOST_KNOWN = 20_000
"""FittedItems of the labels that the student knows; of more, so many drawn at random."""

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
    """Rows of all items of added labels, and at most so many of the others, ascending.

    As many of the others as the lexical index fits beside them: it would leave out items of all labels alike.
    """
    mine = items.soft_labels[:, :known].sum(1) >= 0.5
    added, others = np.flatnonzero(~mine), np.flatnonzero(mine)
    room = MOST_ANSWERS // (1 + items.soft_labels.shape[1] - known) - len(added)
    others = np.random.default_rng(_SEED).permutation(others)[: max(1, min(most, room))]
    words = np.cumsum([items.length(row, most_words) for row in others.tolist()])
    left = MOST_WORDS - sum(items.length(row, most_words) for row in added.tolist())
    others = others[: max(1, int(np.searchsorted(words, left, side="right")))]
    return np.sort(np.concatenate([added, others]))


def _fit(items: FittedItems, rows: Rows, *, known: int, most_words: int) -> AddedWords | None:
    soft = items.soft_labels
    texts, pairs = items.texts_at(rows.tolist())
    classes = np.concatenate([soft[rows, :known].sum(1, keepdims=True), soft[rows, known:]], 1)
    fitted = fit_lexical(texts, pairs, classes, known=classes.shape[1], most_words=most_words)
    if not len(fitted.idf):
        return None
    counts = soft.sum(axis=0, dtype=np.float64)
    # One item at least: what is said of a label without any must stay a number.
    weights = label_weights(np.maximum(counts, 1), known, [1.0] * (len(counts) - known))
    assert weights is not None
    # Of the known labels' items a share alone was fitted: the others look that much more frequent than they are.
    share = float(classes[:, 0].sum() / max(counts[:known].sum(), 1))
    bias = fitted.bias.copy()
    bias[1:] += np.log(weights[known:] * share)
    return AddedWords(
        LexicalWeights(
            fitted.runs,
            fitted.characters,
            fitted.idf,
            fitted.weights,
            bias.astype(np.float32),
            fitted.most_words,
        )
    )

"""Asking a release's student about texts as the server does, with an exact search of the knowledge file itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from offline.knowledge.added_words_fit import FittedItems, LeftOutWords
from offline.knowledge.items import labelled_by_persons
from offline.knowledge.journal import item_keys
from offline.student.mixing_fit import nearest_items
from offline.teacher.near_duplicates import jaccard_similarity, shingles
from offline.teacher.quality import QualityConfig
from services.store.knowledge_file import Knowledge
from services.student.added_words import mix_added
from services.student.bundle import BundleManifest
from services.student.corrections import corrected, moved_by
from services.student.edited import EditedAnswers
from services.student.encoder import OnnxEncoder
from services.student.label_balance import label_weights
from services.student.lexical import LexicalIndex
from services.student.mixing import Mixed, blend, mix

Mask = NDArray[np.bool_]

_LEFT_OUT: dict[str, LeftOutWords] = {}
"""By the words that they are the left-out ones of: a release is asked for its balances, and again for the gate."""
_REMEMBERED = 2

MOST_ROWS = 500
"""Items of a label that it is judged by."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What an answer to n texts is mixed from.

    Attributes:
        logits: (n, H)
        similarities: (n, k)
        labels: (n, k, L)
        corrections: (n, k, H) of the neighbours; None for a release without any.
        words: (n, L - H), what words say for the labels that came with edits; None for a release without such words.
    """

    logits: NDArray[np.float32]
    similarities: NDArray[np.float32]
    labels: NDArray[np.float32]
    corrections: NDArray[np.float32] | None
    words: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.logits)


class AskedKnowledge:
    """A student and the knowledge that it wrote the vectors of.

    Attributes:
        knowledge: with vectors.
        known: how many labels, the first ones, the student knows.
    """

    def __init__(
        self,
        encoder: OnnxEncoder,
        bundle: BundleManifest,
        knowledge: Knowledge,
        lexical: LexicalIndex | None = None,
        edited: EditedAnswers | None = None,
    ) -> None:
        """Ask that student about that knowledge, with what else the release has of index and edits."""
        self.knowledge = knowledge
        self.known = len(bundle.labels)
        self._encoder = encoder
        self._mixing = bundle.mixing
        self._lexical = lexical
        self._edited = edited or EditedAnswers()
        self._most_words = bundle.max_tokens
        self._alike: dict[tuple[int, ...], Mask] = {}
        # The server's are float16.
        soft = knowledge.soft_labels.astype(np.float16)
        self._items = soft.sum(axis=0, dtype=np.float64)
        self._soft = soft.astype(np.float32)

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Scores:
        """Ask about n texts."""
        added = self._edited.words
        words = None if added is None else added.ask(texts, pairs)
        return self._scores(texts, pairs, words)

    def scores_of_left_out(self, rows: Sequence[int]) -> Scores:
        """Ask about the items at those rows, each as if it and those of them that are worded like it were not there.

        That holds for neighbours and the words of added labels; what the student and its own index have learned
        from an item stays.
        """
        texts, pairs = self.items(rows)
        excluded = np.zeros((len(rows), len(self.knowledge)), dtype=bool)
        excluded[:, rows] = self._alike_among(rows)
        words = None if self._left_out_words is None else self._left_out_words.ask(rows)
        return self._scores(texts, pairs, words, excluded)

    def _scores(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        words: NDArray[np.float32] | None,
        excluded: Mask | None = None,
    ) -> Scores:
        logits, queries = self._encoder.encode(texts, pairs)
        if self._lexical is not None:
            logits = blend(logits, self._lexical.ask(texts, pairs), self._mixing.lexical_share)
        similarities, found = nearest_items(
            queries, self.knowledge.vectors, self._of_items, self._mixing.k, excluded
        )
        labels, corrections = np.split(found, [self._soft.shape[1]], axis=2)
        given = None if self._edited.corrections is None else corrections
        return Scores(logits, similarities, labels, given, words)

    def answers(self, scores: Scores, balances: Sequence[float]) -> NDArray[np.int64]:
        """(n,) positions of the most probable labels, by the release of those balances."""
        if not len(scores):
            return np.empty(0, np.int64)
        found: NDArray[np.int64] = self.mixed(scores, balances).probabilities.argmax(1)
        return found

    def mixed(self, scores: Scores, balances: Sequence[float]) -> Mixed:
        """The answers whole; of at least one text."""
        labels = scores.labels
        if (weights := label_weights(self._items, self.known, balances)) is not None:
            labels = labels * weights
        mixed = mix(scores.logits, scores.similarities, labels, self._mixing)
        if scores.corrections is not None:
            moved = moved_by(scores.similarities, scores.corrections, self._mixing)
            mixed = corrected(mixed, moved)
        if scores.words is not None:
            mixed = mix_added(mixed, scores.words, self._mixing.lexical_share)
        return mixed

    def items(self, rows: Sequence[int]) -> tuple[list[str], list[str] | None]:
        """Texts (and second texts) of items."""
        table = self.knowledge.table.take(pa.array(rows, pa.int64()))
        pairs = table["text_pair"].to_pylist() if self.knowledge.metadata.pair else None
        return table["text"].to_pylist(), pairs

    def items_by_label(self) -> dict[str, list[int]]:
        """Rows of the items of each label, at most `MOST_ROWS` of each, evenly spread.

        Where people labelled items of a label that the student does not know, samples that were written for it
        are left aside: they tell what the generator takes it to be.
        """
        table, labels = self.knowledge.table, self.knowledge.metadata.labels
        found: dict[str, list[int]] = {label: [] for label in labels}
        by_persons: dict[str, list[int]] = {label: [] for label in labels[self.known :]}
        rows = zip(table["label"].to_pylist(), labelled_by_persons(table), strict=True)
        for row, (label, told) in enumerate(rows):
            if label is not None:
                found[label].append(row)
                if told and label in by_persons:
                    by_persons[label].append(row)
        found.update({label: rows for label, rows in by_persons.items() if rows})
        return {
            label: rows[:: -(-len(rows) // MOST_ROWS)] if rows else []
            for label, rows in found.items()
        }

    @cached_property
    def _of_items(self) -> NDArray[np.float32]:
        """(items, L), or (items, L + H) where there are corrections."""
        if self._edited.corrections is None:
            return self._soft
        every = np.arange(len(self.knowledge))[None]
        return np.concatenate([self._soft, self._edited.corrections.at(every)[0]], axis=1)

    @cached_property
    def _left_out_words(self) -> LeftOutWords | None:
        if self._edited.words is None:
            return None
        digest = self._edited.words.digest
        if (fitted := _LEFT_OUT.get(digest)) is None:
            fitted = self._fitted_left_out_words()
            _LEFT_OUT[digest] = fitted
            for oldest in list(_LEFT_OUT)[:-_REMEMBERED]:
                del _LEFT_OUT[oldest]
        return fitted

    def _fitted_left_out_words(self) -> LeftOutWords:
        added = list(self.items_by_label().values())[self.known :]
        groups = [group for rows in added for group in self._worded_alike(rows)]
        asked = {row for group in groups for row in group}
        groups += [[row] for row in range(len(self.knowledge)) if row not in asked]
        items = FittedItems(*self.items(range(len(self.knowledge))), self._soft)
        return LeftOutWords(items, groups, known=self.known, most_words=self._most_words)

    def _worded_alike(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows, those of texts that are worded alike together."""
        if not rows:
            return []
        count, groups = connected_components(self._alike_among(rows), directed=False)
        return [
            [rows[place] for place in np.flatnonzero(groups == group).tolist()]
            for group in range(count)
        ]

    def _alike_among(self, rows: Sequence[int]) -> Mask:
        """(rows, rows): which of them are one another, or worded alike."""
        if (key := tuple(rows)) not in self._alike:
            self._alike[key] = _alike(*self.items(rows))
        return self._alike[key]


def _alike(texts: Sequence[str], pairs: Sequence[str] | None) -> Mask:
    """(n, n): which texts are one another, or have nearly one another's wording."""
    keys = np.array(item_keys(texts, pairs))
    alike: Mask = keys[:, None] == keys[None, :]
    second = pairs or [""] * len(texts)
    forms = [shingles(f"{text}{pair}") for text, pair in zip(texts, second, strict=True)]
    least = QualityConfig().jaccard
    for row, form in enumerate(forms):
        for other in range(row):
            if not alike[row, other] and jaccard_similarity(form, forms[other]) >= least:
                alike[row, other] = alike[other, row] = True
    return alike

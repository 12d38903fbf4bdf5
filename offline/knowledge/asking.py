"""Asking a release's student about texts as the server does, with an exact search of the knowledge file itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.knowledge.items import labelled_by_persons
from offline.knowledge.journal import item_keys
from offline.student.mixing_fit import nearest_items
from offline.teacher.near_duplicates import jaccard_similarity, shingles
from offline.teacher.quality import QualityConfig
from services.store.knowledge_file import Knowledge
from services.student.bundle import BundleManifest
from services.student.encoder import OnnxEncoder
from services.student.label_balance import label_weights
from services.student.lexical import LexicalIndex
from services.student.mixing import blend, mix

Mask = NDArray[np.bool_]

MOST_ROWS = 500
"""Items of a label that it is judged by."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What an answer to n texts is mixed from: `logits` (n, H), `similarities` (n, k), `labels` (n, k, L)."""

    logits: NDArray[np.float32]
    similarities: NDArray[np.float32]
    labels: NDArray[np.float32]

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
    ) -> None:
        """Ask that student about that knowledge, with its lexical index where the release has one."""
        self.knowledge = knowledge
        self.known = len(bundle.labels)
        self._encoder = encoder
        self._mixing = bundle.mixing
        self._lexical = lexical
        # The server's are float16.
        soft = knowledge.soft_labels.astype(np.float16)
        self._items = soft.sum(axis=0, dtype=np.float64)
        self._soft = soft.astype(np.float32)

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None, excluded: Mask | None = None
    ) -> Scores:
        """Ask about n texts; `excluded` (n, items) says which items are not to be found."""
        logits, queries = self._encoder.encode(texts, pairs)
        if self._lexical is not None:
            logits = blend(logits, self._lexical.ask(texts, pairs), self._mixing.lexical_share)
        similarities, labels = nearest_items(
            queries, self.knowledge.vectors, self._soft, self._mixing.k, excluded
        )
        return Scores(logits, similarities, labels)

    def answers(self, scores: Scores, balances: Sequence[float]) -> NDArray[np.int64]:
        """(n,) positions of the most probable labels, by the release of those balances."""
        if not len(scores):
            return np.empty(0, np.int64)
        labels = scores.labels
        if (weights := label_weights(self._items, self.known, balances)) is not None:
            labels = labels * weights
        mixed = mix(scores.logits, scores.similarities, labels, self._mixing)
        found: NDArray[np.int64] = mixed.probabilities.argmax(1)
        return found

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

    def without_themselves(self, rows: Sequence[int]) -> Mask:
        """(rows, items): for each of the items at `rows`, itself and those of `rows` that are worded like it."""
        texts, pairs = self.items(rows)
        excluded = np.zeros((len(rows), len(self.knowledge)), dtype=bool)
        excluded[:, rows] = _alike(texts, pairs)
        return excluded


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

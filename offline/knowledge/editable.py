"""A knowledge file with vectors, and edits applied to it one after the other.

Applying edits one at a time to one file, or all of them to the file that the first began with, gives the same
rows: so a release that was edited, and a later run that made the same knowledge, are one and the same release.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.knowledge.journal import Edit, item_keys
from offline.knowledge.soft_labels import soft_labels
from services.platform.errors import InvalidData
from services.store.knowledge_file import Knowledge, fixed_lists

Encode = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.float32]]
"""The student's query vectors (n, d) of texts (and second texts)."""

_COLUMNS = ("text", "text_pair", "label", "origin", "generator", "labeller", "quality")
_QUALITY = pa.map_(pa.string(), pa.float32())


@dataclass(frozen=True, slots=True)
class Relabeller:
    """A labeller that is another than the one that a journal's probabilities are by.

    Attributes:
        identity: of the labeller.
        probabilities: by label, of texts (and second texts).
    """

    identity: str
    probabilities: Callable[[Sequence[str], Sequence[str] | None], list[dict[str, float]]]


class EditableKnowledge:
    """Items in memory.

    Attributes:
        labels: the student's, then those that came with edits and that an item still has.
        keys: of the items, by row.
        texts, named: of the items, by row.
        soft: (items, labels) float32.
        vectors: (items, d) float32.
        edited: keys of items that edits added or relabelled.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        known: Sequence[str],
        encode: Encode,
        again: Relabeller | None,
        edited: Sequence[int] = (),
    ) -> None:
        """Begin with a knowledge file.

        Args:
            knowledge: with vectors.
            known: the labels of the student, the first ones of the file.
            encode: by the student that wrote the vectors.
            again: asked anew where an edit's probabilities are by another labeller.
            edited: rows of the items that earlier edits added or relabelled.
        """
        self._metadata = knowledge.metadata
        self._known = len(known)
        self._encode = encode
        self._again = again
        self._columns = {name: knowledge.table[name].to_pylist() for name in _COLUMNS}
        self.labels = list(knowledge.metadata.labels)
        self.soft = knowledge.soft_labels
        self.vectors = knowledge.vectors
        self.keys = item_keys(self._columns["text"], self._columns["text_pair"])
        self.edited = {self.keys[row] for row in edited}

    def __len__(self) -> int:
        return len(self.keys)

    def apply(self, edit: Edit) -> None:
        """Apply one edit: what is taken out first, then the new labels, then what is added.

        An item that a person added takes the place of one with the same key.
        """
        # What a generator wrote does not displace what is there, as what a person adds does.
        there = set(self.keys) - set(edit.removed)
        added = [item for item in edit.added if item.generator is None or item.key not in there]
        edit = edit.model_copy(update={"added": tuple(added)})
        self._remove({*edit.removed, *(item.key for item in edit.added)})
        self._relabel(edit)
        self._add(edit)
        self._forget_unused_labels()

    def finished(self) -> Knowledge:
        """The file's content. Raises InvalidData where no item is left."""
        if not self.keys:
            raise InvalidData("No knowledge item would be left.", hint="Keep some of them.")
        count = len(self.keys)
        metadata = self._metadata.model_copy(update={"labels": tuple(self.labels)})
        quality = pa.array(self._columns["quality"], _QUALITY)
        strings = {
            name: pa.array(values, pa.string())
            for name, values in self._columns.items()
            if name != "quality"
        }
        table = pa.table(
            {
                "id": pa.array(np.arange(count, dtype=np.int64)),
                **strings,
                "quality": quality,
                "soft_label": fixed_lists(np.ascontiguousarray(self.soft)),
            }
        )
        return replace(
            Knowledge(metadata, table).with_vectors(
                self.vectors, metadata.encoder_fingerprint or "", metadata.hnsw
            )
        )

    def _remove(self, keys: Collection[str]) -> None:
        kept = np.array([key not in keys for key in self.keys], dtype=bool)
        if kept.all():
            return
        self.edited -= {key for key, stays in zip(self.keys, kept, strict=True) if not stays}
        rows = np.flatnonzero(kept).tolist()
        self._columns = {
            name: [values[row] for row in rows] for name, values in self._columns.items()
        }
        self.keys = [self.keys[row] for row in rows]
        self.soft, self.vectors = self.soft[kept], self.vectors[kept]

    def _relabel(self, edit: Edit) -> None:
        wanted = {item.key: item for item in edit.relabelled}
        rows = [row for row, key in enumerate(self.keys) if key in wanted]
        if not rows:
            return
        self.edited |= {self.keys[row] for row in rows}
        items = [wanted[self.keys[row]] for row in rows]
        self._widen([item.label for item in items])
        texts = [self._columns["text"][row] for row in rows]
        pairs = [self._columns["text_pair"][row] for row in rows]
        labeller, given = self._asked(edit, texts, pairs, [item.probabilities for item in items])
        named = [item.label for item in items]
        self.soft = self.soft.copy()
        self.soft[rows] = soft_labels(given, named, self.labels, self._known)
        for row, label in zip(rows, named, strict=True):
            self._columns["label"][row] = label
            self._columns["labeller"][row] = labeller
            self._columns["quality"][row] = self._quality(self.soft[row], label)

    def _add(self, edit: Edit) -> None:
        if not edit.added:
            return
        texts = [item.text for item in edit.added]
        pairs = [item.text_pair for item in edit.added]
        named = [item.label for item in edit.added]
        self._widen(named)
        labeller, given = self._asked(
            edit, texts, pairs, [item.probabilities for item in edit.added]
        )
        for row, item in enumerate(edit.added):
            if item.labeller is not None:
                given[row] = item.probabilities
        # A generator's label is what it was asked to write for, no person's word.
        by_person = [None if item.generator else item.label for item in edit.added]
        soft = soft_labels(given, by_person, self.labels, self._known)
        self.soft = np.concatenate([self.soft, soft])
        self.vectors = np.concatenate([self.vectors, self._encode(texts, self._pairs(pairs))])
        keys = item_keys(texts, pairs)
        self.keys += keys
        self.edited |= set(keys)
        new = {
            "text": texts,
            "text_pair": pairs,
            "label": named,
            "origin": ["generated" if item.generator else "manual" for item in edit.added],
            "generator": [item.generator for item in edit.added],
            "labeller": [item.labeller or labeller for item in edit.added],
            "quality": [
                self._quality(soft[row], named[row], item.nearest)
                for row, item in enumerate(edit.added)
            ],
        }
        for name, values in new.items():
            self._columns[name] += values

    def _asked(
        self,
        edit: Edit,
        texts: Sequence[str],
        pairs: Sequence[str | None],
        given: list[dict[str, float] | None],
    ) -> tuple[str | None, list[dict[str, float] | None]]:
        """Identity and probabilities of the labeller: those of the edit, or of another one asked now."""
        again = self._again
        if again is None or edit.labeller in (None, again.identity):
            return edit.labeller, list(given)
        return again.identity, list(again.probabilities(texts, self._pairs(pairs)))

    def _pairs(self, pairs: Sequence[str | None]) -> list[str] | None:
        return [pair or "" for pair in pairs] if self._metadata.pair else None

    def _widen(self, named: Sequence[str | None]) -> None:
        new = [label for label in dict.fromkeys(named) if label and label not in self.labels]
        self.labels += new
        self.soft = np.pad(self.soft, ((0, 0), (0, len(new))))

    def _forget_unused_labels(self) -> None:
        """Drop labels that the student does not know and no item has any more."""
        used = set(self._columns["label"])
        kept = [
            position
            for position, label in enumerate(self.labels)
            if position < self._known or label in used
        ]
        if len(kept) == len(self.labels):
            return
        self.labels = [self.labels[position] for position in kept]
        self.soft = self.soft[:, kept]
        total = self.soft.sum(1, keepdims=True)
        self.soft = np.where(total > 0, self.soft / np.where(total > 0, total, 1), 1 / len(kept))

    def _quality(
        self, soft: NDArray[np.float32], label: str | None, nearest: float | None = None
    ) -> list[tuple[str, float]]:
        scores = [("confidence", float(soft.max()))]
        if label is not None:
            scores.append(("agreement", float(soft[self.labels.index(label)])))
        if nearest is not None:
            scores.append(("nearest", nearest))
        return scores

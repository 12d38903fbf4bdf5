"""What a student is trained on: texts with the labeller's soft labels and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offline.store.knowledge import EMBEDDINGS
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import Examples, PreparedTask
from offline.teacher.labeller import Labeller
from services.platform.errors import CorruptArtifact, IncompatibleArtifacts
from services.store.knowledge_file import Knowledge


@dataclass(frozen=True, slots=True)
class TrainingItems:
    """Rows to learn from.

    Attributes:
        texts: n texts.
        pairs: n second texts, or None.
        soft_labels: (n, L) float32.
        embeddings: (n, D) float32 of unit length, by the labeller.
    """

    texts: list[str]
    pairs: list[str] | None
    soft_labels: NDArray[np.float32]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def forms(self) -> list[str]:
        """Normal form of each row."""
        return [
            letters_and_digits(text, None if self.pairs is None else self.pairs[row])
            for row, text in enumerate(self.texts)
        ]

    def copies_of(self, items: "TrainingItems") -> NDArray[np.bool_]:
        """(n, m): whether a row is the same text as one of m items, by its normal form."""
        numbers = numbered(self.forms + items.forms)
        same: NDArray[np.bool_] = numbers[: len(self), None] == numbers[None, len(self) :]
        return same

    def with_soft_labels(self, soft_labels: NDArray[np.float32]) -> "TrainingItems":
        """The same rows with other soft labels (n, L)."""
        return replace(self, soft_labels=soft_labels)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "TrainingItems":
        return TrainingItems(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            self.soft_labels[rows],
            self.embeddings[rows],
        )


def numbered(forms: Sequence[str]) -> NDArray[np.int64]:
    """(n,) equal numbers for equal forms, in the order of their letters.

    Not of NumPy's own strings, each of which takes as much memory as the longest.
    """
    return np.unique(np.array(forms, dtype=object), return_inverse=True)[1].astype(np.int64)


def knowledge_items(knowledge: Knowledge, labeller: Labeller, directory: Path) -> TrainingItems:
    """The items of a knowledge file, in its order.

    Args:
        knowledge: the file's content.
        labeller: embeds the texts where no stage kept their embeddings.
        directory: where the file lies.

    Raises:
        IncompatibleArtifacts: file and labeller are of different labels.
        CorruptArtifact: the embeddings are not of these items.
    """
    theirs, ours = knowledge.metadata.labels, labeller.labels
    if theirs != ours:
        place = next(n for n, both in enumerate(zip_longest(theirs, ours)) if both[0] != both[1])
        first, second = (repr(of[place]) if place < len(of) else "none" for of in (theirs, ours))
        raise IncompatibleArtifacts(
            f"The knowledge file has {len(theirs)} labels, the labeller {len(ours)}; the first that differs is "
            f"number {place + 1}: {first} in the file, {second} in the labeller."
        )
    texts = knowledge.table["text"].to_pylist()
    pairs = knowledge.table["text_pair"].to_pylist() if knowledge.metadata.pair else None
    # A copy: the file's own memory can't be written to, which torch warns about.
    soft_labels = np.array(knowledge.soft_labels)
    kept = directory / EMBEDDINGS
    if not kept.is_file():
        embeddings = labeller.embed(texts, pairs)
        return TrainingItems(texts, pairs, soft_labels, embeddings)
    try:
        embeddings = np.load(kept, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{kept} cannot be read: {error}.") from error
    if embeddings.shape != (len(texts), labeller.encoder.dimensions):
        raise CorruptArtifact(
            f"{kept} holds {embeddings.shape}, expected {len(texts)} items of "
            f"{labeller.encoder.dimensions} dimensions."
        )
    return TrainingItems(texts, pairs, soft_labels, embeddings)


def is_labelled(knowledge: Knowledge) -> NDArray[np.bool_]:
    """(n,): which items are labelled rows of the run."""
    return np.array([origin == "train" for origin in knowledge.table["origin"].to_pylist()])


def labelled_items(
    task: PreparedTask, labeller: Labeller, split: Literal["train", "validation"]
) -> tuple[TrainingItems, NDArray[np.int64]]:
    """The rows of a split with the labeller's soft labels, and their gold labels (n,)."""
    examples = task.examples(split)
    embeddings = labeller.embed(examples.texts, examples.pairs)
    soft_labels = labeller.soft_labels(examples.texts, examples.pairs, embeddings=embeddings)
    items = TrainingItems(examples.texts, examples.pairs, soft_labels, embeddings)
    return items, task.label_ids(examples)


def soft_labels_of_training_rows(knowledge: Knowledge, train: TrainingItems) -> NDArray[np.float32]:
    """(n, L): those of the knowledge file where the rows are items, else the labeller's own."""
    rows = np.flatnonzero(is_labelled(knowledge))
    texts = knowledge.table["text"].take(rows).to_pylist()
    return knowledge.soft_labels[rows] if texts == train.texts else train.soft_labels


def all_texts(task: PreparedTask, items: TrainingItems) -> list[str]:
    """What a student may see of the language: items, labelled and unlabelled texts, labels' names."""
    texts = list(task.label_texts.values())
    sources: list[TrainingItems | Examples] = [
        items,
        task.examples("train"),
        task.examples("unlabelled"),
    ]
    for source in sources:
        texts += [*source.texts, *(source.pairs or [])]
    return texts


def one_hot(gold: NDArray[np.int64], labels: int) -> NDArray[np.float32]:
    """(n, labels) of gold positions (n,)."""
    hot: NDArray[np.float32] = np.eye(labels, dtype=np.float32)[gold]
    return hot

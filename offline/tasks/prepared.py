"""A task as the stage `prepare` left it: what every later stage reads its examples from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offline.tasks.examples import read_examples

Split = Literal["train", "validation", "unlabelled", "judge"]


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one split.

    Attributes:
        texts: n texts.
        pairs: n second texts; None where the task's examples are single texts.
        labels: n label names; None for unlabelled rows.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """The directory of a finished `prepare` stage.

    Attributes:
        name: the task's name.
        labels: label names, in the order of every probability row of the system.
        label_texts: what describes each label, in words.
        pair: whether an example is a pair of texts.
    """

    directory: Path
    name: str
    labels: tuple[str, ...]
    label_texts: Mapping[str, str]
    pair: bool

    @classmethod
    def load(cls, directory: Path) -> "PreparedTask":
        found = json.loads((directory / "task.json").read_text(encoding="utf-8"))
        texts = found["labels"]
        return cls(directory, found["name"], tuple(texts), texts, found["pair"])

    def examples(self, split: Split) -> Examples:
        """The rows of a split; `validation` and `unlabelled` may have none."""
        return self._read(split)

    def test_examples(self) -> Examples:
        """The test split. Only what measures a finished system may open it."""
        return self._read("test")

    def label_ids(self, examples: Examples) -> NDArray[np.int64]:
        """(n,) positions of the examples' labels in `labels`."""
        positions = {label: index for index, label in enumerate(self.labels)}
        return np.array([positions[label] for label in examples.labels or []], dtype=np.int64)

    def _read(self, split: str) -> Examples:
        table = read_examples(self.directory / f"{split}.parquet")
        labels = table["label"].to_pylist()
        return Examples(
            texts=table["text"].to_pylist(),
            pairs=table["text_pair"].to_pylist() if self.pair else None,
            labels=None if split == "unlabelled" else labels,
        )

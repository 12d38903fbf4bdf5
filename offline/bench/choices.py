"""Tasks of choices (copa): each choice becomes a pair that is right or wrong, and the two are compared.

A row `{"text", "question", "choice1", "choice2", "label"}` gives two pairs, the premise with what is asked
beside each choice. The few-shot subset is drawn among the rows, so both pairs of a row go the same way.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.bench.answering import Answering
from offline.tasks.few_shot import few_shot_rows
from services.platform.durable_files import replacing
from services.platform.errors import InvalidData

CHOICES = ("choice1", "choice2")
QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}
RIGHT, WRONG = "right", "wrong"
LABELS = (RIGHT, WRONG)

Rows = Sequence[tuple[str, dict[str, Any]]]
"""Each with where it stands, for messages."""


def write_pairs(
    train: Rows, test: Rows, directory: Path, *, shots: int | None, seed: int, leftover: bool
) -> dict[str, str]:
    """Write the pairs of a task of choices; the same rows and seed give the same files.

    Args:
        train: rows of the train split, in file order.
        test: rows of the test split.
        directory: made where there is none.
        shots: rows of each label; None for all.
        seed: of the draw.
        leftover: whether the pairs of the other rows are written, without labels.

    Returns:
        The file of each split, as `task.data` names it.

    Raises:
        InvalidData: a row is not of this form.
    """
    drawn = list(range(len(train)))
    if shots is not None:
        drawn = few_shot_rows([str(row.get("label")) for _, row in train], shots, seed)
    chosen = set(drawn)
    splits = {"train": [train[row] for row in drawn], "test": test}
    rest = [row for place, row in enumerate(train) if place not in chosen]
    if leftover and rest:
        splits["unlabelled"] = rest
    directory.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(pair) for where, row in rows for pair in _pairs(row, where)]
        with replacing(directory / f"{split}.jsonl") as file:
            file.write(("\n".join(lines) + "\n").encode())
    return {split: f"{split}.jsonl" for split in splits}


def _pairs(row: dict[str, Any], where: str) -> list[dict[str, str]]:
    question = QUESTIONS.get(str(row.get("question")))
    choices = [row.get(name) for name in CHOICES]
    texts = [row.get("text"), *choices]
    if (
        question is None
        or row.get("label") not in (0, 1)
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        raise InvalidData(
            f"{where} is no row of choices: {row!r}.",
            hint=f"Expected text, question ({', '.join(QUESTIONS)}), {', '.join(CHOICES)}, label (0, 1).",
        )
    return [
        {
            "text": f"{row['text']} {question}",
            "text_pair": str(choice),
            "label": RIGHT if place == row["label"] else WRONG,
        }
        for place, choice in enumerate(choices)
    ]


@dataclass(frozen=True, slots=True)
class Compared:
    """A system for pairs, asked for choices: what it gives each for being right, made to sum to 1."""

    system: Answering
    right: int
    """Position of the label `right`."""

    @property
    def parameters(self) -> int:
        return self.system.parameters

    @property
    def model_bytes(self) -> int:
        return self.system.model_bytes

    @property
    def store_bytes(self) -> int:
        return self.system.store_bytes

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(n, choices) of n · choices pairs, those of a row beside each other."""
        found = self.system.probabilities(texts, pairs)[:, self.right]
        by_row = found.reshape(-1, len(CHOICES)) + np.float32(1e-9)
        shares: NDArray[np.float32] = by_row / by_row.sum(1, keepdims=True)
        return shares


def right_choices(is_right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,): which choice of each row is the right one, of (n · choices,) pairs."""
    found: NDArray[np.int64] = is_right.reshape(-1, len(CHOICES)).argmax(1)
    return found

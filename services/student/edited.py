"""What a release's edits add to its student's answers, and the file of it, `edited.safetensors`.

The words of labels that the student does not know (`services.student.added_words`), and what items that it was not
trained on correct of its answers (`services.student.corrections`). A release without edits has neither, and no file.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from services.platform.errors import CorruptArtifact
from services.student.added_words import AddedWords
from services.student.corrections import Corrections
from services.student.lexical import LexicalWeights

_WORDS = "words."
_ITEMS, _VALUES = "corrections.items", "corrections.values"


@dataclass(frozen=True, slots=True)
class EditedAnswers:
    """What edits add.

    Attributes:
        words: of the labels that the student does not know, or None.
        corrections: by items that it was not trained on, or None.
    """

    words: AddedWords | None = None
    corrections: Corrections | None = None

    def save(self, path: Path) -> None:
        """Write the file where there is anything to keep. Equal parts give equal bytes."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.words is not None:
            weights = self.words.weights
            tensors = {
                f"{_WORDS}runs": _joined(weights.runs),
                f"{_WORDS}characters": _joined(weights.characters),
                f"{_WORDS}idf": weights.idf,
                f"{_WORDS}weights": np.ascontiguousarray(weights.weights),
                f"{_WORDS}bias": weights.bias,
            }
        if self.corrections is not None:
            tensors[_ITEMS] = self.corrections.items
            tensors[_VALUES] = np.ascontiguousarray(self.corrections.values)
        if tensors:
            save_file(tensors, path)


def load_edited(path: Path, *, known: int, labels: int, most_words: int) -> EditedAnswers:
    """What `EditedAnswers.save` wrote; nothing where there is no file.

    Args:
        path: the file.
        known: labels that the student knows.
        labels: of the release.
        most_words: of a text that are looked at: the student's `max_tokens`.

    Raises:
        CorruptArtifact: the file cannot be read, or is of other labels.
    """
    if not path.exists():
        return EditedAnswers()
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        words = corrections = None
        if f"{_WORDS}bias" in tensors:
            parts = {name: tensors[f"{_WORDS}{name}"] for name in ("idf", "weights", "bias")}
            runs, characters = (
                _split(tensors[f"{_WORDS}{name}"]) for name in ("runs", "characters")
            )
            words = LexicalWeights(runs, characters, **parts, most_words=most_words)
        if _ITEMS in tensors:
            corrections = Corrections(tensors[_ITEMS], tensors[_VALUES])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    if words is not None:
        grams, classes = len(words.runs) + len(words.characters), 1 + labels - known
        shapes += [
            (words.idf.shape, (grams,)),
            (words.weights.shape, (grams, classes)),
            (words.bias.shape, (classes,)),
        ]
    if corrections is not None:
        shapes.append((corrections.values.shape, (len(corrections.items), known)))
    for found, expected in shapes:
        if found != expected:
            raise CorruptArtifact(
                f"{path} is of other labels than its release: a part of the shape {found}, expected {expected}."
            )
    return EditedAnswers(None if words is None else AddedWords(words), corrections)


def _joined(runs: tuple[str, ...]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(runs).encode(), np.uint8)


def _split(joined: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(joined.tobytes().decode().split("\n")) if len(joined) else ()

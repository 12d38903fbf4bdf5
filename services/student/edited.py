"""What a release's edits add to its student's answers, and the file of it, `edited.safetensors`.

The words of labels that the student does not know (`services.student.added_words`), and what items that it was not
trained on correct of its answers (`services.student.corrections`). A release without edits has neither, and no file.
"""

import os
from collections.abc import Mapping
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

_FORMAT = "1"
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
            words = self.words.weights.tensors()
            tensors = {f"{_WORDS}{name}": tensor for name, tensor in words.items()}
        if self.corrections is not None:
            tensors[_ITEMS] = self.corrections.items
            tensors[_VALUES] = np.ascontiguousarray(self.corrections.values)
        if tensors:
            save_file(tensors, path, metadata={"format": _FORMAT})


def load_edited(
    path: Path, *, known: int, labels: int, items: int, most_words: int
) -> EditedAnswers:
    """What `EditedAnswers.save` wrote; nothing where there is no file.

    Args:
        path: the file.
        known: labels that the student knows.
        labels: of the release.
        items: of the release.
        most_words: of a text that are looked at: the student's `max_tokens`.

    Raises:
        CorruptArtifact: the file cannot be read, or is not of such a release.
    """
    if not path.exists():
        return EditedAnswers()
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            if (told := (file.metadata() or {}).get("format")) != _FORMAT:
                raise ValueError(f"format {told}, expected {_FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        words = _words(tensors, most_words, 1 + labels - known)
        corrections = _corrections(tensors, known, items)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(
            f"{path} is not what edits add to a release of {labels} labels and {items} items: {error}."
        ) from error
    return EditedAnswers(words, corrections)


def _words(tensors: Mapping[str, NDArray[Any]], most_words: int, classes: int) -> AddedWords | None:
    if f"{_WORDS}bias" not in tensors:
        return None
    own = {
        name.removeprefix(_WORDS): tensor
        for name, tensor in tensors.items()
        if name.startswith(_WORDS)
    }
    return AddedWords(LexicalWeights.of_tensors(own, classes=classes, most_words=most_words))


def _corrections(tensors: Mapping[str, NDArray[Any]], known: int, items: int) -> Corrections | None:
    if _ITEMS not in tensors:
        return None
    count = tensors[_ITEMS].size
    ids = _checked(tensors, _ITEMS, np.int64, (count,))
    if count and not (ids[0] >= 0 and ids[-1] < items and (np.diff(ids) > 0).all()):
        raise ValueError(f"{_ITEMS} are no ids of {items} items in ascending order")
    return Corrections(ids, _checked(tensors, _VALUES, np.float16, (count, known)))


def _checked(
    tensors: Mapping[str, NDArray[Any]], name: str, kind: Any, shape: tuple[int, ...]
) -> NDArray[Any]:
    found = tensors[name]
    if found.dtype != kind or found.shape != shape:
        raise ValueError(
            f"{name} is {found.dtype} {found.shape}, expected {np.dtype(kind)} {shape}"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds what is no number")
    return found

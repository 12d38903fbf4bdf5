"""The lexical index of a release: what words and parts of words say about its labels, learned from the knowledge.

Vectors find knowledge that means the same; this finds knowledge that is worded the same. A linear model over the
n-grams of the knowledge items is fitted to the teacher's soft labels (`offline.store.lexical_fit`) and kept with the
release, beside the soft labels: it follows the knowledge, not the student, and is fitted anew when knowledge is edited.
A text is looked up by its n-grams, each of which has a row of weights.

The n-grams are runs of one to three words (marks are words), and runs of three to five characters within a word, its
boundaries included. Each counts once in a text (or, of characters, in a word of it) by its inverse document frequency,
and either kind is divided by its own length: exclamation marks without end say no more than one. Such sums are
additive over words, so that what a word's characters say is computed once and remembered. Words are told apart by
spaces and marks: scripts without spaces have few, and are served by the vectors alone.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from services.platform.errors import CorruptArtifact
from services.student.truncation import Direction

Words = tuple[str, ...]
Floats = NDArray[np.float32]

CHARACTERS = (3, 5)
LONGEST_RUN = 3
SECOND = "\0"
"""Before each word of a pair's second text: it is another word there."""

_WORD = re.compile(r"\w{1,24}|[^\w\s]")
"""What is longer is hardly a word, and is taken in pieces: words are remembered, and new ones take their time."""
_CHARACTERS_A_WORD = 32
"""A text of more characters than that many a word is cut before it is taken apart: there may be megabytes of it."""
_REMEMBERED = 1 << 14
_FORMAT = 1
_SETTINGS = "retrikt"


def words_of(
    text: str, pair: str | None = None, *, most: int, direction: Direction = "right"
) -> Words:
    """The words and marks of a text or a pair in lower case, `most` of each text, cut on the `direction` side."""
    found = _cut(text, most, direction)
    if pair is None:
        return found
    return (*found, *(f"{SECOND}{word}" for word in _cut(pair, most, direction)))


def runs_of(words: Words) -> Iterable[str]:
    """The distinct runs of one, two and three words, in a fixed order."""
    pairs, threes = pairwise(words), zip(words, words[1:], words[2:], strict=False)
    return dict.fromkeys(chain(words, map(" ".join, pairs), map(" ".join, threes)))


def characters_of(word: str) -> Iterable[str]:
    """The distinct runs of characters in a word, in a fixed order."""
    bounded = f"\x02{word}\x03"
    shortest, longest = CHARACTERS
    return dict.fromkeys(
        bounded[start : start + length]
        for length in range(shortest, longest + 1)
        for start in range(len(bounded) - length + 1)
    )


@dataclass(frozen=True, slots=True)
class LexicalWeights:
    """What was fitted.

    Attributes:
        runs: of words.
        characters: runs of characters.
        idf: (runs + characters,) float32, inverse document frequencies.
        weights: (runs + characters, H) float16, times the inverse document frequency, divided by the temperature.
        bias: (H,) float32, divided by the temperature.
        most_words: of a text that are looked at.
    """

    runs: tuple[str, ...]
    characters: tuple[str, ...]
    idf: Floats
    weights: NDArray[np.float16]
    bias: Floats
    most_words: int

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file keeps of them; equal weights give equal bytes."""
        return {
            "runs": _joined(self.runs),
            "characters": _joined(self.characters),
            "idf": self.idf,
            "weights": np.ascontiguousarray(self.weights),
            "bias": self.bias,
        }

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], *, classes: int, most_words: int
    ) -> Self:
        """What `tensors` made.

        Args:
            tensors: by name.
            classes: H, that the weights should have.
            most_words: of a text that are looked at.

        Raises:
            KeyError: one is missing.
            ValueError: they do not fit together, or hold what is no number.
        """
        runs, characters = (_split(tensors[name]) for name in ("runs", "characters"))
        numbers = idf, weights, bias = tuple(tensors[name] for name in ("idf", "weights", "bias"))
        grams = len(runs) + len(characters)
        shapes = tuple(tensor.shape for tensor in numbers)
        kinds = tuple(str(tensor.dtype) for tensor in numbers)
        expected = ((grams,), (grams, classes), (classes,)), ("float32", "float16", "float32")
        if (shapes, kinds) != expected:
            raise ValueError(
                f"it holds {', '.join(kinds)} of the shapes {shapes}, expected weights of {grams} n-grams "
                f"for {classes} labels"
            )
        if not all(np.isfinite(tensor).all() for tensor in numbers):
            raise ValueError("a weight is no number")
        return cls(runs, characters, idf, weights, bias, most_words)

    def save(self, path: Path) -> None:
        """Write the file. Equal weights give equal bytes."""
        told = {"format": _FORMAT, "most_words": self.most_words}
        # One key: the library writes several in any order.
        save_file(self.tensors(), path, metadata={_SETTINGS: json.dumps(told)})

    @classmethod
    def load(cls, path: Path, labels: int) -> Self:
        """The weights in a file, for a student of that many labels.

        Raises:
            CorruptArtifact: it is missing, cannot be read, or is of another number of labels.
        """
        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                told = json.loads((file.metadata() or {})[_SETTINGS])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if told["format"] != _FORMAT:
                raise ValueError(f"format {told['format']}, expected {_FORMAT}")
            return cls.of_tensors(tensors, classes=labels, most_words=int(told["most_words"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(f"{path} is no lexical index: {error}.") from error


class LexicalIndex:
    """Looks texts up. Remembers words, so it answers one thread at a time.

    Attributes:
        fitted: the weights.
        run_rows, character_rows: row of each n-gram in them.
    """

    def __init__(self, fitted: LexicalWeights) -> None:
        self.fitted = fitted
        self.run_rows = {run: row for row, run in enumerate(fitted.runs)}
        self.character_rows = {
            run: row for row, run in enumerate(fitted.characters, start=len(fitted.runs))
        }
        # An n-gram's weights, and the square of its length in the last column.
        self._table = np.empty((len(fitted.idf), len(fitted.bias) + 1), np.float32)
        self._table[:, :-1] = fitted.weights
        self._table[:, -1] = np.square(fitted.idf)
        self._forget(_REMEMBERED)

    def words(self, text: str, pair: str | None = None, direction: Direction = "right") -> Words:
        """What `logits` wants to know of a text, cut on the `direction` side."""
        return words_of(text, pair, most=self.fitted.most_words, direction=direction)

    def ask(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Floats:
        """(n, H): logits of n texts or pairs."""
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        return self.logits(
            [self.words(text, pair) for text, pair in zip(texts, seconds, strict=True)]
        )

    def logits(self, texts: Sequence[Words]) -> Floats:
        """(n, H): of n texts by their words; the bias alone for one that says nothing to the index.

        A text's logits do not depend on the texts beside it (to 1e-5).
        """
        slots: list[int] = []
        rows: list[int] = []
        of_words, of_runs = [], []
        distinct = [dict.fromkeys(words) for words in texts]
        slot_of = self._slots_of(distinct)
        row_of = self.run_rows.get
        for words, own in zip(texts, distinct, strict=True):
            before = len(rows)
            rows += [row for run in runs_of(words) if (row := row_of(run)) is not None]
            of_runs.append(len(rows) - before)
            slots += [slot_of[word] for word in own]
            of_words.append(len(own))
        scores = np.repeat(self.fitted.bias[None], len(texts), axis=0)
        for sums in (_sums(self._table, rows, of_runs), _sums(self._said, slots, of_words)):
            length = np.sqrt(sums[:, -1:])
            length[length == 0] = 1
            scores += sums[:, :-1] / length
        return scores

    def _slots_of(self, texts: Sequence[Iterable[str]]) -> dict[str, int]:
        """Where each word is remembered, those of the texts among them; new ones are looked up."""
        known = self._slots
        new = [word for words in texts for word in words if word not in known]
        if not new:
            return known
        new = list(dict.fromkeys(new))
        if len(known) + len(new) > len(self._said):
            new = list(dict.fromkeys(chain.from_iterable(texts)))
            self._forget(max(_REMEMBERED, len(new)))
        row_of = self.character_rows.get
        for word in new:
            found = [row for run in characters_of(word) if (row := row_of(run)) is not None]
            slot = len(self._slots)
            self._said[slot] = self._table[found].sum(0)
            self._slots[word] = slot
        return self._slots

    def _forget(self, room: int) -> None:
        self._slots: dict[str, int] = {}
        self._said = np.zeros((room, self._table.shape[1]), np.float32)


def _sums(table: Floats, rows: list[int], counts: list[int]) -> Floats:
    """(texts, d): sums of rows of `table`, the first `counts[0]` of `rows` for the first text, and so on."""
    if len(counts) == 1:
        total: Floats = table[rows].sum(0, keepdims=True)
        return total
    sums = np.zeros((len(counts), table.shape[1]), np.float32)
    if rows:
        some = np.flatnonzero(counts)
        starts = np.cumsum([0, *counts[:-1]])[some]
        sums[some] = np.add.reduceat(table[rows], starts, axis=0)
    return sums


def _cut(text: str, most: int, direction: Direction) -> Words:
    room = most * _CHARACTERS_A_WORD
    text = text[:room] if direction == "right" else text[-room:]
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    found = _WORD.findall(text.lower())
    return tuple(found[:most] if direction == "right" else found[-most:])


def _joined(runs: Iterable[str]) -> NDArray[np.uint8]:
    """No run has a line's end in it."""
    return np.frombuffer("\n".join(runs).encode(), np.uint8)


def _split(joined: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(joined.tobytes().decode().split("\n")) if len(joined) else ()

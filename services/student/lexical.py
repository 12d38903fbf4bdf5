"""The lexical index of a release: what words and parts of words say about its labels, learned from the knowledge.

Vectors find knowledge that means the same; this finds knowledge that is worded the same. A linear model over the
n-grams of the knowledge items is fitted to the teacher's soft labels (`offline.store.lexical_fit`) and kept with the
release, beside the soft labels: it follows the knowledge, not the student, and is fitted anew when knowledge is edited.
A text is looked up by the hashes of its n-grams, each of which has a row of weights.

The n-grams are runs of one to three words (marks are words), and runs of three to five characters within a word, its
boundaries included. Either kind is weighed by its inverse document frequency and divided by the length of
the kind's own vector, as TF-IDF does it. Such sums are additive over words, so that what a word's characters say is
computed once and remembered.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from services.platform.errors import CorruptArtifact

Words = tuple[str, ...]
Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]

LONGEST_RUN = 3
CHARACTERS = (3, 5)

_WORD = re.compile(r"\w+|[^\w\s]")
_LONGEST_WORD = 64
"""Characters of a word that are looked at: what is longer is no word."""
_REMEMBERED = 1 << 14
_SECOND = "\0"
"""Before each word of a pair's second text: it is another word there."""
_FORMAT = 1
_SETTINGS = "retrikt"


def words_of(
    text: str,
    pair: str | None = None,
    *,
    most: int,
    direction: Literal["left", "right"] = "right",
) -> Words:
    """The words and marks of a text or a pair in lower case, `most` of each text, cut on the `direction` side."""
    found = _cut(text, most, direction)
    if pair is None:
        return found
    return (*found, *(f"{_SECOND}{word}" for word in _cut(pair, most, direction)))


def word_key(word: str) -> int:
    """The hash that a word is looked up by."""
    return _hash(word, b"word")


def character_keys(word: str) -> Keys:
    """(grams,): those of the runs of characters in a word, repeated ones as often as they occur."""
    bounded = f"\x02{word[:_LONGEST_WORD]}\x03"
    shortest, longest = CHARACTERS
    return np.array(
        [
            _hash(bounded[start : start + length], b"characters")
            for length in range(shortest, longest + 1)
            for start in range(len(bounded) - length + 1)
        ],
        dtype=np.uint64,
    )


def run_keys(keys: Keys, rows: NDArray[np.int64]) -> Iterator[tuple[Keys, NDArray[np.int64]]]:
    """For runs of one word, of two and so on: their keys, and the rows of the texts that they are in.

    Args:
        keys: (words,) of the words of several texts, one text after the other.
        rows: (words,) which text each is of.
    """
    run = keys
    yield run, rows
    for length in range(2, LONGEST_RUN + 1):
        if len(keys) < length:
            return
        # Steps of a multiplicative hash; 64 bits wrap around.
        mixed = (run[:-1] ^ (run[:-1] >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        run = (mixed ^ (mixed >> np.uint64(29))) + keys[length - 1 :]
        within = rows[: -(length - 1)] == rows[length - 1 :]
        yield run[within], rows[: -(length - 1)][within]


@dataclass(frozen=True, slots=True)
class LexicalWeights:
    """What was fitted.

    Attributes:
        keys: (n-grams,) uint64, ascending.
        idf: (n-grams,) float32, inverse document frequencies.
        weights: (n-grams, H) float16, times the inverse document frequency, divided by the temperature.
        bias: (H,) float32, divided by the temperature.
        most_words: of a text that are looked at.
    """

    keys: Keys
    idf: Floats
    weights: NDArray[np.float16]
    bias: Floats
    most_words: int

    def save(self, path: Path) -> None:
        """Write the file. Equal weights give equal bytes."""
        tensors: dict[str, NDArray[Any]] = {
            "keys": self.keys,
            "idf": self.idf,
            "weights": np.ascontiguousarray(self.weights),
            "bias": self.bias,
        }
        told = {"format": _FORMAT, "most_words": self.most_words}
        # One key: the library writes several in any order.
        save_file(tensors, path, metadata={_SETTINGS: json.dumps(told)})

    @classmethod
    def load(cls, path: Path, labels: int) -> Self:
        """The weights in a file, for a student of that many labels.

        Raises:
            CorruptArtifact: it is missing, cannot be read, or is of another number of labels.
        """
        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                told = json.loads((file.metadata() or {})[_SETTINGS])
                keys, idf, weights, bias = (
                    file.get_tensor(name) for name in ("keys", "idf", "weights", "bias")
                )
            if told["format"] != _FORMAT:
                raise ValueError(f"format {told['format']}, expected {_FORMAT}")
            most_words = int(told["most_words"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(f"{path} is no lexical index: {error}.") from error
        grams = len(keys)
        shapes = (keys.shape, idf.shape, weights.shape, bias.shape)
        kinds = tuple(str(tensor.dtype) for tensor in (keys, idf, weights, bias))
        if shapes != ((grams,), (grams,), (grams, labels), (labels,)) or kinds != (
            "uint64",
            "float32",
            "float16",
            "float32",
        ):
            raise CorruptArtifact(
                f"{path} holds {', '.join(kinds)} of the shapes {shapes}, expected weights of {grams} n-grams "
                f"for {labels} labels."
            )
        return cls(keys, idf, weights, bias, most_words)


class LexicalIndex:
    """Looks texts up. Remembers words, so it answers one thread at a time.

    Attributes:
        fitted: the weights.
    """

    def __init__(self, fitted: LexicalWeights) -> None:
        self.fitted = fitted
        # An n-gram's weights, and the square of its length in the last column.
        self._table = np.empty((len(fitted.keys), len(fitted.bias) + 1), np.float32)
        self._table[:, :-1] = fitted.weights
        self._table[:, -1] = np.square(fitted.idf)
        self._forget(_REMEMBERED)

    def words(
        self, text: str, pair: str | None = None, direction: Literal["left", "right"] = "right"
    ) -> Words:
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
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        scores = np.repeat(self.fitted.bias[None], len(texts), axis=0)
        slots = self._slots_of(texts, int(lengths.sum()))
        if not len(slots):
            return scores
        rows = np.repeat(np.arange(len(texts)), lengths)
        runs = list(run_keys(self._keys[slots], rows))
        places, found = self._find(np.concatenate([keys for keys, _ in runs]))
        of = np.concatenate([of for _, of in runs])[found]
        for sums in (
            _sums(self._table[places], of, len(texts)),
            _sums(self._said[slots], rows, len(texts)),
        ):
            length = np.sqrt(sums[:, -1:])
            length[length == 0] = 1
            scores += sums[:, :-1] / length
        return scores

    def _slots_of(self, texts: Sequence[Words], total: int) -> NDArray[np.int64]:
        """Where each word is remembered; new ones are looked up."""
        if len(self._slots) + total > len(self._keys):
            self._forget(max(_REMEMBERED, total))
        slots = self._slots
        found = np.empty(total, np.int64)
        place = 0
        for words in texts:
            for word in words:
                slot = slots.get(word)
                found[place] = self._learn(word) if slot is None else slot
                place += 1
        return found

    def _learn(self, word: str) -> int:
        slot = len(self._slots)
        places, _ = self._find(character_keys(word))
        self._keys[slot] = word_key(word)
        self._said[slot] = self._table[places].sum(0)
        self._slots[word] = slot
        return slot

    def _find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the n-grams that the index has, and which of `keys` those are."""
        known = self.fitted.keys
        if not len(known):
            return np.empty(0, np.int64), np.zeros(len(keys), np.bool_)
        places = np.searchsorted(known, keys)
        places[places == len(known)] = 0
        found = known[places] == keys
        return places[found], found

    def _forget(self, room: int) -> None:
        self._slots: dict[str, int] = {}
        self._keys = np.zeros(room, np.uint64)
        self._said = np.zeros((room, self._table.shape[1]), np.float32)


def _sums(values: Floats, rows: NDArray[np.int64], texts: int) -> Floats:
    """(texts, d): the sums of `values` (n, d) over those of each text."""
    if texts == 1:
        total: Floats = values.sum(0, keepdims=True)
        return total
    sums = np.zeros((texts, values.shape[1]), np.float32)
    if len(rows):
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        sums[rows[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return sums


def _cut(text: str, most: int, direction: str) -> Words:
    lowered = text.lower()
    if direction == "left":
        return tuple(_WORD.findall(lowered)[-most:])
    if len(lowered) <= most:
        return tuple(_WORD.findall(lowered))
    return tuple(match[0] for match in islice(_WORD.finditer(lowered), most))


def _hash(text: str, kind: bytes) -> int:
    # A lone surrogate is no character, but a request may hold one.
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8, person=kind).digest(), "little")

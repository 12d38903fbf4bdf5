"""The words of labels that came with edits: a second, small lexical index in the file of the first.

The first index shares its logits with the head's (`services.student.mixing.blend`), and knows the labels that the head
knows. Whether a text is of a label that was added afterwards, and of which, the neighbours alone would have to say,
from the few items that the label has. A regression of its own helps them (`offline.knowledge.added_words_fit`): all
labels that the student knows are one class in it, each added label is one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from services.platform.errors import CorruptArtifact
from services.student.lexical import LexicalIndex, LexicalWeights, Words
from services.student.lexical_words import Word, said_by_words
from services.student.mixing import Mixed

Floats = NDArray[np.float32]

_PREFIX = "added."
_LEAST = np.float32(1e-6)


class AddedWords:
    """Says how probable each added label is by the words of a text. Answers one thread at a time.

    Attributes:
        weights: of 1 + m classes, the first of which is all labels that the student knows.
    """

    def __init__(self, weights: LexicalWeights) -> None:
        self.weights = weights
        self._index = LexicalIndex(weights)

    @property
    def labels(self) -> int:
        """m, the added labels."""
        return len(self.weights.bias) - 1

    def ask(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Floats:
        """(n, m): probabilities of the added labels, by n texts or pairs."""
        return _added(self._index.ask(texts, pairs))

    def probabilities(self, texts: Sequence[Words]) -> Floats:
        """The same by the words that the first index has taken the texts apart into."""
        return _added(self._index.logits(texts))

    def said_by_words(self, words: Words, label: int, share: float) -> list[Word]:
        """What each word says for the added label at `label` (from 0), `share` of it."""
        return said_by_words(self._index, words, 1 + label, share)

    def save(self, path: Path) -> None:
        """Put it into the file of the first index, which must be there. Equal weights give equal bytes."""
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata()
        first = {
            name: tensor for name, tensor in load_file(path).items() if not name.startswith(_PREFIX)
        }
        added: dict[str, NDArray[Any]] = {
            "runs": _joined(self.weights.runs),
            "characters": _joined(self.weights.characters),
            "idf": self.weights.idf,
            "weights": np.ascontiguousarray(self.weights.weights),
            "bias": self.weights.bias,
        }
        tensors: dict[str, NDArray[Any]] = first | {
            f"{_PREFIX}{name}": tensor for name, tensor in added.items()
        }
        save_file(tensors, path, metadata=metadata)


def load_added_words(path: Path, most_words: int, added: int) -> AddedWords | None:
    """What `AddedWords.save` wrote; None where the file of the first index has none.

    Args:
        path: the file of the first index.
        most_words: of a text that the first index looks at.
        added: how many labels of the release the student does not know.

    Raises:
        CorruptArtifact: the file cannot be read, or is of another number of added labels.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(_PREFIX)]  # noqa: SIM118
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in names}
        if not tensors:
            return None
        weights = LexicalWeights(
            _split(tensors["runs"]),
            _split(tensors["characters"]),
            tensors["idf"],
            tensors["weights"],
            tensors["bias"],
            most_words,
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CorruptArtifact(f"{path} is no lexical index: {error}.") from error
    grams = len(weights.runs) + len(weights.characters)
    shapes = (weights.idf.shape, weights.weights.shape, weights.bias.shape)
    if shapes != ((grams,), (grams, 1 + added), (1 + added,)):
        raise CorruptArtifact(
            f"{path} holds words of added labels of the shapes {shapes}, expected weights of {grams} n-grams "
            f"for {added} labels."
        )
    return AddedWords(weights)


def mix_added(mixed: Mixed, said: Floats, share: float) -> Mixed:
    """The answer once words have had their say for the added labels.

    An added label's probability was the neighbours'; it becomes `1 - share` of that and `share` of what the words
    say. The other labels share out the rest as they did.

    Args:
        mixed: by `services.student.mixing.mix`, of L labels.
        said: (b, m) of `AddedWords`, the last m of the L labels.
        share: of the words, `MixingParameters.lexical_share`.
    """
    known = mixed.probabilities.shape[1] - said.shape[1]
    by_store = mixed.probabilities[:, known:]
    added = by_store + share * (said - by_store)
    rest = mixed.probabilities[:, :known]
    # Where the neighbours left nothing to the others, the student says how they stand.
    rest = np.where(rest.sum(1, keepdims=True) > _LEAST, rest, mixed.student[:, :known])
    rest = rest * ((1 - added.sum(1, keepdims=True)) / rest.sum(1, keepdims=True))
    return mixed._replace(probabilities=np.concatenate([rest, added], axis=1))


def _added(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    found: Floats = exponents[:, 1:] / exponents.sum(1, keepdims=True)
    return found


def _joined(runs: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(runs).encode(), np.uint8)


def _split(joined: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(joined.tobytes().decode().split("\n")) if len(joined) else ()

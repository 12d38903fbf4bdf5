"""The words of labels that came with edits: a second, small lexical index beside the first.

The first index shares its logits with the head's (`services.student.mixing.blend`), and knows the labels that the head
knows. Whether a text is of a label that was added afterwards, and of which, the neighbours alone would have to say,
from the few items that the label has. A regression of its own helps them (`offline.knowledge.added_words_fit`): all
labels that the student knows are one class in it, each added label is one.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.student.lexical import LexicalIndex, LexicalWeights, Words
from services.student.lexical_words import Word, said_by_words
from services.student.mixing import Mixed

Floats = NDArray[np.float32]

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

    @property
    def digest(self) -> str:
        """Tells words that were fitted on other items apart."""
        parts = (self.weights.idf, self.weights.weights, self.weights.bias)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def ask(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Floats:
        """(n, m): probabilities of the added labels, by n texts or pairs."""
        return _added(self._index.ask(texts, pairs))

    def probabilities(self, texts: Sequence[Words]) -> Floats:
        """The same by the words that the first index has taken the texts apart into."""
        return _added(self._index.logits(texts))

    def said_by_words(self, words: Words, label: int, share: float) -> list[Word]:
        """What each word says for the added label at `label` (from 0), `share` of it."""
        return said_by_words(self._index, words, 1 + label, share)


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
    room = np.maximum(1 - added.sum(1, keepdims=True), 0)
    rest = rest * (room / rest.sum(1, keepdims=True))
    return mixed._replace(probabilities=np.concatenate([rest, added], axis=1))


def _added(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    found: Floats = exponents[:, 1:] / exponents.sum(1, keepdims=True)
    return found

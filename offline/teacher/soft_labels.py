"""What gives soft labels: a scorer behind one interface, and the frozen encoder whose embeddings go with it.

Whatever scores the texts (a head on embeddings, a sequence classifier, a language model), the embeddings are the
sentence encoder's; docs/decisions/0006-one-embedding-encoder.md tells why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offline.teacher.encoder import Progress, SentenceEncoder


class SoftLabeller(Protocol):
    """What gives soft labels: the labeller, and the judge."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def identity(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]: ...

    def soft_labels(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]: ...


class Scorer(Protocol):
    """What a labeller's probabilities come from.

    Attributes:
        reads_embeddings: whether it scores a text by its embedding; if not, it reads the text itself.
        parameters: its own; those of the encoder are not among them.
    """

    @property
    def reads_embeddings(self) -> bool: ...

    @property
    def parameters(self) -> int: ...

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        embeddings: NDArray[np.float32] | None,
        progress: Progress | None,
    ) -> NDArray[np.float32]:
        """Calibrated probabilities (n, labels) float32.

        Args:
            texts: n texts.
            pairs: n second texts, or None.
            embeddings: (n, d), always there where the scorer reads them.
            progress: called with (done, total) as texts are read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Labeller:
    """Gives a probability a label; labeller and judge differ in their scorers alone.

    Attributes:
        labels: label names, in the order of the probabilities.
        identity: model and hash of what was fitted, as knowledge items name it.
        encoder: the frozen encoder that embeds.
        scorer: what the probabilities come from.
    """

    labels: tuple[str, ...]
    identity: str
    encoder: SentenceEncoder
    scorer: Scorer

    @property
    def parameters(self) -> int:
        """Of all that a soft label takes: the scorer, and the encoder where the scorer reads its embeddings."""
        read = self.encoder.parameters if self.scorer.reads_embeddings else 0
        return read + self.scorer.parameters

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimensions) float32 of unit length; see `SentenceEncoder.embed`."""
        return self.encoder.embed(texts, pairs, progress=progress)

    def soft_labels(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Calibrated probabilities (n, labels) float32.

        Args:
            texts: n texts.
            pairs: n second texts, or None.
            embeddings: what `embed` gave for them, where it is at hand: it saves a second reading by a scorer
                that takes embeddings, and changes nothing else.
            progress: called with (done, total) as texts are read.
        """
        if self.scorer.reads_embeddings and embeddings is None:
            embeddings = self.embed(texts, pairs, progress=progress)
        return self.scorer(texts, pairs, embeddings, progress)


def joined(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Texts, or pairs as one text of two lines."""
    if pairs is None:
        return list(texts)
    return [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]

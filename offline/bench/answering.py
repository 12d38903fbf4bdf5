"""What is measured: finished systems, each with its weights and bytes and one way to ask it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offline.store.publish import probabilities
from offline.student.baselines import Baseline
from offline.tasks.prepared import Examples
from offline.teacher.labeller import SoftLabeller
from services.platform.errors import StoreUnavailable
from services.student.predictor import Prediction, Predictor, TextInput

Probabilities = NDArray[np.float32]
Texts = Sequence[str]

ROWS_AT_ONCE = 64


class Answering(Protocol):
    """A system at work.

    Attributes:
        parameters: its weights.
        model_bytes: of its files, without the store.
        store_bytes: of what it searches; 0 where it searches nothing.
    """

    @property
    def parameters(self) -> int: ...

    @property
    def model_bytes(self) -> int: ...

    @property
    def store_bytes(self) -> int: ...

    def probabilities(self, texts: Texts, pairs: Texts | None = None) -> Probabilities:
        """(n, labels) of n texts or pairs."""
        ...


@dataclass(frozen=True, slots=True)
class Teacher:
    """The labeller itself."""

    labeller: SoftLabeller
    model_bytes: int
    store_bytes: int = 0

    @property
    def parameters(self) -> int:
        return self.labeller.parameters

    def probabilities(self, texts: Texts, pairs: Texts | None = None) -> Probabilities:
        return self.labeller.soft_labels(texts, pairs)


@dataclass(frozen=True, slots=True)
class Alone:
    """A system that searches nothing: a network's head, or a classifier over n-grams."""

    system: Baseline
    model_bytes: int
    store_bytes: int = 0

    @property
    def parameters(self) -> int:
        return self.system.parameters

    def probabilities(self, texts: Texts, pairs: Texts | None = None) -> Probabilities:
        return self.system.probabilities(texts, pairs)


@dataclass(frozen=True, slots=True)
class Released:
    """A release as it serves: the ONNX student, Qdrant Edge, and the server's own predictor."""

    predictor: Predictor
    model_bytes: int
    store_bytes: int

    @property
    def parameters(self) -> int:
        return self.predictor.bundle.parameters

    def probabilities(self, texts: Texts, pairs: Texts | None = None) -> Probabilities:
        examples = Examples(list(texts), None if pairs is None else list(pairs), None)
        return probabilities(self.predictor, examples)


@dataclass(frozen=True, slots=True)
class NeighboursAlone:
    """The same release when the store's share of every answer is 1."""

    predictor: Predictor
    model_bytes: int
    store_bytes: int

    @property
    def parameters(self) -> int:
        return self.predictor.bundle.parameters

    def probabilities(self, texts: Texts, pairs: Texts | None = None) -> Probabilities:
        parts = [found.store for found in predictions(self.predictor, texts, pairs)]
        return np.concatenate([part for part in parts if part is not None])


def predictions(predictor: Predictor, texts: Texts, pairs: Texts | None) -> Iterator[Prediction]:
    """In batches; each with what the store said.

    Raises:
        StoreUnavailable: the store did not answer; a degraded answer is no measurement.
    """
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    asked = [TextInput(text, pair) for text, pair in zip(texts, seconds, strict=True)]
    for start in range(0, len(asked), ROWS_AT_ONCE):
        found = predictor.predict(asked[start : start + ROWS_AT_ONCE])
        if found.degraded is not None:
            raise StoreUnavailable(f"The store did not answer: {found.degraded}.")
        yield found

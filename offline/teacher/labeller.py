"""The labeller: a frozen sentence encoder and a calibrated softmax head on its embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file

from offline.configs.section import Section
from offline.teacher.encoder import EncoderConfig, Progress, SentenceEncoder, load_encoder, rerun
from offline.teacher.head import SoftmaxHead, load_head, read_description
from offline.teacher.judge import JudgeConfig, load_judge
from services.platform.errors import CorruptArtifact

__all__ = [
    "Labeller",
    "LabellerConfig",
    "SoftLabeller",
    "load_cross_fitted",
    "load_judge",
    "load_labeller",
]

DESCRIPTION = "labeller.json"
HEAD = "head.safetensors"
CROSS_FITTED = "cross_fitted.safetensors"


class LabellerConfig(Section):
    """How the labeller is made.

    Attributes:
        encoder: the frozen encoder and how it is run.
        strengths: inverse regularisations of the head to choose from (scikit-learn's `C`), by
            cross-fitting on the labelled rows of the run.
        folds: of the cross-fitting; fewer where a label has fewer examples.
        judge: how the judge is made.
    """

    encoder: EncoderConfig = EncoderConfig()
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0), min_length=1
    )
    folds: Annotated[int, Field(ge=2)] = 5
    judge: JudgeConfig = JudgeConfig()


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

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Labeller:
    """Gives a probability a label.

    Attributes:
        labels: label names, in the order of the probabilities.
        identity: encoder and hash of the head, as knowledge items name it.
        encoder: the frozen encoder.
        head: the calibrated head on its embeddings.
    """

    labels: tuple[str, ...]
    identity: str
    encoder: SentenceEncoder
    head: SoftmaxHead

    @property
    def parameters(self) -> int:
        """Of encoder and head."""
        return self.encoder.parameters + self.head.parameters

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimensions) float32 of unit length; see `SentenceEncoder.embed`."""
        return self.encoder.embed(texts, pairs, progress=progress)

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities (n, labels) float32 for embeddings (n, dimensions)."""
        return self.head.probabilities(embeddings)


def load_labeller(directory: Path, encoder: EncoderConfig | None = None) -> Labeller:
    """The labeller of a finished labeller stage.

    Args:
        directory: of the stage.
        encoder: how the encoder is run, where it is not to be as in the stage (a device, a batch
            size, `bfloat16`); its model, pooling and text length stay the stage's.

    Raises:
        CorruptArtifact: files are missing or damaged.
        ModelNotFound: the encoder is not here any more.
    """
    found = read_description(directory / DESCRIPTION)
    stored = EncoderConfig.model_validate(found["encoder"])
    head, _ = load_head(directory / HEAD)
    return Labeller(
        tuple(found["labels"]), found["identity"], load_encoder(rerun(stored, encoder)), head
    )


def load_cross_fitted(directory: Path) -> NDArray[np.float32]:
    """(n, labels) probabilities of the run's training rows by heads that did not see them.

    Raises:
        CorruptArtifact: the file is missing or damaged.
    """
    path = directory / CROSS_FITTED
    try:
        found: NDArray[np.float32] = load_file(path)["probabilities"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
    return found

"""The labeller: which kinds there are, and how one is loaded."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from offline.configs.section import Section
from offline.teacher.classifier import ClassifierConfig
from offline.teacher.classifier_files import load_classifier
from offline.teacher.encoder import EncoderConfig, load_encoder, rerun
from offline.teacher.head import HeadScorer, load_head, read_description
from offline.teacher.judge import JudgeConfig, load_judge
from offline.teacher.soft_labels import Labeller, Scorer, SoftLabeller
from offline.teacher.text_scorer import TextScorer
from offline.teacher.verbaliser import Verbaliser, load_for_verbaliser
from offline.teacher.verbaliser_config import Asked, VerbaliserConfig
from services.platform.errors import CorruptArtifact

__all__ = [
    "Labeller",
    "LabellerConfig",
    "SoftLabeller",
    "labeller_identity",
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
        kind: what gives the probabilities: `encoder`, a head on the encoder's embeddings; `classifier`, a
            sequence classifier; `verbaliser`, a language model that is asked for the labels' words.
        encoder: the frozen encoder and how it is run. Whatever the kind, embeddings are its own, and the
            student's tokens.
        strengths: (encoder) inverse regularisations of the head to choose from (scikit-learn's `C`), by
            cross-fitting on the labelled rows of the run.
        classifier: (classifier) which model, and how it is tuned.
        verbaliser: (verbaliser) which model, and how it is asked.
        folds: of the cross-fitting; fewer where a label has fewer examples. A classifier is tuned once for
            each of them and once more, and so are a verbaliser's examples chosen.
        judge: how the judge is made.
    """

    kind: Literal["encoder", "classifier", "verbaliser"] = "encoder"
    encoder: EncoderConfig = EncoderConfig()
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0), min_length=1
    )
    classifier: ClassifierConfig | None = None
    verbaliser: VerbaliserConfig | None = None
    folds: Annotated[int, Field(ge=2)] = 5
    judge: JudgeConfig = JudgeConfig()

    @model_validator(mode="after")
    def _section_of_kind(self) -> Self:
        for kind in ("classifier", "verbaliser"):
            given = getattr(self, kind) is not None
            if given and self.kind != kind:
                raise ValueError(
                    f"there is a section {kind}, and kind is {self.kind!r}: set kind: {kind}, or take it out"
                )
            if self.kind == kind and not given:
                raise ValueError(
                    f"kind {kind!r} needs a section {kind} with the name or the directory of a model:"
                    f" `{kind}: {{model: …}}`"
                )
        return self

    def models(self) -> dict[str, str]:
        """Every model that the section names, by the key that names it."""
        found = {"labeller.encoder.model": self.encoder.model}
        if self.classifier is not None:
            found["labeller.classifier.model"] = self.classifier.model
        if self.verbaliser is not None:
            found["labeller.verbaliser.model"] = self.verbaliser.model
        return found


def load_labeller(directory: Path, encoder: EncoderConfig | None = None) -> Labeller:
    """The labeller of a finished labeller stage.

    Args:
        directory: of the stage.
        encoder: how the encoder is run, where it is not to be as in the stage (a device, a batch
            size, `bfloat16`); its model, pooling and text length stay the stage's.

    Raises:
        CorruptArtifact: files are missing or damaged.
        ModelNotFound: a model is not here any more.
    """
    found = read_description(directory / DESCRIPTION)
    try:
        stored = EncoderConfig.model_validate(found["encoder"])
        labels, identity = tuple(found["labels"]), found["identity"]
        scorer = _load_scorer(directory, found)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(
            f"{directory / DESCRIPTION} describes no labeller: {error!r}."
        ) from error
    return Labeller(labels, identity, load_encoder(rerun(stored, encoder)), scorer)


def labeller_identity(directory: Path) -> str:
    """What knowledge items call the labeller of a finished labeller stage; no model is loaded.

    Raises:
        CorruptArtifact: the stage's description is missing or damaged.
    """
    found = read_description(directory / DESCRIPTION)
    if "identity" not in found:
        raise CorruptArtifact(f"{directory / DESCRIPTION} describes no labeller.")
    return str(found["identity"])


def _load_scorer(directory: Path, found: dict[str, Any]) -> Scorer:
    kind = found.get("kind", "encoder")
    if kind == "encoder":
        return HeadScorer(load_head(directory / HEAD)[0])
    if kind == "classifier":
        tuned = ClassifierConfig.model_validate(found["classifier"])
        classifier = load_classifier(directory, found["labels"], found["columns"], tuned)
        return TextScorer(classifier, found["temperature"])
    config = VerbaliserConfig.model_validate(found["verbaliser"])
    asked = Asked.stored(found["asked"])
    return TextScorer(Verbaliser(load_for_verbaliser(config), asked, config), found["temperature"])


def load_cross_fitted(directory: Path) -> NDArray[np.float32]:
    """(n, labels) probabilities of the run's training rows by labellers that did not see them.

    Raises:
        CorruptArtifact: the file is missing or damaged.
    """
    path = directory / CROSS_FITTED
    try:
        found: NDArray[np.float32] = load_file(path)["probabilities"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
    return found

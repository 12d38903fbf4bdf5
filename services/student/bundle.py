"""The student bundle: a directory with the ONNX student, its tokenizer and what it says of itself."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact, ModelNotFound, RetriktError
from services.platform.file_hash import hash_file
from services.student.mixing import MixingParameters
from services.student.out_of_distribution import FARTHEST

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
MANIFEST = "bundle.json"
MODEL_CARD = "README.md"

Fingerprint = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class BundleManifest(BaseModel):
    """`bundle.json`.

    Attributes:
        format: 1.
        task: the task that the student was trained for.
        pair: whether an input is a pair of texts.
        labels: names of the labels, in the order of the logits.
        label_names: the text shown to people, one for each of `labels`.
        dimensions: length of the query vector.
        max_tokens: longest sequence, special tokens included; longer ones are truncated or refused.
        parameters: weights of the student, counted at export.
        mixing: how its scores and the store's are mixed.
        distance_threshold: `neighbour_distance` beyond which a text is unlike the task's; null where it is not
            known.
        encoder_fingerprint: of `model.onnx` and `tokenizer.json`, see `encoder_fingerprint`.
        trained_with: free text and figures for the model card.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    pair: bool
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    label_names: tuple[str, ...]
    dimensions: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=4)]
    parameters: Annotated[int, Field(ge=1)]
    mixing: MixingParameters
    distance_threshold: Annotated[float, Field(ge=0, le=FARTHEST)] | None = None
    encoder_fingerprint: Fingerprint
    trained_with: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_name_a_label(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is named twice")
        if len(self.label_names) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels but {len(self.label_names)} label_names")
        return self


@dataclass(frozen=True, slots=True)
class StudentBundle:
    """A bundle whose files were checked against its manifest."""

    directory: Path
    manifest: BundleManifest

    @property
    def model(self) -> Path:
        return self.directory / MODEL

    @property
    def tokenizer(self) -> Path:
        return self.directory / TOKENIZER


def encoder_fingerprint(model: Path, tokenizer: Path) -> str:
    """`sha256:` of the sha256 (hexadecimal, one a line) of the two files that make the query vector."""
    digests = [hash_file(path) for path in (model, tokenizer)]
    return "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()


def load_bundle(directory: Path) -> StudentBundle:
    """The bundle in `directory`, its files checked against the manifest.

    Raises:
        ModelNotFound: there is no such directory.
        CorruptArtifact: a file is missing, the manifest cannot be read, or the encoder's files are
            not those that it was written for.
    """
    if not directory.is_dir():
        raise ModelNotFound(
            f"There is no student bundle at {directory}.",
            hint=f"Expected a directory with {MODEL}, {TOKENIZER} and {MANIFEST}.",
        )
    try:
        manifest = BundleManifest.model_validate_json((directory / MANIFEST).read_bytes())
        found = encoder_fingerprint(directory / MODEL, directory / TOKENIZER)
    except OSError as error:
        raise CorruptArtifact(
            f"The student bundle {directory} lacks {Path(error.filename or '').name}: "
            f"{error.strerror}."
        ) from error
    except (ValidationError, RetriktError) as error:
        raise CorruptArtifact(f"{directory / MANIFEST} cannot be read: {error}") from error
    if found != manifest.encoder_fingerprint:
        raise CorruptArtifact(
            f"The encoder in {directory} has the fingerprint {found}, its manifest says "
            f"{manifest.encoder_fingerprint}.",
            hint=f"{MODEL} or {TOKENIZER} was changed after the bundle was written.",
        )
    return StudentBundle(directory, manifest)


def write_bundle_manifest(
    directory: Path,
    *,
    task: str,
    pair: bool,
    labels: Sequence[str],
    label_names: Sequence[str],
    dimensions: int,
    max_tokens: int,
    parameters: int,
    mixing: MixingParameters,
    trained_with: Mapping[str, Any],
    distance_threshold: float | None = None,
) -> BundleManifest:
    """Write `bundle.json` beside `model.onnx` and `tokenizer.json`, which must be there already."""
    manifest = BundleManifest(
        task=task,
        pair=pair,
        labels=tuple(labels),
        label_names=tuple(label_names),
        dimensions=dimensions,
        max_tokens=max_tokens,
        parameters=parameters,
        mixing=mixing,
        distance_threshold=distance_threshold,
        encoder_fingerprint=encoder_fingerprint(directory / MODEL, directory / TOKENIZER),
        trained_with=dict(trained_with),
    )
    with replacing(directory / MANIFEST) as file:
        file.write(manifest.model_dump_json(indent=1).encode())
    return manifest

"""The generator: a frozen language model, causal or encoder-decoder, made on the spot or any of Hugging Face's."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offline.configs.section import Section
from offline.teacher.framing import Framing
from offline.teacher.language_model import decoder_start, load_language_model, prompted
from offline.teacher.precision import SPREAD, Precision, settled
from offline.teacher.pretrained import PACKAGED, model_directory
from offline.teacher.prompted import PromptedModel
from services.platform.errors import CorruptArtifact, InvalidConfig

DESCRIPTION = "generator.json"
MODEL = "model"
SHARED_TOKENS = 4
"""Virtual tokens that all labels share, and as many fillers before a label's words."""


class GeneratorConfig(Section):
    """Which language model writes.

    Attributes:
        model: a causal or encoder-decoder language model as a directory or hub name; none for the
            miniature, which is made from the task's texts.
        precision: of the frozen weights; `auto` for bfloat16 where the device computes in it, which is
            twice as fast, and float32 elsewhere.
        device: a torch device; or `auto` for a model that is named, whose layers are then spread over all GPUs
            there are (by accelerate).
        max_tokens: longest sample in tokens, its end included; longer training texts are cut.
        encoder: (miniature) the BERT encoder whose weights it starts from.
        layers: (miniature) how many of the encoder's lower layers are kept; 0 for all.
        vocabulary: (miniature) tokens kept of the encoder's vocabulary: all of the task's texts, filled
            up with their nearest neighbours.
        epochs: (miniature) passes over the labelled texts: fewer babble, more copy.
        unlabelled_texts: (miniature) at most that many readings of unlabelled texts, over all epochs.
        batch_size, learning_rate, weight_decay, dropout: (miniature) of its training.
    """

    model: str | None = None
    precision: Precision = "auto"
    device: str = "cpu"
    max_tokens: Annotated[int, Field(ge=4)] = 72
    encoder: str = PACKAGED
    layers: Annotated[int, Field(ge=0)] = 0
    vocabulary: Annotated[int, Field(ge=100)] = 3000
    epochs: Annotated[int, Field(ge=1)] = 10
    unlabelled_texts: Annotated[int, Field(ge=0)] = 6000
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _what_is_spread_is_named(self) -> Self:
        if self.device == SPREAD and self.model is None:
            raise ValueError(
                "device: auto spreads a model that is named: the miniature fits on one"
            )
        return self


@dataclass(frozen=True, slots=True)
class Generator:
    """A frozen language model and how texts become its tokens.

    Attributes:
        model: the model behind prompts.
        framing: between texts and token ids.
        identity: the model, as knowledge items name it.
        parameters: their number.
        max_tokens: longest sample in tokens, its end included.
        name_width: tokens of a label's words as a prompt, fillers included.
    """

    model: PromptedModel
    framing: Framing
    identity: str
    parameters: int
    max_tokens: int
    name_width: int


def describe_generator(
    config: GeneratorConfig, *, pair: bool, names: list[str], directory: Path
) -> dict[str, Any]:
    """What `generator.json` says of the model in `directory / "model"`, or of the one that is named.

    Raises:
        InvalidConfig: the model is no language model that can write, or too short for prompt and sample.
        ModelNotFound: see `model_directory`.
    """
    precision = settled(config.precision, config.device)
    model, tokenizer = _load(config.model, directory, precision, config.device)
    framing = Framing(tokenizer, pair)
    prompted(model, framing)
    width = SHARED_TOKENS + framing.name_width(names)
    check_room(model, framing, width, config.max_tokens)
    return {
        "model": config.model,
        "identity": config.model or f"miniature-{_weights_hash(directory / MODEL)}",
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "pair": pair,
        "precision": precision,
        "device": config.device,
        "max_tokens": config.max_tokens,
        "name_width": width,
    }


def load_generator(directory: Path) -> Generator:
    """The generator of a finished generator stage.

    Raises:
        CorruptArtifact: the stage's files are missing or damaged.
        ModelNotFound: the model that the stage names is not here any more.
    """
    found = _description(directory)
    try:
        model, tokenizer = _load(found["model"], directory, found["precision"], found["device"])
        framing = Framing(tokenizer, found["pair"])
        return Generator(
            model=prompted(model, framing),
            framing=framing,
            identity=found["identity"],
            parameters=found["parameters"],
            max_tokens=found["max_tokens"],
            name_width=found["name_width"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise CorruptArtifact(f"The generator in {directory} cannot be read: {error!r}.") from error


def generator_identity(directory: Path) -> str:
    """What knowledge items call the generator of a finished generator stage; its model is not loaded.

    Raises:
        CorruptArtifact: the stage's description is missing or damaged.
    """
    return str(_description(directory)["identity"])


def _description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "identity" not in found:
            raise ValueError("it names no identity")
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error!r}.") from error
    return found


def check_room(model: PreTrainedModel, framing: Framing, width: int, max_tokens: int) -> None:
    """Refuse a prompt of `width` tokens and samples of `max_tokens` for which the model has no positions.

    Raises:
        InvalidConfig: they are too long.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if model.config.is_encoder_decoder:
        needed = max(width, len(decoder_start(model, framing)) + max_tokens)
    else:
        needed = width + max_tokens
    if positions is not None and needed > positions:
        raise InvalidConfig(
            f"A prompt of {width} tokens and a sample of {max_tokens} need more than the"
            f" {positions} positions of the generator.",
            hint="Lower generator.max_tokens, or soft_prompt.label_tokens where they are set.",
        )


def _load(
    name: str | None, directory: Path, precision: str, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    where = directory / MODEL if name is None else model_directory(name)
    return load_language_model(where, precision, device)


def _weights_hash(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]

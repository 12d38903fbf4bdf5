"""Loading the encoder that students start from, and cutting its layers, positions and tokens."""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from offline.configs.section import Section
from offline.student.pretrained import PretrainedStudent, word_embeddings
from offline.student.vocabulary import PADDING, Vocabulary
from offline.teacher.language_model import attention, loading
from offline.teacher.pretrained import model_directory
from services.platform.errors import InvalidConfig, ModelNotFound

_POSITIONS = "position_embeddings"
_SAVED = "Expected a directory that `save_pretrained` of model and tokenizer wrote."


class StudentEncoderConfig(Section):
    """Which encoder a student starts from.

    Attributes:
        model: the packaged encoder, a hub name, or a directory; any encoder that AutoModel loads from
            safetensors and whose tokenizer is of the package `tokenizers`.
        layers: how many of its layers are kept, the first ones; none for all.
        learning_rate: the largest of all its weights, token embeddings included. Head and query, which begin
            at random, have that of `student.training`; steps, warm-up, decay and dropout are for both.
    """

    model: str
    layers: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4


@dataclass(frozen=True, slots=True)
class StartingEncoder:
    """What is loaded once for all students of a run.

    Attributes:
        model: the encoder, its layers cut, without a pooler.
        tokenizer: its own.
        hidden: width of its last layer.
        padding: id of its padding token.
        prunable: whether rows of its token embeddings may be taken out, and ids change.
        of_layers: layers that it had.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    hidden: int
    padding: int
    prunable: bool
    of_layers: int | None

    def pruned(self, vocabulary: Vocabulary) -> "StartingEncoder":
        """The same with embeddings of the vocabulary's tokens alone, in its order."""
        model = deepcopy(self.model)
        ids = self.tokenizer.convert_tokens_to_ids(list(vocabulary.tokens))
        rows = word_embeddings(model).weight.detach()[torch.tensor(ids)]
        tokens, width = rows.shape
        model.set_input_embeddings(nn.Embedding(tokens, width, padding_idx=PADDING, _weight=rows))
        return replace(self, model=model, padding=PADDING, prunable=False)

    def student(
        self, labels: int, query: int, max_tokens: int, *, rate: float, dropout: float, seed: int
    ) -> PretrainedStudent:
        """One student of these weights; head and query are drawn by `seed`."""
        encoder = deepcopy(self.model).requires_grad_(True)
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return PretrainedStudent(
                encoder,
                hidden=self.hidden,
                padding=self.padding,
                labels=labels,
                query=query,
                max_tokens=max_tokens,
                rate=rate,
            )


def load_starting_encoder(config: StudentEncoderConfig, max_tokens: int) -> StartingEncoder:
    """The encoder that `config` names, with as many layers and positions as are asked for.

    Raises:
        ModelNotFound: there is no such model, or its files are damaged or lack weights or the tokenizer's vocabulary.
        InvalidConfig: it is no encoder that reads a whole text in both directions, it has fewer layers or
            positions than are asked for, or its tokenizer is not of the package `tokenizers`.
    """
    where = model_directory(config.model)
    with loading(where):
        settings = AutoConfig.from_pretrained(where, trust_remote_code=False, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, local_files_only=True
        )
    if settings.is_encoder_decoder:
        raise _no_encoder(config, settings, "has a decoder beside its encoder")
    if not getattr(tokenizer, "is_fast", False):
        raise InvalidConfig(
            f"The tokenizer of {config.model} is a {type(tokenizer).__name__} in Python; the server reads those"
            " of the package `tokenizers` (tokenizer.json).",
            hint="Name an encoder with a fast tokenizer under student.encoder.model.",
        )
    of_layers = _cut_layers(settings, config)
    model = _load(where, settings)
    if getattr(model, "pooler", None) is not None:
        # Nothing reads it, and it would count.
        model.pooler = None
    hidden = _checked_width(model, config, settings)
    _cut_positions(model, max_tokens, config)
    words = word_embeddings(model)
    if max(tokenizer.get_vocab().values()) >= words.num_embeddings:
        raise InvalidConfig(
            f"{config.model} has embeddings of {words.num_embeddings:,} tokens, its tokenizer has more.",
            hint=_SAVED,
        )
    own = getattr(settings, "pad_token_id", None)
    # Positions that are counted by the padding's id forbid that it changes.
    prunable = all(part.padding_idx in (None, PADDING) for part in _positions(model))
    return StartingEncoder(
        model,
        tokenizer,
        hidden,
        PADDING if own is None else int(own),
        prunable,
        of_layers,
    )


def _cut_layers(settings: Any, config: StudentEncoderConfig) -> int | None:
    """Make the settings those of the first layers; the number that there were."""
    there: int | None = getattr(settings, "num_hidden_layers", None)
    if config.layers is None:
        return there
    if there is None or config.layers > there:
        has = "layers that cannot be counted" if there is None else f"{there} layers"
        raise InvalidConfig(
            f"student.encoder.layers is {config.layers}, {config.model} has {has}.",
            hint="Leave student.encoder.layers out for all of them.",
        )
    settings.num_hidden_layers = config.layers
    if getattr(settings, "layer_types", None):
        settings.layer_types = settings.layer_types[: config.layers]
    return there


def _load(where: Path, settings: Any) -> Any:
    level = logging.get_verbosity()
    # That a file holds more than is taken of it (layers, heads of its training) is no news.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with loading(where), torch.random.fork_rng(devices=[]):
            model, found = AutoModel.from_pretrained(
                where,
                config=settings,
                dtype=torch.float32,
                attn_implementation=attention("cpu"),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    finally:
        logging.set_verbosity(level)
    lacking = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if lacking:
        raise ModelNotFound(
            f"The model in {where} cannot be loaded: it lacks {', '.join(lacking[:3])}.",
            hint=_SAVED,
        )
    return model.eval()


def _positions(model: nn.Module) -> list[nn.Embedding]:
    return [
        part
        for name, part in model.named_modules()
        if name.rpartition(".")[2] == _POSITIONS and isinstance(part, nn.Embedding)
    ]


def _cut_positions(model: Any, max_tokens: int, config: StudentEncoderConfig) -> None:
    """Leave the embeddings of positions that texts reach; where there are none, the settings say how many
    positions the encoder was made for."""
    stated = getattr(model.config, "max_position_embeddings", None)
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    parts = _positions(model)
    # Where the padding has a place among the positions, texts begin behind it.
    before = [0 if part.padding_idx is None else part.padding_idx + 1 for part in parts]
    limits += [part.num_embeddings - first for part, first in zip(parts, before, strict=True)]
    if limits and max_tokens > min(limits):
        raise InvalidConfig(
            f"student.shape.max_tokens is {max_tokens}, {config.model} has positions for {min(limits)} tokens.",
            hint=f"Set student.shape.max_tokens to at most {min(limits)}.",
        )
    for part, first in zip(parts, before, strict=True):
        part.weight = nn.Parameter(part.weight.detach()[: first + max_tokens].clone())
        part.num_embeddings = len(part.weight)


def _checked_width(model: Any, config: StudentEncoderConfig, settings: Any) -> int:
    """Width of the last layer of a model that reads in both directions: what stands last in a text changes
    what it makes of the first token."""
    try:
        last = word_embeddings(model).num_embeddings - 1
        ids = torch.tensor([[last, last - 1, last - 2], [last, last - 1, last - 3]])
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise _no_encoder(
            config, settings, f"does not read token ids and a mask alone ({error})"
        ) from error
    moved = (hidden[0] - hidden[1]).abs().amax(-1)
    if moved[0] <= 1e-6 * moved[-1]:
        raise _no_encoder(config, settings, "reads from left to right alone")
    return int(hidden.shape[-1])


def _no_encoder(config: StudentEncoderConfig, settings: Any, why: str) -> InvalidConfig:
    return InvalidConfig(
        f"{config.model} is of the type {settings.model_type!r}, which {why}; a student starts from an encoder.",
        hint="Name a BERT-like model under student.encoder.model.",
    )

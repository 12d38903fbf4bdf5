"""Loading a language model, causal or encoder-decoder, with its tokenizer, and putting it behind prompts, frozen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from offline.teacher.framing import Framing
from offline.teacher.precision import SPREAD, device_type
from offline.teacher.prompted import PromptedCausal, PromptedEncoderDecoder, PromptedModel
from services.platform.errors import InvalidConfig, ModelNotFound


def load_language_model(
    where: Path, precision: str, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer of a Hugging Face directory.

    Args:
        where: the directory; see `model_directory` for names.
        precision: of the weights: `bfloat16`, `float16` or `float32`.
        device: a torch device, or `auto` to have accelerate spread the layers over all GPUs there are.

    Raises:
        InvalidConfig: it is no language model that writes text, or its tokenizer names no end token.
        ModelNotFound: files are missing or damaged.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with loading(where):
        settings = AutoConfig.from_pretrained(where, trust_remote_code=False, local_files_only=True)
    loader = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    if type(settings) not in loader._model_mapping:
        raise InvalidConfig(
            f"{where} is of the type {settings.model_type!r}, which is no language model that writes text.",
            hint="Name a model that AutoModelForCausalLM or AutoModelForSeq2SeqLM loads.",
        )
    with loading(where):
        model = loader.from_pretrained(
            where,
            dtype=getattr(torch, precision),
            attn_implementation=attention(device),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            device_map="auto" if device == SPREAD else None,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, local_files_only=True
        )
    if tokenizer.eos_token_id is None:
        raise InvalidConfig(
            f"The tokenizer in {where} names no end token.",
            hint="Set eos_token in its tokenizer_config.json.",
        )
    if device != SPREAD:
        cast(torch.nn.Module, model).to(device)
    return model, tokenizer


@contextmanager
def loading(where: Path | str) -> Iterator[None]:
    """Tell what transformers makes of missing and damaged files, each kind in an error of its own.

    Raises:
        ModelNotFound: what is done within cannot be, for such files.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelNotFound(
            f"The model in {where} cannot be loaded: {error}",
            hint="Expected a directory that `save_pretrained` of model and tokenizer wrote.",
        ) from error


def prompted(model: PreTrainedModel, framing: Framing) -> PromptedModel:
    """The model behind prompts, frozen.

    Raises:
        InvalidConfig: a decoder that does not say what it begins with, or a model without keys and values.
    """
    if model._is_stateful:
        raise InvalidConfig(
            f"A language model of the type {model.config.model_type!r} keeps a running state instead of keys"
            " and values: it cannot read a prompt once for many texts.",
            hint="Name a transformer.",
        )
    if not model.config.is_encoder_decoder:
        return PromptedCausal(model)
    return PromptedEncoderDecoder(model, decoder_start(model, framing))


def decoder_start(model: PreTrainedModel, framing: Framing) -> tuple[int, ...]:
    """Ids that the decoder of an encoder-decoder begins with.

    Raises:
        InvalidConfig: it does not say.
    """
    first = getattr(model.generation_config, "decoder_start_token_id", None)
    if first is None:
        first = getattr(model.config, "decoder_start_token_id", None)
    if first is None:
        raise InvalidConfig(
            f"The language model, a {model.config.model_type!r}, names no token that its decoder begins with.",
            hint="Set decoder_start_token_id in its config.json.",
        )
    return framing.start(int(first))


def attention(device: str) -> str | None:
    """The implementation of attention for a device; None for the model's own choice.

    On processors, the gradient of torch's fused attention in bfloat16 takes eight times as long as
    that of plain matrix products.
    """
    return "eager" if device_type(device) == "cpu" else None

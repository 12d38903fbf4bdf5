"""The miniature generator: the packaged encoder's weights as a small causal language model of a task."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from offline.teacher.pretrained import PACKAGED, model_directory

StepLog = Callable[[int, int, Mapping[str, float]], None]
"""Called with (done, total, figures)."""


@dataclass(frozen=True, slots=True)
class VocabularyConfig:
    """Which part of the encoder's vocabulary and layers the generator keeps.

    Attributes:
        encoder: a BERT encoder: the packaged one, a hub name, or a directory.
        tokens: size of the vocabulary: every token of the task's texts, filled up with their nearest
            neighbours in the embedding table.
        layers: how many of the lower layers are kept; 0 for all.
        positions: longest sequence, prefix or soft prompt included.
    """

    encoder: str = PACKAGED
    tokens: int = 3000
    layers: int = 0
    positions: int = 192


def warm_start(
    texts: Sequence[str], config: VocabularyConfig
) -> tuple[BertLMHeadModel, PreTrainedTokenizerBase]:
    """A causal language model for `texts` that starts from an encoder's weights.

    The layers get a causal mask; the head is tied to the embedding table. The head's transform, which
    the encoder lacks, starts as the identity: its activation is GELU, which is linear far right of
    zero, so a bias of 4 goes in and the layer norm behind it takes it out again.
    """
    directory = model_directory(config.encoder)
    encoder = AutoModel.from_pretrained(
        directory, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    kept = _kept_tokens(texts, tokenizer, encoder, config.tokens)
    model = _decoder(encoder, kept, config)
    return model, _pruned_tokenizer(tokenizer, kept, config.positions)


def _kept_tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, size: int
) -> list[int]:
    used: set[int] = set(tokenizer.all_special_ids)
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        used.update(ids)
    # Single characters, so that any word can still be spelt.
    used.update(
        index
        for token, index in tokenizer.get_vocab().items()
        if len(token.removeprefix("##")) == 1 and token.isascii()
    )
    table = torch.nn.functional.normalize(
        encoder.get_input_embeddings().weight.detach().float(), dim=1
    )
    nearest = torch.zeros(len(table))
    rows = torch.tensor(sorted(used))
    for chunk in table[rows].split(256):
        nearest = torch.maximum(nearest, (table @ chunk.T).max(1).values)
    nearest[rows] = 2.0
    words = {index for token, index in tokenizer.get_vocab().items() if token.isascii()}
    for index in range(len(table)):
        if index not in words or (index not in used and _is_unused(tokenizer, index)):
            nearest[index] = -1.0
    order = torch.argsort(nearest, descending=True, stable=True)
    return sorted(order[: max(size, len(used))].tolist())


def _is_unused(tokenizer: PreTrainedTokenizerBase, index: int) -> bool:
    return str(tokenizer.convert_ids_to_tokens(index)).startswith("[")


def _decoder(
    encoder: PreTrainedModel, kept: list[int], config: VocabularyConfig
) -> BertLMHeadModel:
    source = encoder.config
    settings = BertConfig(
        vocab_size=len(kept),
        hidden_size=source.hidden_size,
        num_hidden_layers=config.layers or source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        intermediate_size=source.intermediate_size,
        hidden_act=source.hidden_act,
        max_position_embeddings=min(config.positions, source.max_position_embeddings),
        type_vocab_size=source.type_vocab_size,
        layer_norm_eps=source.layer_norm_eps,
        is_decoder=True,
        tie_word_embeddings=True,
    )
    model = BertLMHeadModel(settings)
    state = {
        f"bert.{name}": tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("pooler.")
    }
    state["bert.embeddings.word_embeddings.weight"] = encoder.get_input_embeddings().weight[kept]
    positions = state["bert.embeddings.position_embeddings.weight"]
    state["bert.embeddings.position_embeddings.weight"] = positions[
        : settings.max_position_embeddings
    ]
    transform = "cls.predictions.transform"
    state[f"{transform}.dense.weight"] = torch.eye(settings.hidden_size)
    state[f"{transform}.dense.bias"] = torch.full((settings.hidden_size,), 4.0)
    own = model.state_dict()
    model.load_state_dict({**own, **{name: state[name] for name in state if name in own}})
    model.tie_weights()
    return model


def _pruned_tokenizer(
    tokenizer: PreTrainedTokenizerBase, kept: list[int], positions: int
) -> PreTrainedTokenizerBase:
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    names = tokenizer.convert_ids_to_tokens(kept)
    new = {name: index for index, name in enumerate(names)}
    spec["model"]["vocab"] = new
    spec["added_tokens"] = [
        {**token, "id": new[token["content"]]}
        for token in spec["added_tokens"]
        if token["content"] in new
    ]
    # A causal model's text stands bare: its caller frames it.
    spec["post_processor"] = None
    spec["truncation"] = spec["padding"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )

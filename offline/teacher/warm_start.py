"""The miniature generator's first weights: a sentence encoder's, as a small causal language model."""

import json
from collections.abc import Sequence
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from offline.teacher.framing import PAIR_TOKEN
from offline.teacher.pretrained import model_directory
from services.platform.errors import InvalidConfig


def warm_start(
    texts: Sequence[str],
    *,
    encoder: str,
    tokens: int,
    layers: int,
    positions: int,
    dropout: float,
    seed: int,
) -> tuple[BertLMHeadModel, PreTrainedTokenizerBase]:
    """A causal language model for `texts` that starts from a BERT encoder's weights.

    The layers get a causal mask; the head is tied to the embedding table. The head's transform, which
    a sentence encoder lacks, starts as the identity: its activation is GELU, which is the identity
    far right of zero, so a bias of 4 goes in and the layer norm behind it takes it out again.

    Args:
        texts: the task's texts and label names; every token of them is kept.
        encoder: the packaged encoder, a hub name, or a directory.
        tokens: size of the vocabulary: filled up with the nearest neighbours, in the embedding
            table, of the tokens that are kept.
        layers: how many of the lower layers are kept; 0 for all.
        positions: longest sequence, prompt included.
        dropout: in training.
        seed: of the few weights that the encoder does not have.

    Raises:
        InvalidConfig: the encoder is not a BERT.
        ModelNotFound: see `model_directory`.
    """
    directory, tokenizer = model_directory(encoder), encoder_tokenizer(encoder)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    source = AutoModel.from_pretrained(
        directory, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    if source.config.model_type != "bert":
        raise InvalidConfig(
            f"The miniature generator starts from a BERT encoder; {encoder!r} is of the type"
            f" {source.config.model_type!r}.",
            hint="Set generator.encoder to a BERT, or generator.model to a causal language model.",
        )
    kept = _kept_tokens(texts, tokenizer, source, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _decoder(source, kept, layers, positions, dropout)
    return model, _pruned_tokenizer(tokenizer, kept, positions)


def encoder_tokenizer(encoder: str) -> PreTrainedTokenizerBase:
    """The encoder's own, of whose tokens those of the generator are a part.

    Raises:
        ModelNotFound: see `model_directory`.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        model_directory(encoder), trust_remote_code=False, local_files_only=True
    )
    return tokenizer


def _kept_tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, size: int
) -> list[int]:
    """Ids of the vocabulary that is kept, ascending."""
    used: set[int] = set(tokenizer.all_special_ids)
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        used.update(ids)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    # Single characters, so that any word can still be spelt.
    used.update(
        index
        for token, index in vocabulary.items()
        if len(token.removeprefix("##")) == 1 and token.isascii()
    )
    if len(used) >= size:
        return sorted(used)
    table = torch.nn.functional.normalize(_embeddings(encoder), dim=1)
    rows = torch.tensor(sorted(used))
    similarity = torch.full((len(table),), -1.0)
    for chunk in torch.split(table[rows], 256):
        similarity = torch.maximum(similarity, (table @ chunk.T).max(1).values)
    # Words of other scripts and the reserved `[unused7]` are no candidates.
    candidates = [
        index
        for token, index in vocabulary.items()
        if token.isascii() and not token.startswith("[")
    ]
    eligible = torch.zeros(len(table), dtype=torch.bool)
    eligible[candidates] = True
    similarity[~eligible] = -2.0
    similarity[rows] = 2.0
    order = torch.argsort(similarity, descending=True, stable=True)
    return sorted(order[:size].tolist())


def _embeddings(encoder: PreTrainedModel) -> Tensor:
    return cast(Tensor, encoder.get_input_embeddings().weight).detach().float()


def _decoder(
    encoder: PreTrainedModel, kept: list[int], layers: int, positions: int, dropout: float
) -> BertLMHeadModel:
    source = encoder.config
    settings = BertConfig(
        vocab_size=len(kept),
        hidden_size=source.hidden_size,
        num_hidden_layers=min(layers or source.num_hidden_layers, source.num_hidden_layers),
        num_attention_heads=source.num_attention_heads,
        intermediate_size=source.intermediate_size,
        hidden_act=source.hidden_act,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=min(positions, source.max_position_embeddings),
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
    state["bert.embeddings.word_embeddings.weight"] = _embeddings(encoder)[kept]
    table = "bert.embeddings.position_embeddings.weight"
    state[table] = state[table][: settings.max_position_embeddings]
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
    """The tokenizer of the kept vocabulary; the encoder's mask token becomes the pair separator."""
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    renamed = {tokenizer.mask_token: PAIR_TOKEN}
    names = [renamed.get(name, name) for name in tokenizer.convert_ids_to_tokens(kept)]
    new = {name: index for index, name in enumerate(names)}
    spec["model"]["vocab"] = new
    for token in spec["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    spec["added_tokens"] = [
        {**token, "id": new[token["content"]]}
        for token in spec["added_tokens"]
        if token["content"] in new
    ]
    # A generator's text stands bare: `Framing` puts the end token behind it.
    spec["post_processor"] = None
    spec["truncation"] = spec["padding"] = None
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        bos_token=tokenizer.cls_token,
        eos_token=tokenizer.sep_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )

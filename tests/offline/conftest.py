"""Tiny language models with random weights, and a tokenizer of whole words, for tests of the teacher."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from offline.teacher.framing import Framing
from offline.teacher.generator import Generator
from offline.teacher.language_model import prompted

WORDS = (
    *(
        "red",
        "green",
        "blue",
        "sky",
        "sea",
        "grass",
        "sun",
        "moon",
        "rain",
        "the",
        "a",
        "is",
        "was",
    ),
    *("very", "old", "new", "big", "small", "dog", "cat", "bird", "runs", "sleeps", "sings"),
    *("colour", "animal", "weather", ":", "|", "."),
)
KINDS = ("gpt2", "llama", "qwen2", "bert", "t5", "bart")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<s>", "</s>", "<unk>", "[PAIR]", *WORDS]
    model = WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def framing_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One that frames texts as BERT's or T5's does."""
    tokenizer = tiny_tokenizer()
    before = "<s> " if kind == "bert" else ""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{before}$A </s>",
        pair=f"{before}$A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    if kind == "bert":
        tokenizer.cls_token, tokenizer.sep_token = "<s>", "</s>"
    return tokenizer


def tiny_model(kind: str, vocabulary: int, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    # Weights far larger than at the start of training, so that prompts make a difference.
    size = {
        "vocab_size": vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    wide = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    if kind == "gpt2":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **size)
        return GPT2LMHeadModel(config)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **wide, **size))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, **wide, **size))
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
                initializer_factor=1.0,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=True,
                **size,
            )
        )
    if kind == "bart":
        return BartForConditionalGeneration(
            BartConfig(
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                max_position_embeddings=64,
                decoder_start_token_id=2,
                scale_embedding=True,
                init_std=0.2,
                **size,
            )
        )
    if kind == "bert encoder":
        return BertForMaskedLM(BertConfig(**wide, **size))
    return BertLMHeadModel(BertConfig(is_decoder=True, **wide, **size))


@pytest.fixture
def tiny_generator() -> Callable[..., Generator]:
    """Makes a generator of a kind of model, in float32."""

    def make(kind: str = "gpt2", *, pair: bool = False, max_tokens: int = 12) -> Generator:
        tokenizer = tiny_tokenizer()
        model = tiny_model(kind, len(tokenizer))
        framing = Framing(tokenizer, pair)
        return Generator(
            model=prompted(model, framing),
            framing=framing,
            identity=f"tiny-{kind}",
            parameters=sum(tensor.numel() for tensor in model.parameters()),
            max_tokens=max_tokens,
            name_width=6,
        )

    return make


@pytest.fixture
def tiny_directory(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the Hugging Face directory of a kind of model."""

    def write(kind: str) -> Path:
        directory = tmp_path / f"tiny-{kind}"
        tokenizer = tiny_tokenizer()
        tiny_model(kind, len(tokenizer)).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory

    return write


@pytest.fixture(scope="session")
def reading_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Finds the Hugging Face directory of a tiny model as labellers read with it: `bert`, `gpt2` or `t5`."""
    root = tmp_path_factory.mktemp("reading")

    def find(kind: str) -> Path:
        directory = root / kind
        if not directory.exists():
            tokenizer = tiny_tokenizer() if kind == "gpt2" else framing_tokenizer(kind)
            model = "bert encoder" if kind == "bert" else kind
            tiny_model(model, len(tokenizer)).save_pretrained(directory)
            tokenizer.save_pretrained(directory)
        return directory

    return find

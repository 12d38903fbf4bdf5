"""Static embeddings of an encoder: made without a hub, the same bytes each time, and of use to a classifier."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, BertTokenizerFast

from offline.bench.linear import static_on_labels
from offline.bench.static_config import StaticConfig
from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.tasks.prepared import Examples

pytest.importorskip("model2vec", reason="it comes with retrikt[dev]")
pytest.importorskip("skeletoken", reason="it comes with retrikt[dev]")

WORDS = ("red", "green", "blue", "dog", "cat", "bird", "the", "a", "is", "runs", "sings", "sleeps")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny BERT, random weights, as a Hugging Face directory."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    directory = tmp_path / "encoder"
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    BertModel(config).save_pretrained(directory)
    return directory


def made(encoder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from offline.bench import static_embeddings

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    directory.mkdir()
    config = StaticConfig(encoder=str(encoder), dimensions=12)
    static_embeddings.run({}, config, StageContext(directory, 0, lambda *_: None))
    return directory


def test_the_same_encoder_gives_the_same_bytes(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(encoder, tmp_path / "one", monkeypatch)
    other = made(encoder, tmp_path / "other", monkeypatch)
    assert hash_files(one) == hash_files(other)


def test_a_classifier_over_them_tells_words_apart(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offline.bench.static_embeddings import StaticEmbeddings

    static = StaticEmbeddings(made(encoder, tmp_path / "static", monkeypatch))
    rest = [f"{animal} {verb}" for animal in WORDS[3:6] for verb in WORDS[9:]]
    texts = [f"{colour} {end}" for colour in ("red", "blue") for end in rest]
    gold = np.repeat([0, 1], len(rest))
    linear = static_on_labels(static, Examples(texts, None, None), gold, 2, seed=0)
    assert (linear.probabilities(texts).argmax(1) == gold).all()
    assert linear.parameters == static.parameters + linear.head.parameters
    assert linear.model_bytes > 4 * static.parameters
    assert static(texts, texts).shape == (18, 4 * static(texts).shape[1])

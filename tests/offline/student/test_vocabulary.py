import json
import string
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from offline.student.vocabulary import (
    SPECIAL,
    Vocabulary,
    prune_vocabulary,
    token_embeddings,
)
from offline.teacher.encoder import SentenceEncoder, load_encoder
from services.platform.errors import InvalidConfig

TEXTS = [
    "My laptop cannot connect to the office printer anymore!",
    "The printer in the office prints nothing, the laptop sees the printer.",
    "café naïve: how do I unsubscribe?",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_encoder()


@pytest.fixture(scope="module")
def vocabulary(encoder: SentenceEncoder) -> Vocabulary:
    return prune_vocabulary(encoder.tokenizer, TEXTS, limit=400)


def pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    found: list[str] = Tokenizer.from_str(vocabulary.specification).encode(text).tokens
    return found


def test_texts_of_the_task_keep_the_encoders_pieces(
    encoder: SentenceEncoder, vocabulary: Vocabulary
) -> None:
    for text in TEXTS:
        assert pieces(vocabulary, text) == encoder.tokenizer.tokenize(text, add_special_tokens=True)


def test_a_word_that_was_pruned_is_spelt_with_smaller_pieces(vocabulary: Vocabulary) -> None:
    found = pieces(vocabulary, "zebra")
    assert "[UNK]" not in found
    assert "".join(piece.removeprefix("##") for piece in found[1:-1]) == "zebra"


def test_any_ascii_text_is_tokenized_without_an_unknown_token(vocabulary: Vocabulary) -> None:
    assert "[UNK]" not in pieces(vocabulary, string.printable)


def test_what_no_piece_can_spell_is_one_unknown_token(vocabulary: Vocabulary) -> None:
    assert pieces(vocabulary, "日 ok")[1] == "[UNK]"


def test_the_limit_keeps_the_most_frequent_pieces(encoder: SentenceEncoder) -> None:
    everything = prune_vocabulary(encoder.tokenizer, TEXTS, limit=10_000)
    tight = prune_vocabulary(encoder.tokenizer, TEXTS, limit=len(everything) - 12)
    assert len(tight) == len(everything) - 12
    assert "printer" in tight.tokens
    assert set(tight.tokens) < set(everything.tokens)


def test_further_tokens_are_the_texts_own_then_the_languages_frequent_words(
    encoder: SentenceEncoder,
) -> None:
    everything = prune_vocabulary(encoder.tokenizer, TEXTS, limit=10_000)
    tight = prune_vocabulary(
        encoder.tokenizer, TEXTS, limit=len(everything) - 12, further=12 + 3_000
    )
    assert tight.own == len(everything) - 12
    assert len(tight) == tight.own + 12 + 3_000
    assert set(everything.tokens) < set(tight.tokens)
    assert pieces(tight, "the water of the river")[1:-1] == ["the", "water", "of", "the", "river"]


def test_a_limit_below_the_characters_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(InvalidConfig, match="room for 50 tokens"):
        prune_vocabulary(encoder.tokenizer, TEXTS, limit=50)


def test_another_kind_of_tokenizer_is_refused() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(InvalidConfig, match="WordLevel"):
        prune_vocabulary(words, TEXTS, limit=400)


def test_special_tokens_come_first_and_ids_have_no_gap(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    vocabulary.save(tmp_path / "tokenizer.json")
    specification = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    ids = specification["model"]["vocab"]
    assert tuple(vocabulary.tokens[:4]) == SPECIAL
    assert [ids[token] for token in vocabulary.tokens] == list(range(len(vocabulary)))


def test_pairs_and_single_texts_are_framed(vocabulary: Vocabulary) -> None:
    single = Tokenizer.from_str(vocabulary.specification).encode("printer")
    pair = Tokenizer.from_str(vocabulary.specification).encode("printer", "laptop")
    assert single.tokens == ["[CLS]", "printer", "[SEP]"]
    assert pair.tokens == ["[CLS]", "printer", "[SEP]", "laptop", "[SEP]"]


def test_a_word_that_was_added_to_the_tokenizer_is_spelt_like_others() -> None:
    tokenizer = load_encoder().tokenizer
    tokenizer.add_tokens(["printerzone"])
    assert "printerzone" in tokenizer.tokenize("a printerzone")
    found = pieces(prune_vocabulary(tokenizer, ["a printerzone"], limit=400), "a printerzone")
    assert "[UNK]" not in found
    assert "".join(piece.removeprefix("##") for piece in found[2:-1]) == "printerzone"


def test_long_texts_are_cut_with_their_end_token(vocabulary: Vocabulary) -> None:
    (ids,) = vocabulary.encode(["printer " * 50], None, 16)
    assert len(ids) == 16
    assert vocabulary.tokens[ids[-1]] == "[SEP]"


def test_embeddings_keep_what_is_near_in_meaning_near(
    encoder: SentenceEncoder,
) -> None:
    texts = [*TEXTS, "happy glad angry printer scanner banana computer laptop red blue"]
    vocabulary = prune_vocabulary(encoder.tokenizer, texts, limit=400)
    vectors = token_embeddings(encoder, vocabulary, 48)
    assert vectors.shape == (len(vocabulary), 48)
    assert not vectors[0].any()
    np.testing.assert_allclose(vectors[len(SPECIAL) :].std(), 1, rtol=1e-3)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def cosine(one: str, other: str) -> float:
        return float(unit[vocabulary.tokens.index(one)] @ unit[vocabulary.tokens.index(other)])

    assert cosine("laptop", "computer") > cosine("laptop", "banana")
    assert cosine("happy", "glad") > cosine("happy", "printer")


def test_more_dimensions_than_components_are_filled_with_zeros(
    encoder: SentenceEncoder, vocabulary: Vocabulary
) -> None:
    vectors = token_embeddings(encoder, vocabulary, 500)
    assert vectors.shape == (len(vocabulary), 500)
    assert not vectors[:, 400:].any()

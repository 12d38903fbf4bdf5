"""Framing: examples as token sequences, samples as texts, in the vocabularies of several kinds of models."""

from collections.abc import Callable

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from offline.teacher.framing import Framing, Sample
from offline.teacher.generator import Generator
from services.platform.errors import InvalidConfig

Make = Callable[..., Generator]


def test_pairs_are_two_texts_with_a_separator(tiny_generator: Make) -> None:
    framing = tiny_generator(pair=True).framing
    ids = framing.encode("red sky", "blue sea")
    assert framing.decode(ids) == Sample("red sky", "blue sea", True)
    assert framing.decode(ids[:-1]) == Sample("red sky", "blue sea", False)
    assert framing.decode(framing.encode("red sky")[:2]) == Sample("red sky", None, False)
    assert framing.decode(framing.encode("red sky", "")) == Sample("red sky", "", False)
    assert framing.decode(framing.encode("", "blue sea")) == Sample("", "blue sea", False)


def test_a_name_is_laid_out_to_a_fixed_width(tiny_generator: Make) -> None:
    framing = tiny_generator().framing
    words = framing.tokenizer.convert_ids_to_tokens
    assert words(framing.name("big dog", 5)) == ["<s>", "<s>", "big", "dog", ":"]
    assert words(framing.name("", 3)) == ["<s>", "<s>", ":"]
    assert words(framing.name("a very big old dog", 4)) == ["a", "very", "big", ":"]
    assert framing.name_width(["big dog", "a very big old dog"]) == 7


def test_a_tokenizer_that_can_write_nothing_between_texts_frames_no_pairs() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE({"a": 0, "</s>": 1}, [])), eos_token="</s>"
    )
    assert Framing(tokenizer, pair=False).separator == ()
    with pytest.raises(InvalidConfig, match="nothing to stand between the texts of a pair"):
        Framing(tokenizer, pair=True)


def t5_like_tokenizer() -> PreTrainedTokenizerFast:
    """Sentence pieces, as T5 has them: spaces are all it knows of blanks, and targets end in `</s>`."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(character, -4.0) for character in "▁abcdefghijklmnopqrstuvwxyz|,."]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def bart_like_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, as BART has them: targets stand between `<s>` and `</s>`."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({name: index for index, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


@pytest.mark.parametrize(
    ("tokenizer", "separator", "start"),
    [(t5_like_tokenizer(), "||", (7,)), (bart_like_tokenizer(), "\n", (7, 0))],
    ids=["t5", "bart"],
)
def test_pairs_and_decoders_start_are_what_the_tokenizer_can_write(
    tokenizer: PreTrainedTokenizerFast, separator: str, start: tuple[int, ...]
) -> None:
    framing = Framing(tokenizer, pair=True)
    assert tokenizer.decode(framing.separator).strip(" ") == separator
    written = framing.encode("a red || sun", "the\nsea, || or | not.")
    assert framing.decode(written) == Sample(
        *(
            ("a red sun", "the sea, or | not.")
            if separator == "||"
            else ("a red || sun", "the sea, || or | not.")
        ),
        True,
    )
    assert framing.start(7) == start

"""How examples become token sequences of a generator, and samples become texts again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from transformers import PreTrainedTokenizerBase

from offline.teacher.pair_order import PairOrder
from services.platform.errors import InvalidConfig

PAIR_TOKEN = "[PAIR]"
"""Stands between the two texts of a pair in vocabularies that we make."""
SEPARATORS = ("\n", "||", "|", " / ")
"""What stands there elsewhere: the first that the vocabulary can write. T5's has no line break."""
AFTER_NAME = ":"

log = structlog.get_logger(__name__)

# What a word-piece tokenizer took apart. Where it left no trace of which side a mark clung to, the
# more frequent reading is taken: `wi - fi` is `wi-fi`.
_CONTRACTED = re.compile(r"(?<=\w) ?(['’]) ?(?=(?:s|t|d|m|re|ve|ll|em|clock)\b)")
_QUOTED = re.compile(r"(?<!\S)(['\"]) (.+?) \1(?!\w)")
_JOINED = re.compile(r"(?<=\w) ?([@/_\-]) ?(?=\w)")
_BEFORE = re.compile(r" ([.,!?;:%)\]}…])")
_AFTER = re.compile(r"([(\[{$£€#]) (?=\w)")
_NUMBER = re.compile(r"(?<=\d)([.,:]) (?=\d)")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a token sequence says.

    Attributes:
        text, pair: the texts; `pair` is None where the sequence holds no separator.
        complete: whether the sequence came to its end token, for a pair with both texts.
    """

    text: str
    pair: str | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Framing:
    """Token sequences of one tokenizer: `text end`, or `first separator second end` for a pair.

    Nothing stands before the text: what comes before it is the prompt.

    Raises InvalidConfig for pairs, where the tokenizer can write nothing between them.

    Attributes:
        tokenizer: between texts and ids.
        pair: whether there are two texts.
        end, filler, separator: ids of what ends a sequence, fills up a label's name, and stands between
            two texts.
    """

    tokenizer: PreTrainedTokenizerBase
    pair: bool
    end: int = field(init=False)
    filler: int = field(init=False)
    separator: tuple[int, ...] = field(init=False)
    _reserved: str = field(init=False)

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer
        special = tokenizer.convert_tokens_to_ids(PAIR_TOKEN)
        known = special is not None and special != tokenizer.unk_token_id
        mark = PAIR_TOKEN if known else self._separator()
        object.__setattr__(self, "_reserved", mark)
        object.__setattr__(self, "separator", (special,) if known else tuple(self.ids(mark)))
        object.__setattr__(self, "end", tokenizer.eos_token_id)
        if self.pair and not self.separator:
            raise InvalidConfig(
                f"The tokenizer, a {type(tokenizer).__name__}, writes none of {', '.join(map(repr, SEPARATORS))}: there"
                " is nothing to stand between the texts of a pair.",
                hint=f"Give its vocabulary a token {PAIR_TOKEN}, or name another model.",
            )
        filler = tokenizer.bos_token_id
        object.__setattr__(self, "filler", tokenizer.eos_token_id if filler is None else filler)

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """Token ids of an example, its end token included."""
        ids = self.ids(_one_line(text))
        if self.pair:
            # What separates the texts must not occur in them.
            first, second = (
                _one_line(part.replace(self._reserved, " ")) for part in (text, pair or "")
            )
            ids = [*self.ids(first), *self.separator, *self.ids(second)]
        return [*ids, self.end]

    def encode_all(
        self, texts: Sequence[str], pairs: Sequence[str] | None, most: int
    ) -> list[list[int]]:
        """Token ids of examples, each cut to `most`; how many are cut is logged, since they teach no end."""
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        whole = [self.encode(text, second) for text, second in zip(texts, seconds, strict=True)]
        if cut := sum(len(ids) > most for ids in whole):
            log.warning("examples_cut", cut=cut, examples=len(whole), max_tokens=most)
        return [ids[:most] for ids in whole]

    def decode(self, ids: Sequence[int]) -> Sample:
        """The texts of a sequence; what follows the end token is left aside."""
        ids = list(ids)
        complete = self.end in ids
        if complete:
            ids = ids[: ids.index(self.end)]
        if not self.pair:
            return Sample(self._text(ids), None, complete)
        at = _find(ids, self.separator)
        if at is None:
            return Sample(self._text(ids), None, False)
        first, second = self._text(ids[:at]), self._text(ids[at + len(self.separator) :])
        return Sample(first, second, complete and bool(first) and bool(second))

    def name(self, words: str, width: int) -> list[int]:
        """`width` token ids that announce a label: fillers, the label's words, a colon.

        Names that are too long lose their last tokens. Without words it announces any text.
        """
        ids = [*self.ids(words)[: width - 1], *self.ids(AFTER_NAME)[:1]]
        return [self.filler] * (width - len(ids)) + ids

    def name_width(self, names: Sequence[str]) -> int:
        """Tokens that the longest of the names needs, its colon and one filler included."""
        return max(len(self.ids(name)) for name in names) + 2

    @property
    def order(self) -> PairOrder | None:
        """What holds tokens of a pair back until it is their turn; None for single texts."""
        return PairOrder(self.end, self.separator) if self.pair else None

    def start(self, decoder_start: int) -> tuple[int, ...]:
        """What the decoder of an encoder-decoder begins with: its start token, and what its tokenizer puts
        before every target (BART's `<s>`)."""
        target = list(self.tokenizer(text_target="a")["input_ids"])
        bare = self.ids("a")
        before = target[: _find(target, tuple(bare)) or 0]
        return (decoder_start, *before)

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokenizer puts before and after every text that a model reads."""
        whole, bare = list(self.tokenizer("a")["input_ids"]), self.ids("a")
        at = _find(whole, tuple(bare)) or 0
        return tuple(whole[:at]), tuple(whole[at + len(bare) :])

    def _separator(self) -> str:
        """The first of `SEPARATORS` that comes back as it was after becoming tokens."""
        for mark in SEPARATORS:
            ids = self.ids(mark)
            if self.tokenizer.unk_token_id in ids and self.tokenizer.unk_token_id != self.end:
                continue
            if str(self.tokenizer.decode(ids)).strip(" ") == mark.strip(" "):
                return mark
        return SEPARATORS[0]

    def ids(self, text: str) -> list[int]:
        """Of a text alone, without what the tokenizer puts around it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text(self, ids: list[int]) -> str:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        if self.tokenizer.convert_tokens_to_ids("##s") != self.tokenizer.unk_token_id:
            text = _put_together(text)
        return _one_line(text)


def _put_together(text: str) -> str:
    """Undo a word-piece tokenizer's spaces round marks: `i ' m late , sorry` as `i'm late, sorry`."""
    text = _CONTRACTED.sub(r"\1", text)
    text = _QUOTED.sub(r"\1\2\1", text)
    text = _JOINED.sub(r"\1", text)
    text = _BEFORE.sub(r"\1", text)
    text = _AFTER.sub(r"\1", text)
    return _NUMBER.sub(r"\1", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _find(ids: list[int], part: tuple[int, ...]) -> int | None:
    size = len(part)
    for start in range(len(ids) - size + 1):
        if tuple(ids[start : start + size]) == part:
            return start
    return None

"""The student's vocabulary: the encoder's word pieces that the texts use and its most frequent ones, or all."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from offline.teacher.encoder import SentenceEncoder
from services.platform.errors import InvalidConfig

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PADDING = 0
_PREFIX = "##"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens of a student.

    Attributes:
        tokens: in the order of their ids; `SPECIAL` first.
        own: how many of them, the first ones, are to have an embedding of their own.
        specification: the `tokenizer.json` that produces them, post-processor included.
    """

    tokens: tuple[str, ...]
    own: int
    specification: str

    def __len__(self) -> int:
        return len(self.tokens)

    def tokenizer(self, max_tokens: int) -> Tokenizer:
        """A tokenizer that truncates at `max_tokens`, special tokens included, and does not pad."""
        tokenizer = Tokenizer.from_str(self.specification)
        tokenizer.enable_truncation(max_tokens)
        return tokenizer

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, max_tokens: int
    ) -> list[list[int]]:
        """Token ids of each text or pair."""
        inputs: Sequence[Any] = texts if pairs is None else list(zip(texts, pairs, strict=True))
        return [found.ids for found in self.tokenizer(max_tokens).encode_batch_fast(inputs)]

    def save(self, path: Path) -> None:
        path.write_text(self.specification, encoding="utf-8")


def is_prunable(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether `prune_vocabulary` knows the kind: WordPiece with BERT's special tokens."""
    model: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model["type"] == "WordPiece" and all(name in model["vocab"] for name in SPECIAL)


def whole_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """All tokens of a tokenizer, with ids and framing as they are.

    Raises:
        InvalidConfig: it puts no special tokens round a text, so that an empty one would have no token.
    """
    specification = json.loads(tokenizer.backend_tokenizer.to_str())
    specification |= {"truncation": None, "padding": None}
    ids = tokenizer.get_vocab()
    tokens = tuple(sorted(ids, key=ids.__getitem__))
    vocabulary = Vocabulary(tokens, len(tokens), json.dumps(specification, ensure_ascii=False))
    if not vocabulary.encode([""], None, len(SPECIAL))[0]:
        raise InvalidConfig(
            f"The tokenizer, a {type(tokenizer).__name__}, puts no special tokens round a text.",
            hint="Name an encoder whose tokenizer.json has a post-processor under student.encoder.model.",
        )
    return vocabulary


def prune_vocabulary(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, limit: int, further: int = 0
) -> Vocabulary:
    """The word pieces that `texts` use, most frequent first, at most `limit` of them; then others.

    Every character that the texts hold, and every letter, digit and mark of ASCII, stays as a piece
    of its own, so that a word whose pieces were pruned is spelt with smaller ones.

    Args:
        tokenizer: of the encoder.
        texts: of the task and the knowledge.
        limit: tokens with an embedding of their own.
        further: most tokens after them: pieces of the texts that are above the limit, then words and
            pieces of letters in the encoder's order (BERT's is nearly that of their frequency), which
            texts may use that nobody has seen yet.

    Raises:
        InvalidConfig: the encoder's tokenizer is of another kind than WordPiece, or `limit` leaves
            no room for the characters.
    """
    specification: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = specification["model"]
    if not is_prunable(tokenizer):
        raise InvalidConfig(
            f"The encoder's tokenizer is {model['type']}; the student prunes WordPiece vocabularies "
            f"with the tokens {', '.join(SPECIAL)}.",
            hint="Name a BERT-like encoder (MiniLM, BGE, E5) under labeller.encoder.",
        )
    counts = _counts(specification, texts)
    # Words that were added to the tokenizer are no pieces of it: they are spelt like others.
    for word in counts.keys() - model["vocab"].keys():
        del counts[word]
    pieces = _characters(model["vocab"], texts)
    if len(SPECIAL) + len(pieces) > limit:
        raise InvalidConfig(
            f"The student has room for {limit} tokens, and the special tokens and characters "
            f"alone are {len(SPECIAL) + len(pieces)}.",
            hint="Raise student.max_share or student.max_parameters, or take smaller or fewer layers.",
        )
    kept = set(pieces)
    for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(SPECIAL) + len(kept) >= limit:
            break
        if piece not in SPECIAL:
            kept.add(piece)
    rank = model["vocab"].__getitem__
    left = [piece for piece in sorted(model["vocab"], key=rank) if piece not in kept]
    seen = [piece for piece in left if piece in counts and piece not in SPECIAL]
    other = [piece for piece in left if piece not in counts and _is_word(piece)]
    # In the encoder's own order: frequent tokens of the language first, independent of the counts.
    first = (*SPECIAL, *sorted(kept, key=rank))
    tokens = (*first, *sorted((seen + other)[:further], key=rank))
    return Vocabulary(tokens, len(first), _specification(specification, tokens))


def token_embeddings(
    encoder: SentenceEncoder, vocabulary: Vocabulary, dimensions: int
) -> NDArray[np.float32]:
    """What the encoder makes of each token, reduced by principal components.

    The idea is model2vec's (Tulkens and van Dongen 2024): the output of a sentence encoder for a
    token on its own is a good static embedding of it.

    Args:
        encoder: the labeller's.
        vocabulary: the student's.
        dimensions: of the embeddings.

    Returns:
        (tokens, dimensions) float32 of variance 1 over all entries; the padding's row is zero.
    """
    found = encoder.embed_tokens(vocabulary.tokens).astype(np.float64)
    words = found[len(SPECIAL) :]
    centred = found - words.mean(axis=0)
    _, _, axes = np.linalg.svd(words - words.mean(axis=0), full_matrices=False)
    # The sign of a principal axis is arbitrary: its largest entry is made positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    reduced = np.zeros((len(found), dimensions))
    reduced[:, : len(axes)] = centred @ axes[:dimensions].T
    reduced /= reduced[len(SPECIAL) :].std()
    reduced[PADDING] = 0.0
    return reduced.astype(np.float32)


def _counts(specification: dict[str, Any], texts: Sequence[str]) -> Counter[str]:
    whole = Tokenizer.from_str(json.dumps({**specification, "truncation": None, "padding": None}))
    counts: Counter[str] = Counter()
    for found in whole.encode_batch(list(texts), add_special_tokens=False):
        counts.update(found.tokens)
    return counts


def _characters(vocabulary: dict[str, int], texts: Sequence[str]) -> set[str]:
    used = {character for text in texts for character in text}
    used.update(map(chr, range(33, 127)))
    forms = (form for character in used for form in (character, _PREFIX + character))
    return {form for form in forms if form in vocabulary}


def _is_word(piece: str) -> bool:
    """Letters of ASCII, at the beginning or inside of a word."""
    letters = piece.removeprefix(_PREFIX)
    return letters.isascii() and letters.isalpha()


def _specification(specification: dict[str, Any], tokens: Sequence[str]) -> str:
    ids = {token: index for index, token in enumerate(tokens)}
    added = [
        {**token, "id": ids[token["content"]]}
        for token in specification["added_tokens"]
        if token["content"] in ids
    ]
    start, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
    post_processor = {
        "type": "TemplateProcessing",
        "single": [start, first, end],
        "pair": [start, first, end, second, end],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
        },
    }
    pruned = {
        **specification,
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "post_processor": post_processor,
        "model": {**specification["model"], "vocab": ids},
    }
    return json.dumps(pruned, ensure_ascii=False)

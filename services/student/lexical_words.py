"""What each word of a text says for a label, by the lexical index: for explanations, not for the hot path."""

from typing import NamedTuple

import numpy as np

from services.student.lexical import (
    _SECOND,
    Floats,
    Keys,
    LexicalWeights,
    Words,
    character_keys,
    run_keys,
    word_key,
)


class Word(NamedTuple):
    """A word of a text, or of a pair's second text.

    Attributes:
        word: in lower case.
        second: whether it is of the second text.
        weight: what it adds to the label's logit, less what it adds to the mean of all labels' logits.
    """

    word: str
    second: bool
    weight: float


def said_by_words(fitted: LexicalWeights, words: Words, label: int, share: float) -> list[Word]:
    """Each word's part of the logits that are mixed, in the order of the text.

    What a run of several words says is divided among them evenly. All weights and the centred bias of the label, times
    `share`, add up to the index's part of the label's centred logit.

    Args:
        fitted: of the index.
        words: of the text, as the index's `words` gives them.
        label: position of the label.
        share: of the index in the logits, `MixingParameters.lexical_share`.
    """
    if not words:
        return []
    keys = np.array([word_key(word) for word in words], np.uint64)
    by_runs = np.zeros(len(words), np.float32)
    squares = 0.0
    for length, (run, _) in enumerate(run_keys(keys, np.zeros(len(words), np.int64)), start=1):
        said, square = _said(fitted, run, label)
        squares += float(square.sum())
        for offset in range(length):
            by_runs[offset : offset + len(run)] += said / length
    by_characters = np.zeros(len(words), np.float32)
    squares_of_characters = 0.0
    for place, word in enumerate(words):
        said, square = _said(fitted, character_keys(word), label)
        by_characters[place] = said.sum()
        squares_of_characters += float(square.sum())
    weights = share * (
        by_runs / (np.sqrt(squares) or 1.0)
        + by_characters / (np.sqrt(squares_of_characters) or 1.0)
    )
    return [
        Word(word.removeprefix(_SECOND), word.startswith(_SECOND), float(weight))
        for word, weight in zip(words, weights, strict=True)
    ]


def _said(fitted: LexicalWeights, keys: Keys, label: int) -> tuple[Floats, Floats]:
    """(n,): centred weights of n-grams, and the squares of their lengths; 0 for those that the index lacks."""
    if not len(fitted.keys):
        return np.zeros(len(keys), np.float32), np.zeros(len(keys), np.float32)
    places = np.searchsorted(fitted.keys, keys)
    places[places == len(fitted.keys)] = 0
    found = (fitted.keys[places] == keys).astype(np.float32)
    weights = fitted.weights[places].astype(np.float32)
    return found * (weights[:, label] - weights.mean(1)), found * np.square(fitted.idf[places])

"""What each word of a text says for a label, by the lexical index: for explanations, not for the hot path."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.student.lexical import LONGEST_RUN, SECOND, LexicalIndex, Words, characters_of


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


def said_by_words(index: LexicalIndex, words: Words, label: int, share: float) -> list[Word]:
    """Each word's part of the logits that are mixed, in the order of the text.

    What a run of several words says is divided among them evenly, and so is what counts once though it occurs
    several times. All weights and the centred bias of the label, times `share`, add up to the index's part of the
    label's centred logit.

    Args:
        index: of the release.
        words: of the text, as the index's `words` gives them.
        label: position of the label.
        share: of the index in the logits, `MixingParameters.lexical_share`.
    """
    runs: dict[str, list[int]] = defaultdict(list)
    for length in range(1, LONGEST_RUN + 1):
        for start in range(len(words) - length + 1):
            runs[" ".join(words[start : start + length])] += range(start, start + length)
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        places[word].append(place)
    by_runs = _shares(
        index, label, len(words), ((row, runs[run]) for run, row in _known(runs, index.run_rows))
    )
    by_characters = _shares(
        index,
        label,
        len(words),
        (
            (row, own)
            for word, own in places.items()
            for _, row in _known(characters_of(word), index.character_rows)
        ),
    )
    weights = share * (by_runs + by_characters)
    return [
        Word(word.removeprefix(SECOND), word.startswith(SECOND), float(weight))
        for word, weight in zip(words, weights, strict=True)
    ]


def _known(grams: Iterable[str], rows: dict[str, int]) -> Iterable[tuple[str, int]]:
    return ((gram, rows[gram]) for gram in grams if gram in rows)


def _shares(
    index: LexicalIndex, label: int, words: int, said: Iterable[tuple[int, list[int]]]
) -> NDArray[np.float64]:
    """(words,): what n-grams of one kind say, each divided among the places of its words."""
    found = list(said)
    rows = [row for row, _ in found]
    counts = [len(places) for _, places in found]
    weights = index.fitted.weights[rows].astype(np.float64)
    shares = (weights[:, label] - weights.mean(1)) / np.maximum(counts, 1)
    where = np.array([place for _, places in found for place in places], np.int64)
    sums = np.bincount(where, np.repeat(shares, counts), minlength=words)
    length = np.sqrt(np.square(index.fitted.idf[rows].astype(np.float64)).sum())
    return sums / (length or 1.0)

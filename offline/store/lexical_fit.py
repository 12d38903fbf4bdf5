"""Fitting a release's lexical index: softmax regression of the teacher's soft labels on the n-grams of the knowledge.

It is the baseline `tfidf_on_knowledge`, whose features are here those that a server can look up quickly
(`services.student.lexical`), kept for its own sake: as a part of the answer it tells what the student has missed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from offline.student.soft_regression import fit_soft_head
from offline.tasks.normal_form import letters_and_digits
from services.student.lexical import (
    LexicalWeights,
    Words,
    character_keys,
    run_keys,
    word_key,
    words_of,
)

STRENGTHS = (10.0, 30.0)
"""Candidates for the inverse regularisation (scikit-learn's `C`)."""
LEAST_ITEMS = 2
"""Items that an n-gram must be in: of one alone it says nothing about the others."""
MOST_GRAMS = 1 << 17
MOST_ITEMS = 100_000
"""Items that are fitted; of more, so many drawn at random. The weights hardly change with more of them."""

_SEED = 0
_LEAST_KNOWN = 0.5

_Places = tuple[NDArray[np.uint64], NDArray[np.int64]]


def fit_lexical(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    soft_labels: NDArray[np.float32],
    *,
    known: int,
    most_words: int,
) -> LexicalWeights:
    """Fit on knowledge items; the same items give the same weights.

    The labels that the student does not know have no part in it: an item of one says nothing, and is left out.

    Args:
        texts: n texts.
        pairs: n second texts, or None.
        soft_labels: (n, L).
        known: how many labels, the first ones, the student knows.
        most_words: of a text that are looked at: the student's `max_tokens`.
    """
    shares = soft_labels[:, :known].sum(1)
    chosen = np.flatnonzero(shares >= _LEAST_KNOWN)
    if len(chosen) > MOST_ITEMS:
        drawn = np.random.default_rng(_SEED).permutation(len(chosen))[:MOST_ITEMS]
        chosen = chosen[np.sort(drawn)]
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    rows: list[int] = chosen.tolist()
    words = [words_of(texts[row], seconds[row], most=most_words) for row in rows]
    blocks = [_runs(words), _characters(words)]
    keys, idf = _index(blocks, len(words))
    of_words, of_characters = (_features(block, keys, idf, len(words)) for block in blocks)
    head = fit_soft_head(
        (of_words + of_characters).tocsr().astype(np.float32),
        soft_labels[chosen, :known] / shares[chosen, None],
        [letters_and_digits(texts[row], seconds[row]) for row in rows],
        strengths=STRENGTHS,
        seed=_SEED,
    )
    scaled = head.weight.T * (idf[:, None] / head.temperature)
    return LexicalWeights(
        keys,
        idf,
        scaled.astype(np.float16),
        (head.bias / head.temperature).astype(np.float32),
        most_words,
    )


def _runs(texts: Sequence[Words]) -> _Places:
    """Keys of all runs of words, and the rows of the texts that they are in."""
    keys: dict[str, int] = {}
    flat = np.fromiter(
        (
            keys[word] if word in keys else keys.setdefault(word, word_key(word))
            for words in texts
            for word in words
        ),
        np.uint64,
    )
    rows = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
    runs = list(run_keys(flat, rows))
    return np.concatenate([run for run, _ in runs]), np.concatenate([of for _, of in runs])


def _characters(texts: Sequence[Words]) -> _Places:
    """Keys of all runs of characters, and the rows of the texts that they are in."""
    known: dict[str, NDArray[np.uint64]] = {}
    parts: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    counts = []
    for words in texts:
        count = 0
        for word in words:
            if word not in known:
                known[word] = character_keys(word)
            parts.append(known[word])
            count += len(known[word])
        counts.append(count)
    return np.concatenate(parts), np.repeat(np.arange(len(texts)), counts)


def _index(blocks: Sequence[_Places], texts: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Keys of the n-grams that enough texts have, ascending, and their inverse document frequencies."""
    found, frequencies = [], []
    for keys, rows in blocks:
        distinct, places = np.unique(keys, return_inverse=True)
        # Each text counts once, however often it has the n-gram.
        once = np.unique(places.astype(np.int64) * texts + rows) // max(texts, 1)
        found.append(distinct)
        frequencies.append(np.bincount(once, minlength=len(distinct)))
    keys, frequency = np.concatenate(found), np.concatenate(frequencies)
    kept = np.flatnonzero(frequency >= LEAST_ITEMS)
    if len(kept) > MOST_GRAMS:
        kept = kept[np.lexsort((keys[kept], -frequency[kept]))[:MOST_GRAMS]]
    keys, frequency = keys[kept], frequency[kept]
    order = np.argsort(keys)
    idf = np.log((1 + texts) / (1 + frequency[order])) + 1
    return keys[order], idf.astype(np.float32)


def _features(
    block: _Places, keys: NDArray[np.uint64], idf: NDArray[np.float32], texts: int
) -> sparse.csr_array:
    """(texts, n-grams): the block's n-grams, each row divided by its length."""
    found, rows = block
    places = np.searchsorted(keys, found)
    there = places < len(keys)
    there[there] = keys[places[there]] == found[there]
    places, rows = places[there], rows[there]
    squares = np.bincount(rows, weights=np.square(idf[places].astype(np.float64)), minlength=texts)
    length = np.sqrt(np.where(squares > 0, squares, 1))
    values = idf[places] / length[rows]
    return sparse.csr_array((values, (rows, places)), shape=(texts, len(keys)))

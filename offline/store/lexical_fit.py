"""Fitting a release's lexical index: softmax regression of the teacher's soft labels on the n-grams of the knowledge.

It is the baseline `tfidf_on_knowledge`, whose features are here those that a server can look up quickly
(`services.student.lexical`), kept for its own sake: as a part of the answer it tells what the student has missed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from offline.store.grams import Grams
from offline.student.soft_regression import fit_soft_head
from offline.tasks.normal_form import letters_and_digits
from services.student.lexical import LexicalWeights, Words, words_of

STRENGTHS = (10.0, 30.0)
"""Candidates for the inverse regularisation (scikit-learn's `C`)."""
MOST_GRAMS = 1 << 17
MOST_WEIGHTS = 4_000_000
"""N-grams times labels: the most frequent n-grams are kept."""
MOST_ITEMS = 100_000
"""Items that are fitted; of more, so many drawn at random. The weights hardly change with more of them."""
MOST_ANSWERS = 1_500_000
"""Fitted items times labels: what a fit takes grows with it, and every edit is followed by one."""
MOST_WORDS = 1_000_000
"""Words of all fitted items together."""

_SEED = 0
_LEAST_KNOWN = 0.5


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
    Less than two distinct texts are nothing to learn from: the index then has no n-grams and says nothing.

    Args:
        texts: n texts.
        pairs: n second texts, or None.
        soft_labels: (n, L).
        known: how many labels, the first ones, the student knows.
        most_words: of a text that are looked at: the student's `max_tokens`.
    """
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    shares = soft_labels[:, :known].sum(1)
    rows: list[int] = np.flatnonzero(shares >= _LEAST_KNOWN).tolist()
    words = [words_of(texts[row], seconds[row], most=most_words) for row in rows]
    drawn = _drawn(words, known)
    rows, words = [rows[place] for place in drawn], [words[place] for place in drawn]
    forms = [letters_and_digits(texts[row], seconds[row]) for row in rows]
    if len(set(forms)) < 2:
        nothing = np.zeros((0, known), np.float16)
        return LexicalWeights(
            (), (), np.zeros(0, np.float32), nothing, np.zeros(known, np.float32), most_words
        )
    runs, characters = Grams.of_runs(words), Grams.of_characters(words)
    runs.keep_most_frequent(characters, min(MOST_GRAMS, MOST_WEIGHTS // known))
    # The bytes are to be the same on any number of cores, and a sum by several threads is not.
    with threadpool_limits(1):
        head = fit_soft_head(
            sparse.hstack([runs.features(), characters.features()], format="csr"),
            soft_labels[rows, :known] / shares[rows, None],
            forms,
            strengths=STRENGTHS,
            seed=_SEED,
        )
    idf = np.concatenate([runs.idf, characters.idf])
    scaled = head.weight.T * (idf[:, None] / head.temperature)
    return LexicalWeights(
        runs.kept,
        characters.kept,
        idf,
        scaled.astype(np.float16),
        (head.bias / head.temperature).astype(np.float32),
        most_words,
    )


def _drawn(texts: Sequence[Words], known: int) -> list[int]:
    """Positions of the items that are fitted, ascending: all, or as many as the limits allow, at random."""
    most = min(MOST_ITEMS, max(2, MOST_ANSWERS // known))
    lengths = np.array([len(words) for words in texts], np.int64)
    if len(texts) <= most and lengths.sum() <= MOST_WORDS:
        return list(range(len(texts)))
    order = np.random.default_rng(_SEED).permutation(len(texts))[:most]
    within = max(2, int(np.searchsorted(np.cumsum(lengths[order]), MOST_WORDS, side="right")))
    return sorted(order[:within].tolist())

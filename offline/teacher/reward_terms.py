"""The reward's own terms: accuracy, diversity, well-formedness. Each gives 1 for good and 0 for bad."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline.teacher.rewards import RewardBatch, reward_term
from offline.teacher.text_memory import ORDERS, echo_of, ngrams, share_of, words_of

Values = NDArray[np.float32]

# A sample may share this much of its three-word sequences with one training text at no cost.
_SHARED_FREELY = 0.5
# Label words may make up this much of a sample even where the training texts never use them.
_LABEL_WORDS_FREELY = 0.2


@reward_term("accuracy")
def accuracy(batch: RewardBatch) -> Values:
    """The labeller's log-probability of the intended label: 1 when certain, 0 at chance and below."""
    bound = np.log(batch.probabilities.shape[1])
    intended = batch.probabilities[np.arange(len(batch.labels)), batch.labels]
    logs = np.log(np.maximum(intended, 1e-12))
    return np.asarray(1 + np.maximum(logs, -bound) / bound, dtype=np.float32)


@reward_term("new_wording")
def new_wording(batch: RewardBatch) -> Values:
    """Share of the sample's word sequences (2 to 4 words, the mean of the three) that no other sample has.

    Others are the rest of the batch and the recent samples. The counterpart of self-BLEU.
    """
    texts = [words_of(text) for text in batch.whole]
    grams = [[set(ngrams(words, order)) for order in ORDERS] for words in texts]
    holders: dict[tuple[str, ...], int] = {}
    for sample in grams:
        for ngram in set().union(*sample):
            holders[ngram] = holders.get(ngram, 0) + 1
    recent = batch.recent.holders
    values = np.zeros(len(texts), dtype=np.float32)
    for row, sample in enumerate(grams):
        shares = [
            sum(holders[ngram] == 1 and ngram not in recent for ngram in found) / len(found)
            for found in sample
            if found
        ]
        # A single word has no sequence that could be new.
        values[row] = np.mean(shares) if shares else 0.0
    return values


@reward_term("new_meaning")
def new_meaning(batch: RewardBatch) -> Values:
    """How far the sample's embedding is from its nearest fellow of the same label.

    1 where it is as far as training texts are from theirs (the median), 0 where they are the same.
    """
    embeddings, labels = batch.embeddings, batch.labels
    if batch.recent.words:
        embeddings = np.concatenate([embeddings, batch.recent.embeddings])
        labels = np.concatenate([labels, batch.recent.labels])
    similarity = batch.embeddings @ embeddings.T
    similarity[batch.labels[:, None] != labels[None, :]] = -1.0
    np.fill_diagonal(similarity, -1.0)
    usual = max(1 - batch.training.nearest, 1e-3)
    return np.asarray(np.clip((1 - similarity.max(1)) / usual, 0, 1), dtype=np.float32)


@reward_term("no_copy")
def no_copy(batch: RewardBatch) -> Values:
    """1 unless the sample says what one training text says; 0 for a copy.

    It falls from 1 as more than half of the sample's three-word sequences are found in one training text. A
    pair gets no more than the mean of its two texts, each held against the texts of its side: the first
    text of one example and the second of another are two copies. Nor does it get more than what its second text has
    beside the first, if more of it is the first's than is usual in training pairs: the same text twice is a copy.
    """
    values = np.array([_new(batch.training.known.share_of(text)) for text in batch.whole])
    if batch.training.sides is not None and batch.pairs is not None:
        first, second = batch.training.sides
        of_sides = [
            (_new(first.share_of(text)) + _new(second.share_of(pair))) / 2
            for text, pair in zip(batch.texts, batch.pairs, strict=True)
        ]
        values = np.minimum(values, of_sides)
        usual = max(batch.training.echo, _SHARED_FREELY)
        echoes = [echo_of(text, pair) for text, pair in zip(batch.texts, batch.pairs, strict=True)]
        values = np.minimum(
            values, [1.0 if echo <= usual else (1 - echo) / (1 - usual) for echo in echoes]
        )
    return np.asarray(values, dtype=np.float32)


@reward_term("no_copy_unlabelled")
def no_copy_unlabelled(batch: RewardBatch) -> Values:
    """As `no_copy`, for the unlabelled texts, which the miniature generator reads too; pairs as a whole.

    It counts where it is given a weight. Copies of unlabelled texts never become knowledge (`copy` and
    `near_copy` in `offline.teacher.quality`), they are samples lost.
    """
    known = batch.training.unlabelled
    return np.array([_new(known.share_of(text)) for text in batch.whole], dtype=np.float32)


@reward_term("length")
def length(batch: RewardBatch) -> Values:
    """1 for the usual length of a training text (the middle 90 %), falling outside; 0 if cut off.

    Below, it falls in proportion; above, in inverse proportion to the length.
    """
    _, low, high, _ = batch.training.lengths
    counts = np.array([len(words_of(text)) for text in batch.whole], dtype=np.float32)
    inside = np.minimum(counts / max(low, 1.0), np.maximum(high, 1.0) / np.maximum(counts, 1.0))
    return np.asarray(np.minimum(inside, 1.0) * batch.complete, dtype=np.float32)


@reward_term("no_repetition")
def no_repetition(batch: RewardBatch) -> Values:
    """Share of the sample's word pairs that are the first of their kind in it, squared."""
    return np.array([_first_pairs(words_of(text)) ** 2 for text in batch.whole], dtype=np.float32)


@reward_term("no_label_words")
def no_label_words(batch: RewardBatch) -> Values:
    """1 while the label's words are no larger a share of the sample than training texts have; 0 if they are all."""
    values = np.empty(len(batch.labels), dtype=np.float32)
    for row, (text, label) in enumerate(zip(batch.whole, batch.labels, strict=True)):
        usual = max(float(batch.training.label_words[label]), _LABEL_WORDS_FREELY)
        share = share_of(words_of(text), batch.label_words[label])
        values[row] = 1.0 if share <= usual else (1 - share) / (1 - usual)
    return values


def _new(share: float) -> float:
    return min(1.0, (1 - share) / (1 - _SHARED_FREELY))


def _first_pairs(words: Sequence[str]) -> float:
    pairs = ngrams(words, 2)
    return len(set(pairs)) / len(pairs) if pairs else 1.0

"""How different generated texts are from each other and from the training data."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

from offline.tasks.normal_form import letters_and_digits

SELF_BLEU_SAMPLES = 1000
_ORDER = 4


def self_bleu(
    texts: Sequence[str], labels: Sequence[str], *, seed: int, samples: int = SELF_BLEU_SAMPLES
) -> float:
    """Self-BLEU-4 in [0, 1]: the mean sentence BLEU of each of 1,000 samples against the other 999.

    Zhu et al. 2018, "Texygen". Sentence BLEU is sacrebleu's: 13a tokens, here in lower case, exponential
    smoothing (method 3 of Chen and Cherry 2014), effective order, so that a text of two words is
    judged on one- and two-word sequences. The value depends on how many samples there are: compare
    only where all 1,000 are.

    Args:
        texts: n texts; pairs joined by the caller.
        labels: n labels, by which the samples are stratified: as many of each as there are, the same
            number where there are enough.
        seed: of the choice of samples.
        samples: how many are compared; all where there are fewer.

    The counts are shared: a reference n-gram counts as often as in the text that has it most often, so
    the largest count, its holder and the second largest are all that is needed for each n-gram.
    """
    rows = stratified_rows(labels, samples, seed)
    if len(rows) < 2:
        return 0.0
    tokenize = _tokenizer()
    counted = [
        extract_all_word_ngrams(tokenize(texts[row].lower().strip()), 1, _ORDER) for row in rows
    ]
    largest: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for place, (ngrams, _) in enumerate(counted):
        for ngram, count in ngrams.items():
            most, holder, second = largest.get(ngram, (0, -1, 0))
            if count > most:
                largest[ngram] = (count, place, most)
            elif count > second:
                largest[ngram] = (most, holder, count)
    lengths = Counter(length for _, length in counted)
    scores = []
    for place, (ngrams, length) in enumerate(counted):
        correct, total = [0] * _ORDER, [0] * _ORDER
        for ngram, count in ngrams.items():
            most, holder, second = largest[ngram]
            order = len(ngram) - 1
            total[order] += count
            correct[order] += min(count, second if holder == place else most)
        reference = _closest_length(length, lengths)
        score = BLEU.compute_bleu(
            correct, total, length, reference, smooth_method="exp", effective_order=True
        )
        scores.append(score.score / 100)
    return float(np.mean(scores))


def stratified_rows(labels: Sequence[str], samples: int, seed: int) -> list[int]:
    """Rows of a sample with the same number of each label, as far as there are enough; ascending."""
    random = np.random.default_rng(seed)
    by_label: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    # A label's rows in random order, then the labels in turn: first rows first.
    turns: list[tuple[int, int, int]] = []
    for position, label in enumerate(sorted(by_label)):
        rows = by_label[label]
        order = random.permutation(len(rows))
        turns.extend((turn, position, rows[place]) for turn, place in enumerate(order))
    return sorted(row for _, _, row in sorted(turns)[:samples])


def distinct_share(texts: Sequence[str]) -> float:
    """Distinct texts as a share of all, compared on letters and digits; 1 where there is no text."""
    return len(set(map(letters_and_digits, texts))) / len(texts) if texts else 1.0


def copy_share(texts: Sequence[str], training_texts: Iterable[str]) -> float:
    """Share of `texts` that are copies of a training text, compared on letters and digits."""
    known = set(map(letters_and_digits, training_texts))
    return sum(letters_and_digits(text) in known for text in texts) / len(texts) if texts else 0.0


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words as a share of all of them (Li et al. 2016); 1 where there is none.

    Words are 13a tokens in lower case. The value falls with the number of texts.
    """
    tokenize = _tokenizer()
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = tokenize(text.lower()).split()
        found.update(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
    return len(found) / found.total() if found else 1.0


def _tokenizer() -> Callable[[str], str]:
    tokenize: Callable[[str], str] = BLEU(tokenize="13a").tokenizer
    return tokenize


def _closest_length(length: int, lengths: Counter[int]) -> int:
    """Length nearest to `length` among the other texts, the shorter of two equally near."""
    if lengths[length] > 1:
        return length
    others = (other for other in lengths if other != length)
    return min(others, key=lambda other: (abs(other - length), other), default=length)

"""Cross-fitting folds and temperature scaling: probabilities that mean what they say."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)

_LOG_TEMPERATURES = (-5.0, 5.0)
_HALVINGS = 24


def softmax(logits: NDArray[Float]) -> NDArray[Float]:
    """Over the last axis; logits in their precision."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    normalised: NDArray[Float] = powers / powers.sum(-1, keepdims=True)
    return normalised


def assign_folds(
    labels: NDArray[np.int64], forms: Sequence[str], folds: int, seed: int
) -> NDArray[np.int64]:
    """(n,) fold of every row, each label spread evenly; rows with the same text or first text stay together.

    Pairs that share their first text are often near-copies of each other with different labels (a premise and
    its choices): judged by a head that saw its sibling, a row would look like the other label.

    Args:
        labels: (n,) positions of the labels.
        forms: n normal forms of the texts or pairs, so that a text is never judged by its own copy.
        folds: how many; fewer are used where the rarest label has fewer distinct texts, but two at least.
        seed: of the shuffle.
    """
    random = np.random.default_rng(seed)
    first = [form.partition("\x00")[0] for form in forms]
    members = [
        sorted({first[int(row)] for row in np.flatnonzero(labels == label)})
        for label in np.unique(labels)
    ]
    folds = max(2, min(folds, min(map(len, members))))
    fold_of: dict[str, int] = {}
    start = 0
    for distinct in members:
        counts = Counter(fold_of[form] for form in distinct if form in fold_of)
        for place, row in enumerate(random.permutation(len(distinct))):
            if (form := distinct[row]) not in fold_of:
                turns = [(start + place + turn) % folds for turn in range(folds)]
                fold_of[form] = min(turns, key=lambda fold: counts[fold])
                counts[fold_of[form]] += 1
        start += len(distinct)
    return np.array([fold_of[form] for form in first], dtype=np.int64)


def fit_temperature(logits: NDArray[np.float64], gold: NDArray[np.int64]) -> float:
    """The temperature that makes `softmax(logits / temperature)` most likely, between e⁻⁵ and e⁵.

    The likelihood is concave in 1 / temperature, so the zero of its slope is found by halving. A share of
    1 / (n + 1) of each gold label is spread over all labels, much as Platt (1999) does: without it, rows that
    happen to be told apart without a mistake would make every probability 0 or 1.

    Args:
        logits: (n, labels), of rows that the model was not fitted on.
        gold: (n,) positions of the gold labels.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    spread = 1 / (len(gold) + 1)
    of_gold = (1 - spread) * logits[np.arange(len(gold)), gold].mean() + spread * logits.mean()
    low, high = _LOG_TEMPERATURES
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (softmax(logits / np.exp(middle)) * logits).sum(1).mean()
        # Sharper than this raises the likelihood as long as the gold logit is above what is expected.
        if of_gold > expected:
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def cross_fitted_probabilities(
    logits: NDArray[np.float64], gold: NDArray[np.int64], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n, labels) calibrated probabilities, the temperature of each fold fitted on the others.

    Args:
        logits: (n, labels), each row by a model that did not see its fold.
        gold: (n,) positions of the gold labels.
        folds: (n,) fold of every row.
    """
    probabilities = np.empty_like(logits)
    for fold in np.unique(folds):
        inside = folds == fold
        temperature = fit_temperature(logits[~inside], gold[~inside])
        probabilities[inside] = softmax(logits[inside] / temperature)
    return probabilities

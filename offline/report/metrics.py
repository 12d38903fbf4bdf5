"""Figures of a classifier: accuracy, macro-F1, negative log-likelihood, calibration error."""

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32] | NDArray[np.float64]

ECE_BINS = 15
_SMALLEST = 1e-12


def accuracy(probabilities: Probabilities, gold: NDArray[np.int64]) -> float:
    """Share of rows whose most probable label is the gold one.

    Args:
        probabilities: (n, labels).
        gold: (n,) positions of the gold labels.
    """
    return float(np.mean(probabilities.argmax(1) == gold))


def macro_f1(probabilities: Probabilities, gold: NDArray[np.int64]) -> float:
    """Mean of the F1 of every label that occurs as gold or as an answer.

    Args:
        probabilities: (n, labels).
        gold: (n,) positions of the gold labels.
    """
    answers = probabilities.argmax(1)
    size = probabilities.shape[1]
    right = np.bincount(gold[answers == gold], minlength=size)
    both = np.bincount(gold, minlength=size) + np.bincount(answers, minlength=size)
    occurring = both > 0
    return float(np.mean(2 * right[occurring] / both[occurring]))


def negative_log_likelihood(probabilities: Probabilities, gold: NDArray[np.int64]) -> float:
    """Mean of -log p(gold), in nats; probabilities below 1e-12 count as 1e-12.

    Args:
        probabilities: (n, labels).
        gold: (n,) positions of the gold labels.
    """
    of_gold = probabilities[np.arange(len(gold)), gold].astype(np.float64)
    return float(-np.log(np.maximum(of_gold, _SMALLEST)).mean())


def expected_calibration_error(probabilities: Probabilities, gold: NDArray[np.int64]) -> float:
    """Expected calibration error of the top label, with 15 bins of equal width over (0, 1].

    The mean over rows of |accuracy - confidence| of the row's bin (Guo et al. 2017, "On Calibration
    of Modern Neural Networks", equation 3); bins are open to the left, as theirs are.

    Args:
        probabilities: (n, labels).
        gold: (n,) positions of the gold labels.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == gold
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, right - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(gold))


def figures(probabilities: Probabilities, gold: NDArray[np.int64]) -> dict[str, float]:
    """All of them, rounded to six places, under the names that reports use."""
    return {
        "accuracy": round(accuracy(probabilities, gold), 6),
        "macro_f1": round(macro_f1(probabilities, gold), 6),
        "nll": round(negative_log_likelihood(probabilities, gold), 6),
        "ece": round(expected_calibration_error(probabilities, gold), 6),
    }

"""How sure the labeller is of an item, and what training makes of it: weights and a curriculum.

An item's confidence is 1 - H(y) / ln L, with the entropy H of its soft label y over L labels: 1 for a
single label, 0 for all alike. Weights are its powers; the curriculum admits the confident first
(Bengio et al. 2009, "Curriculum learning").
"""

import numpy as np
from numpy.typing import NDArray

_FIRST = 0.5
"""Share of each label's items that a curriculum begins with."""


def confidences(soft_labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) between 0 and 1, of soft labels (n, L) of at least two labels."""
    shares = soft_labels.astype(np.float64)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1)
    sure: NDArray[np.float64] = np.clip(1 - entropy / np.log(soft_labels.shape[1]), 0, 1)
    return sure


def confidence_weights(soft_labels: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """(n,): what each item's losses weigh, of mean 1 over all items.

    Args:
        soft_labels: (n, L).
        power: of the confidence; 0 makes all weights 1. So they are where no item tells anything.
    """
    weights = confidences(soft_labels) ** power
    mean = weights.mean()
    return np.asarray(weights / mean if mean > 0 else np.ones_like(weights), dtype=np.float32)


def curriculum_places(soft_labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,): the share of its label's items that are more confident, from 0 to less than 1.

    An item's label is its likeliest one. Within labels, so that none has to wait for the others.
    """
    sure, labels = confidences(soft_labels), soft_labels.argmax(1)
    order = np.lexsort((-sure, labels))
    counts = np.bincount(labels, minlength=soft_labels.shape[1])
    first = np.cumsum(counts) - counts
    places = np.empty(len(labels))
    places[order] = (np.arange(len(labels)) - first[labels[order]]) / counts[labels[order]]
    return places


def admitted(step: int, steps: int, curriculum: float) -> float:
    """Items below this place are trained on after `step` of `steps`: from one half linearly to all.

    Args:
        step: steps that are done.
        steps: of the training.
        curriculum: share of the steps until all items are admitted; 0 admits all at once.
    """
    until = curriculum * steps
    return 1.0 if step >= until else _FIRST + (1 - _FIRST) * step / until

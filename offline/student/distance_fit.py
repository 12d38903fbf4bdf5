"""The distance from the store beyond which a text counts as unlike the task's own: `distance_threshold` of a bundle.

It is fitted on validation rows, which neither student nor store has seen. A task without 20 of them has the store's
items, each looked up without itself and its copies. Labelled rows alone would not do: the student was trained on them,
so that they lie nearer to the store than a user's text (on banking77, 10 rows a label, 19 % of left-over training rows
were beyond the threshold of the labelled ones). Generated samples are scattered more widely, which makes up for that:
2 % were beyond theirs. Such a threshold flags a little too seldom.
"""

import numpy as np

from offline.student.items import TrainingItems
from offline.student.mixing_fit import nearest_items
from services.student.encoder import OnnxEncoder
from services.student.out_of_distribution import neighbour_distance

SHARE_WITHIN = 0.95
"""Of the rows, how many lie within the threshold."""

LEAST_ROWS = 20
"""Fewer have no twentieth."""

MOST_ITEMS = 2000
"""Of the store's that are looked up, where there are no validation rows."""


def fit_distance_threshold(
    encoder: OnnxEncoder, store: TrainingItems, validation: TrainingItems | None, k: int
) -> float | None:
    """The `neighbour_distance` within which 95 of 100 rows lie; None where neither kind has 20 rows.

    Args:
        encoder: the exported student.
        store: its items.
        validation: rows of the task that the student was not trained on; with less than 20, or None, the
            store's items take their place.
        k: neighbours that an answer is mixed from.
    """
    rows = validation
    if rows is None or len(rows) < LEAST_ROWS:
        rows = _some(store)
    if len(rows) < LEAST_ROWS:
        return None
    _, vectors = encoder.encode(store.texts, store.pairs)
    _, queries = encoder.encode(rows.texts, rows.pairs)
    copies = rows.copies_of(store)
    similarities, _ = nearest_items(queries, vectors, store.soft_labels, k, copies)
    return round(float(np.quantile(neighbour_distance(similarities), SHARE_WITHIN)), 6)


def _some(store: TrainingItems) -> TrainingItems:
    """Items from all of the store's, at even steps: they are in the order of their origins."""
    return store.take(np.arange(0, len(store), max(1, -(-len(store) // MOST_ITEMS))))

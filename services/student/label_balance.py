"""Weights of labels that came after the student's training, by which a few items count among thousands.

A label that was added with ten sentences is up against hundreds of items of each other label: among the k nearest
there are at most ten of its own, so that its share of the store's answer stays small however near they
are. The store's distribution is therefore corrected for how often each label occurs in the store, as a classifier
is for priors that differ from those it was fitted with (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a
classifier to new a priori probabilities", Neural Computation 14, 2002): `p'(y) ∝ p(y) · w(y)`, where
`w(y) = (mean items a known label / items of y) ** balance(y)` for a new label and 1 for those that the student knows.

How far to go, from 0 (not at all) to 1 (all the way), is the release's, for each label (`offline.knowledge.balances`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def label_weights(
    items: NDArray[np.float64], known: int, balances: Sequence[float]
) -> NDArray[np.float32] | None:
    """(L,) what soft labels of neighbours are multiplied by before they are mixed; None where all weigh 1.

    Args:
        items: (L,) how many items each label has: the sum of its probabilities in the soft-label matrix.
        known: how many labels, the first ones, the student knows.
        balances: of the release; L - `known` of them, or none.
    """
    if not any(balances):
        return None
    weights = np.ones(len(items))
    usual = items[:known].mean()
    weights[known:] = np.maximum(1.0, usual / np.maximum(items[known:], 1e-6)) ** np.array(balances)
    return weights.astype(np.float32)

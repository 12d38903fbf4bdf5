"""Candidates mined from an index of all items: what a row would be served, and where the labeller's
labels disagree, the hardest to tell apart (ANCE; Xiong et al. 2021, "Approximate nearest neighbor
negative contrastive learning for dense text retrieval").

The index is made of all items' vectors by the student as it is every so many steps. Between two such
refreshes an item's neighbours stay the same, and so do their vectors, as in a store between two builds.
"""

import torch
from torch import Tensor

from offline.student.retrieval_loss import Batch, RetrievalConfig

_SCORES_AT_ONCE = 1 << 23
"""Cosines that are held at a time: 32 MB."""


class MinedCandidates:
    """The nearest others of each item by the vectors of the last refresh.

    Attributes:
        index: all items with those vectors; None before the first refresh.
    """

    def __init__(
        self, texts: Tensor, embeddings: Tensor, soft_labels: Tensor, config: RetrievalConfig
    ) -> None:
        """Nothing is found before a refresh.

        Args:
            texts: (n,) equal numbers for equal texts.
            embeddings: (n, D) unit vectors by the labeller.
            soft_labels: (n, L).
            config: how many an item finds, and how often the index is made anew.
        """
        self._items = (texts, embeddings, soft_labels)
        self._config = config
        self.index: Batch | None = None

    def due(self, step: int) -> bool:
        """Whether a refresh comes before this step, the first being 1."""
        return step > 1 and (step - 1) % self._config.refresh == 0

    def refresh(self, queries: Tensor) -> None:
        """Search by these from now on: (n, d) unit vectors of all items, without gradients."""
        texts, embeddings, soft_labels = self._items
        self.index = Batch(texts, queries, embeddings, soft_labels)

    def of(self, rows: Tensor) -> Batch | None:
        """What the items at positions (b,) find, each once; None before the first refresh."""
        if self.index is None:
            return None
        found = nearest_others(self.index, rows, self._config.mined)
        found = found[found >= 0].unique()  # type: ignore[no-untyped-call]
        return Batch(*(part[found] for part in self.index))


def nearest_others(index: Batch, rows: Tensor, count: int) -> Tensor:
    """Exact search: (b, count) positions of the nearest items of other texts, best first.

    Args:
        index: n items.
        rows: (b,) positions of those that search.
        count: neighbours; where there are fewer, positions are padded with -1.
    """
    positions = torch.full((len(rows), count), -1)
    found = min(count, len(index.texts))
    for start in range(0, len(rows), at_once := max(1, _SCORES_AT_ONCE // len(index.texts))):
        block = rows[start : start + at_once]
        same = index.texts[block][:, None] == index.texts
        scores = (index.queries[block] @ index.queries.T).masked_fill(same, -torch.inf)
        best, where = scores.topk(found, dim=1)
        positions[start : start + at_once, :found] = where.masked_fill(best == -torch.inf, -1)
    return positions

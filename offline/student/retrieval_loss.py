"""The retrieval loss: a student learns to find the items whose teacher labels help it.

Two parts, over the same candidates (the rest of the batch, the items of the last few batches, whose
vectors are a little old but cost nothing; Wang et al. 2020, "Cross-batch memory"; and those that
`offline.student.mined_candidates` found in all items, where it is asked to):

*Relevance*. The student's similarity distribution over the candidates is matched to the labeller's,
    KL( softmax(e·e_j / t_r + ln⟨y, y_j⟩) ‖ softmax(q·q_j / t) ),
with the labeller's embeddings e and soft labels y: near in meaning, and of labels that agree.

*Answer*. What would be served is made right: the soft labels of the candidates, weighed by the student's
similarities, are the store's distribution, and its cross-entropy to the row's own soft label is
lowered (neighbourhood components, Goldberger et al. 2004, with soft labels).

A row never finds itself, nor another row with the same text, as long as there is any other candidate.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from offline.configs.section import Section

_SMALLEST = 1e-6
_NEVER = -1e4


class RetrievalConfig(Section):
    """How the student learns to retrieve.

    Attributes:
        relevance_weight: of the relevance part; 0 leaves it out.
        answer_weight: of the answer part; 0 leaves it out.
        candidates: how many of the latest items a batch may find, beside itself.
        mined: how many of its nearest items in all that is trained on each row of a batch brings in
            beside them; 0 for none.
        refresh: steps after which the vectors that these are searched by are made anew; before the
            first `refresh` steps there are none.
        temperature: of the student's similarities.
        relevance_temperature: of the labeller's.
    """

    relevance_weight: Annotated[float, Field(ge=0)] = 0.0
    answer_weight: Annotated[float, Field(ge=0)] = 1.0
    candidates: Annotated[int, Field(ge=0)] = 2048
    mined: Annotated[int, Field(ge=0)] = 0
    refresh: Annotated[int, Field(ge=1)] = 100
    temperature: Annotated[float, Field(gt=0)] = 0.1
    relevance_temperature: Annotated[float, Field(gt=0)] = 0.1


class Batch(NamedTuple):
    """Items and their query vectors.

    Attributes:
        texts: (b,) equal numbers for equal texts.
        queries: (b, d) unit vectors by the student.
        embeddings: (b, D) unit vectors by the labeller.
        soft_labels: (b, L).
    """

    texts: Tensor
    queries: Tensor
    embeddings: Tensor
    soft_labels: Tensor


class RetrievalLoss:
    """Keeps the latest items as candidates.

    Attributes:
        latest: at most `candidates` of them, without gradients; None before the first batch.
    """

    def __init__(self, config: RetrievalConfig) -> None:
        self._config = config
        self.latest: Batch | None = None

    def __call__(
        self, batch: Batch, mined: Batch | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The two parts, each a mean over the batch; the batch then joins the candidates.

        The relevance is 0 where it has no weight; the answer is always computed.

        Args:
            batch: b items.
            mined: further candidates for this batch alone; those that it or the latest items have
                are left out.
            weights: (b,) of the items in the means; None for 1 each.
        """
        config = self._config
        if not config.relevance_weight:
            # Most of what a candidate takes, and only that part reads them.
            batch = _without_embeddings(batch)
        found = batch if self.latest is None else _joined(batch, self.latest)
        if mined is not None:
            found = _joined(found, self._new(mined, found))
        if weights is None:
            weights = batch.queries.new_ones(len(batch.texts))
        same = batch.texts[:, None] == found.texts
        scores = (batch.queries @ found.queries.T / config.temperature).masked_fill(same, _NEVER)
        logarithms = functional.log_softmax(scores, dim=1)
        relevance = scores.new_zeros(())
        if config.relevance_weight:
            relevance = self._relevance(batch, found, same, logarithms, weights)
        store = logarithms.exp() @ found.soft_labels
        answer = -(weights * (batch.soft_labels * (store + _SMALLEST).log()).sum(1)).mean()
        latest = _joined(batch._replace(queries=batch.queries.detach()), self.latest)
        self.latest = Batch(*(part[: config.candidates] for part in latest))
        return relevance, answer

    def _new(self, mined: Batch, found: Batch) -> Batch:
        new = ~torch.isin(mined.texts, found.texts)
        if not self._config.relevance_weight:
            mined = _without_embeddings(mined)
        return Batch(*(part[new] for part in mined))

    def _relevance(
        self, batch: Batch, found: Batch, same: Tensor, logarithms: Tensor, weights: Tensor
    ) -> Tensor:
        near = batch.embeddings @ found.embeddings.T / self._config.relevance_temperature
        agreeing = (batch.soft_labels @ found.soft_labels.T + _SMALLEST).log()
        target = torch.softmax((near + agreeing).masked_fill(same, _NEVER), dim=1)
        parts = functional.kl_div(logarithms, target, reduction="none")
        return (weights[:, None] * parts).sum() / len(parts)


def _without_embeddings(batch: Batch) -> Batch:
    return batch._replace(embeddings=batch.embeddings[:, :0])


def _joined(batch: Batch, latest: Batch | None) -> Batch:
    if latest is None:
        return batch
    return Batch(*(torch.cat(parts) for parts in zip(batch, latest, strict=True)))

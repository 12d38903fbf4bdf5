"""The knowledge of a task: which texts become items, and the soft label of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from offline.configs.section import Section
from offline.teacher.quality import QualityConfig
from offline.teacher.soft_labels import joined
from services.store.knowledge_file import Knowledge, KnowledgeMetadata, fixed_lists

EMBEDDINGS = "embeddings.npy"
"""Beside a knowledge file: its items' embeddings by the labeller, (items, D), where a stage kept them."""


class KnowledgeConfig(Section):
    """What becomes knowledge.

    Attributes:
        quality: which generated samples are kept.
        generated: whether generated samples are items; without them, none is labelled or screened.
        train: whether the labelled rows of the run are items.
        unlabelled: whether the unlabelled texts are.
        gold_trust: how often a gold label is taken to be right; see `gold_and_labeller`.
    """

    quality: QualityConfig = QualityConfig()
    generated: bool = True
    train: bool = True
    unlabelled: bool = True
    gold_trust: Annotated[float, Field(gt=0, lt=1)] = 0.9


@dataclass(frozen=True, slots=True)
class Items:
    """Knowledge items of one origin.

    Attributes:
        origin: `generated`, `train` or `unlabelled`.
        texts: n texts.
        pairs: n second texts, or None.
        labels: n labels that they were written for, or gold labels; None for unlabelled texts.
        soft_labels: (n, labels) float32.
        embeddings: (n, d) float32, by the labeller.
        nearest: (n,) cosine to the nearest item that was kept before; None where it was not looked for.
    """

    origin: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | None
    soft_labels: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    nearest: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def joined(self) -> list[str]:
        """Each item as one text."""
        return joined(self.texts, self.pairs)

    def take(self, rows: Sequence[int]) -> "Items":
        """The items at `rows`, in that order."""

        def of(column: list[str] | None) -> list[str] | None:
            return None if column is None else [column[row] for row in rows]

        index = np.asarray(rows, dtype=np.int64)
        return Items(
            self.origin,
            [self.texts[row] for row in rows],
            of(self.pairs),
            of(self.labels),
            self.soft_labels[index],
            self.embeddings[index],
            None if self.nearest is None else self.nearest[index],
        )


def positions(named: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """(n,) places of the `named` labels among `labels`."""
    place = {label: number for number, label in enumerate(labels)}
    return np.array([place[label] for label in named], dtype=np.int64)


def gold_and_labeller(
    cross_fitted: NDArray[np.float32], gold: NDArray[np.int64], trust: float
) -> NDArray[np.float32]:
    """Soft labels of labelled rows: what labeller and gold label say together.

    The labeller's own probabilities would not do: it was fitted on these rows. So its cross-fitted ones
    are the prior, and the gold label is an observation that is right with probability `trust` and
    otherwise any other label: `p(y | x, gold) ∝ p(y | x) · (trust if y = gold else (1 - trust) / (L - 1))`.
    Wrong gold labels are softened where the labeller strongly disagrees, and the labels that a text
    is close to keep some of the probability.

    As labels of the neighbours of other training rows (k = 8 to 32 of helpdesk, trec and emotion), these
    had the lowest negative log-likelihood together with the labeller's own; gold labels alone and
    cross-fitted ones alone were worse, by 0.02 to 0.15.

    Args:
        cross_fitted: (n, L) probabilities by heads that did not see the row.
        gold: (n,) positions of the gold labels.
        trust: probability that a gold label is right.
    """
    labels = cross_fitted.shape[1]
    likelihood = np.full(cross_fitted.shape, (1 - trust) / (labels - 1))
    likelihood[np.arange(len(gold)), gold] = trust
    # A gold label that the labeller rules out altogether still counts.
    joint = np.maximum(cross_fitted, 1e-6) * likelihood
    together: NDArray[np.float32] = (joint / joint.sum(1, keepdims=True)).astype(np.float32)
    return together


def knowledge_of(
    parts: Sequence[Items], metadata: KnowledgeMetadata, *, labeller: str, generator: str | None
) -> Knowledge:
    """Parts, in order, as the content of a knowledge file without vectors.

    Args:
        parts: items by origin.
        metadata: task and labels.
        labeller: identity of the labeller.
        generator: identity of the generator, given to generated items.
    """
    return Knowledge(
        metadata,
        pa.concat_tables(
            [_table(part, metadata, labeller, generator) for part in parts]
        ).set_column(0, "id", pa.array(np.arange(sum(map(len, parts)), dtype=np.int64))),
    )


def _table(
    items: Items, metadata: KnowledgeMetadata, labeller: str, generator: str | None
) -> pa.Table:
    count = len(items)
    return pa.table(
        {
            "id": pa.array(np.arange(count, dtype=np.int64)),
            "text": pa.array(items.texts, pa.string()),
            "text_pair": _strings(items.pairs, count),
            "label": _strings(items.labels, count),
            "soft_label": fixed_lists(items.soft_labels),
            "origin": pa.array([items.origin] * count, pa.string()),
            "generator": _strings(
                [generator] * count if generator and items.origin == "generated" else None, count
            ),
            "labeller": pa.array([labeller] * count, pa.string()),
            "quality": pa.array(_qualities(items, metadata.labels), _QUALITY),
        }
    )


def _strings(values: list[str] | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if values is None else pa.array(values, pa.string())


_QUALITY = pa.map_(pa.string(), pa.float32())


def _qualities(items: Items, labels: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Named scores: `confidence`, `agreement` (probability of its label), `nearest`."""
    places = None if items.labels is None else positions(items.labels, labels)
    found: list[list[tuple[str, float]]] = []
    for row in range(len(items)):
        scores = [("confidence", float(items.soft_labels[row].max()))]
        if places is not None:
            scores.append(("agreement", float(items.soft_labels[row, places[row]])))
        if items.nearest is not None:
            scores.append(("nearest", float(items.nearest[row])))
        found.append(scores)
    return found

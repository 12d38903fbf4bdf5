"""Which samples that were written for the labels of an edit come in with it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.knowledge.journal import AddedItem, item_keys, loose_forms
from offline.teacher.labeller import Labeller
from offline.teacher.quality import QualityConfig, screen
from offline.teacher.soft_labels import joined


@dataclass(frozen=True, slots=True)
class WrittenSamples:
    """What came of it.

    Attributes:
        items: the samples that are kept, each with the label it was written for and the labeller's soft label.
        figures: how many were `written`, how many `kept` by label, and how many `dropped` by reason.
        warnings: what a person should know.
    """

    items: tuple[AddedItem, ...]
    figures: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sieve:
    """What samples are screened by.

    Attributes:
        labeller: that knows all labels.
        words: of its labels.
        texts, embeddings: (n) known texts, pairs joined, and the labeller's embeddings (n, d) of them.
        keys: of the live release's items.
        held_out: loose forms of the rows of the validation and the test split.
        quality: thresholds.
    """

    labeller: Labeller
    words: tuple[str, ...]
    texts: list[str]
    embeddings: NDArray[np.float32]
    keys: frozenset[str]
    held_out: frozenset[str]
    quality: QualityConfig

    def __call__(
        self,
        written: pa.Table,
        left_out: Mapping[str, int],
        wanted: Sequence[str],
        generator: str,
        *,
        pair: bool,
    ) -> WrittenSamples:
        """The samples that pass.

        Args:
            written, left_out: complete samples, and how many of the others there were; see `gathered`.
            wanted: labels that they were written for.
            generator: identity of what wrote them.
            pair: whether they are pairs.
        """
        texts: list[str] = written["text"].to_pylist()
        pairs: list[str] | None = written["text_pair"].to_pylist() if pair else None
        asked: list[str] = written["label"].to_pylist()
        labeller, dropped = self.labeller, Counter(left_out)
        items: list[AddedItem] = []
        if texts:
            embeddings = labeller.embed(texts, pairs)
            soft = labeller.soft_labels(texts, pairs, embeddings=embeddings)
            screened = screen(
                joined(texts, pairs),
                np.array([labeller.labels.index(label) for label in asked]),
                embeddings,
                soft,
                known_texts=self.texts,
                known_embeddings=self.embeddings,
                label_texts=self.words,
                config=self.quality,
            )
            dropped.update(screened.counts())
            keys, loose = item_keys(texts, pairs), loose_forms(texts, pairs)
            kept = [
                row
                for row in screened.kept
                if keys[row] not in self.keys and loose[row] not in self.held_out
            ]
            dropped["known"] += len(screened.kept) - len(kept)
            items = [
                AddedItem(
                    text=texts[row],
                    text_pair=None if pairs is None else pairs[row],
                    label=asked[row],
                    probabilities=dict(zip(labeller.labels, map(float, soft[row]), strict=True)),
                    generator=generator,
                    labeller=labeller.identity,
                    nearest=float(screened.nearest[row]),
                )
                for row in kept
            ]
        counts = {label: sum(item.label == label for item in items) for label in wanted}
        return WrittenSamples(
            tuple(items),
            {
                "written": len(texts) + sum(left_out.values()),
                "kept": counts,
                "dropped": {reason: number for reason, number in dropped.items() if number},
            },
            tuple(
                f"none of the samples written for {label!r} was fit to be kept"
                for label, number in counts.items()
                if not number
            ),
        )

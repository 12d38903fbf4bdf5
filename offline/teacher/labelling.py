"""Labelling many texts in shards: the labeller's embedding and soft label of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.teacher.labeller import load_labeller
from services.store.knowledge_schema import fixed_lists, list_matrix

SHARD_SIZE = 512
"""Texts of a shard. Texts of like length share a batch within it, so that it is not to be small."""


@dataclass(frozen=True, slots=True)
class TextShard:
    """Texts that are labelled together, whatever the others are.

    Attributes:
        name: of the files that keep it.
        texts: n texts.
        pairs: n second texts, or None.
    """

    name: str
    texts: list[str]
    pairs: list[str] | None


@dataclass(frozen=True, slots=True)
class Labelling:
    """Labelling shards with the labeller of a finished stage (see `offline.pipeline.shards.Work`).

    Attributes:
        labeller: directory of the labeller stage.
    """

    labeller: Path

    def start(self) -> Callable[[TextShard], pa.Table]:
        """Load the labeller; what is returned gives a shard's `embedding` and `soft_label`, a row a text."""
        labeller = load_labeller(self.labeller)

        def labelled(shard: TextShard) -> pa.Table:
            embeddings = labeller.embed(shard.texts, shard.pairs)
            soft = labeller.soft_labels(shard.texts, shard.pairs, embeddings=embeddings)
            return pa.table({"embedding": fixed_lists(embeddings), "soft_label": fixed_lists(soft)})

        return labelled


def text_shards(
    name: str, texts: Sequence[str], pairs: Sequence[str] | None
) -> Iterator[TextShard]:
    """The texts cut into shards: always the same.

    Args:
        name: of these texts among those that a stage labels.
        texts: n texts.
        pairs: n second texts, or None.
    """
    for number, start in enumerate(range(0, len(texts), SHARD_SIZE)):
        rows = slice(start, start + SHARD_SIZE)
        cut = None if pairs is None else list(pairs[rows])
        yield TextShard(f"{name}-{number:05d}", list(texts[rows]), cut)


def joined_shards(
    tables: Sequence[pa.Table],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (n, d) and soft labels (n, L) of all texts of some shards; there is at least one."""
    table = pa.concat_tables(tables)
    return list_matrix(table["embedding"]), list_matrix(table["soft_label"])

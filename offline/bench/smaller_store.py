"""Stage of the benchmark: the candidate of a release whose store holds some of the items, drawn at random.

Student and mixing stay those of the whole store.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from offline.bench.knowledge_part import KNOWLEDGE, origins, write_part
from offline.configs.section import Section
from offline.pipeline.stage import StageContext
from offline.stages import index
from offline.store.config import StoreConfig

NAME = "smaller_store"


class SmallerStoreConfig(Section):
    """How much of the knowledge is kept.

    Attributes:
        items: how many; all of them where there are fewer.
        store: as for the whole store.
    """

    items: Annotated[int, Field(ge=1)]
    store: StoreConfig = StoreConfig()


def run(
    inputs: Mapping[str, Path], config: SmallerStoreConfig, context: StageContext
) -> dict[str, Any]:
    """Write `candidate/`, as the stage `index` does."""
    count = len(origins(inputs["knowledge"]))
    drawn = np.random.default_rng(context.seed).permutation(count)[: config.items]
    part = context.directory / "part"
    part.mkdir()
    write_part(inputs["knowledge"], np.sort(drawn), part)
    metrics = index.run({**inputs, "knowledge": part}, config.store, context)
    for name in (KNOWLEDGE, "embeddings.npy"):
        (part / name).unlink()
    part.rmdir()
    return metrics

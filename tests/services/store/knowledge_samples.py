"""A small knowledge file with clustered vectors, as the store's tests use it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.store.backends.base import HnswParameters
from services.store.knowledge_file import (
    Knowledge,
    KnowledgeMetadata,
    fixed_lists,
    write_knowledge,
)

LABELS = ("refund", "password", "printer")
FINGERPRINT = "sha256:" + "ab" * 32


def unit_vectors(count: int, dimensions: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """Vectors (count, dimensions) of unit length around one centre a label."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(LABELS), dimensions))
    rows = centres[np.arange(count) % len(LABELS)] + random.normal(size=(count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sample_knowledge(count: int, *, pair: bool = False, seed: int = 0) -> Knowledge:
    """Items without vectors."""
    random = np.random.default_rng(seed)
    soft = random.dirichlet(np.ones(len(LABELS)), size=count).astype(np.float32)
    named: list[str | None] = [LABELS[i % len(LABELS)] for i in range(count)]
    named[-1] = None
    table = pa.table(
        {
            "id": np.arange(count),
            "text": [f"text {i} – ünïcode" for i in range(count)],
            "text_pair": [f"pair {i}" if pair else None for i in range(count)],
            "label": named,
            "soft_label": fixed_lists(soft),
            "origin": ["generated" if i % 2 else "train" for i in range(count)],
            "quality": pa.array(
                [[("confidence", 0.5)]] * count, pa.map_(pa.string(), pa.float32())
            ),
        }
    )
    return Knowledge(KnowledgeMetadata(task="toy", labels=LABELS, pair=pair), table)


def write_sample(
    path: Path,
    count: int = 200,
    *,
    seed: int = 0,
    dimensions: int = 16,
    hnsw: HnswParameters | None = None,
) -> Path:
    """A knowledge file with vectors, as the index stage writes it."""
    knowledge = sample_knowledge(count, seed=seed)
    vectors = unit_vectors(count, dimensions, seed)
    write_knowledge(path, knowledge.with_vectors(vectors, FINGERPRINT, hnsw))
    return path

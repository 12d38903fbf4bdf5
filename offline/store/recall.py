"""How much of what is nearest approximate search finds in a store version, for queries as students ask them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline.tasks.prepared import Examples
from services.releases.manifest import BUNDLE, KNOWLEDGE
from services.store.backends.base import StoreBackend, VersionManifest
from services.store.knowledge_file import iterate_points
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder

QUERIES = 256
TIE = 1e-5
"""Scores that are nearer than this are equal: either item may be among the nearest."""

_SIMILARITY = 0.9
"""Of an item's vector to the query that is made of it, on average."""


def version_recall(
    backend: StoreBackend, version: VersionManifest, release_directory: Path, held_out: Examples
) -> float:
    """The recall of a release's store version, at the number of neighbours that its student asks for.

    Args:
        backend: that holds the version.
        version: its manifest.
        release_directory: the release's files; its student encodes the queries.
        held_out: texts that ask; without any, queries near to the items are made up.
    """
    bundle = load_bundle(release_directory / BUNDLE)
    if len(held_out):
        pairs = held_out.pairs[:QUERIES] if held_out.pairs else None
        _, queries = OnnxEncoder.of_bundle(bundle).encode(held_out.texts[:QUERIES], pairs)
    else:
        queries = made_up_queries(release_directory / KNOWLEDGE, version.count)
    return measure_recall(backend, version, queries, bundle.manifest.mixing.k)


def measure_recall(
    backend: StoreBackend, version: VersionManifest, queries: NDArray[np.float32], k: int
) -> float:
    """Share of the k exact nearest items of each query (b, d) that approximate search finds."""
    k = min(k, version.count)
    exact = backend.search(version.version, queries, k, exact=True).scores
    found = backend.search(version.version, queries, k).scores
    return float(np.mean(found >= exact[:, -1:] - TIE))


def made_up_queries(knowledge_file: Path, count: int) -> NDArray[np.float32]:
    """Vectors (b, d) of unit length, each a little off an item's own, which nothing but itself would be nearest to.

    Args:
        knowledge_file: every so many of its items is taken.
        count: how many it has.
    """
    stride = max(1, count // QUERIES)
    rows = [batch.vectors[batch.ids % stride == 0] for batch in iterate_points(knowledge_file)]
    vectors = np.concatenate(rows)[:QUERIES]
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    noise *= np.sqrt(1 / _SIMILARITY**2 - 1) / np.sqrt(vectors.shape[1])
    moved: NDArray[np.float64] = vectors + noise
    queries = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(queries, dtype=np.float32)

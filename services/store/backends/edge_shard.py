"""One Qdrant Edge shard: how it is configured, built, opened and searched.

Whoever opens a shard owns its directory: opening rewrites files and a second owner fails on the
lock. Every call holds the interpreter's lock until it is done.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from services.platform.errors import CorruptArtifact
from services.store.backends.base import (
    PADDING_ID,
    Hits,
    PointBatch,
    StoredItem,
    VersionManifest,
    stored_item,
)
from services.store.backends.layout import Layout, Quantisation

SLICE = 16
"""Queries between two chances for another thread to run; the engine gains nothing from larger batches."""

P = ParamSpec("P")
T = TypeVar("T")


def build_shard(
    directory: Path, manifest: VersionManifest, batches: Iterable[PointBatch], layout: Layout
) -> None:
    """Write all points, then the graph, then flush.

    The graph is built once, at the end: until `optimize` is called the engine builds none.

    Raises:
        CorruptArtifact: the engine refused the points or counts another number of them.
    """
    directory.mkdir()
    shard = engine(directory, edge.EdgeShard.create, str(directory), _config(manifest, layout))
    for batch in batches:
        points = [
            edge.Point(identifier, vector, payload)
            for identifier, vector, payload in zip(
                batch.ids.tolist(), batch.vectors.tolist(), batch.payloads, strict=True
            )
        ]
        operation = edge.UpdateOperation.upsert_points(points)
        engine(directory, shard.update, operation)
    _check_count(shard, manifest, directory)
    engine(directory, shard.optimize)
    engine(directory, shard.flush)
    _check_count(shard, manifest, directory)
    shard.close()


class OpenShard:
    """A shard that this process owns; may be called from several threads.

    Raises:
        CorruptArtifact: the engine cannot open it or counts another number of points.
    """

    def __init__(
        self, directory: Path, manifest: VersionManifest, layout: Layout | None = None
    ) -> None:
        self.manifest = manifest
        self._directory = directory
        # The engine's calls exclude each other anyhow; this keeps `close` out of a running one.
        self._lock = Lock()
        self._closed = False
        self.last_used = time.monotonic()
        self._shard = engine(directory, edge.EdgeShard.load, str(directory))
        _check_count(self._shard, manifest, directory)
        self._quantisation = _when_searching(layout.quantisation if layout else None)
        self._approximate = self._walking(manifest.hnsw.ef_search)
        whole = edge.QuantizationSearchParams(ignore=True)
        self._exact = edge.SearchParams(exact=True, quantization=whole)

    @property
    def closed(self) -> bool:
        return self._closed

    def search(self, vectors: NDArray[np.float32], k: int, *, exact: bool) -> Hits | None:
        """As the backend's `search`; None when the shard has been closed meanwhile."""
        self.last_used = time.monotonic()
        count = len(vectors)
        found = min(k, self.manifest.count)
        params = self._exact if exact else self._approximate
        if found > self.manifest.hnsw.ef_search and not exact:
            params = self._walking(found)
        ids = np.full((count, k), PADDING_ID, dtype=np.int64)
        scores = np.full((count, k), -np.inf, dtype=np.float32)
        nearest, request = edge.Query.Nearest, edge.QueryRequest
        rows = vectors.tolist()
        for start in range(0, count, SLICE):
            requests = [
                request(found, query=nearest(row), params=params)
                for row in rows[start : start + SLICE]
            ]
            batch = edge.QueryBatchRequest(requests)
            with self._lock:
                if self._closed:
                    return None
                answers = engine(self._directory, self._shard.query_batch, batch)
            for row, answer in enumerate(answers, start):
                ids[row, : len(answer)] = [point.id for point in answer]
                scores[row, : len(answer)] = [point.score for point in answer]
        return Hits(ids, scores)

    def items(self, ids: Sequence[int]) -> list[StoredItem] | None:
        """As the backend's `items`; None when the shard has been closed meanwhile."""
        with self._lock:
            if self._closed:
                return None
            wanted = [int(identifier) for identifier in ids]
            known: list[Any] = [
                identifier for identifier in wanted if 0 <= identifier < self.manifest.count
            ]
            records = engine(self._directory, self._shard.retrieve, known, True, False)
        payloads: dict[Any, dict[str, Any]] = {point.id: point.payload or {} for point in records}
        return [stored_item(identifier, payloads, self.manifest.version) for identifier in wanted]

    def _walking(self, ef: int) -> edge.SearchParams:
        return edge.SearchParams(hnsw_ef=ef, quantization=self._quantisation)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._shard.close()


def engine(directory: Path, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the engine. Raises CorruptArtifact for whatever it throws, panics of its own included."""
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        # A panic in Rust arrives as a PanicException, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptArtifact(
            f"Qdrant Edge cannot use {directory}: {str(error)[:300]}.",
            hint="Build the version again from its knowledge file.",
        ) from error


def _config(manifest: VersionManifest, layout: Layout) -> edge.EdgeConfig:
    hnsw = manifest.hnsw
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=manifest.dimensions,
            distance=edge.Distance.Cosine,
            memory=_memory(layout.vectors_on_disk),
        ),
        hnsw_config=edge.HnswIndexConfig(
            hnsw.m,
            hnsw.ef_construct,
            hnsw.full_scan_threshold_kb,
            memory=_memory(layout.graph_on_disk),
        ),
        quantization_config=_compressed(layout.quantisation),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1,
            # One segment, one graph: a search then walks one graph and not several.
            max_segment_size=1 << 40,
            indexing_threshold=hnsw.full_scan_threshold_kb,
        ),
        # A build that breaks off is thrown away, so there is nothing to recover from a log.
        wal_enabled=False,
    )


def _memory(on_disk: bool) -> edge.Memory | None:
    """None is the engine's own choice: files that the system keeps in memory."""
    return edge.Memory.Cold if on_disk else None


def _compressed(
    quantisation: Quantisation | None,
) -> edge.ScalarQuantizationConfig | edge.BinaryQuantizationConfig | None:
    match quantisation:
        case None:
            return None
        case Quantisation(kind="scalar"):
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=edge.Memory.Pinned)
        case _:
            return edge.BinaryQuantizationConfig(memory=edge.Memory.Pinned)


def _when_searching(quantisation: Quantisation | None) -> edge.QuantizationSearchParams | None:
    if quantisation is None:
        return None
    return edge.QuantizationSearchParams(
        rescore=quantisation.rescore, oversampling=quantisation.oversampling
    )


def _check_count(shard: edge.EdgeShard, manifest: VersionManifest, directory: Path) -> None:
    count = engine(directory, shard.count, edge.CountRequest(exact=True))
    if count != manifest.count:
        raise CorruptArtifact(
            f"{directory} holds {count} points, its manifest says {manifest.count}.",
            hint="Build the version again from its knowledge file.",
        )

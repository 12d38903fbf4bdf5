"""Qdrant Edge with nothing around it: what the store is measured against."""

import argparse
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from services.store.backends.base import HnswParameters, PointBatch

BATCH = 2048


def batches(vectors: NDArray[np.float32]) -> Iterator[PointBatch]:
    """Vectors (items, dimensions) as points with short texts."""
    for start in range(0, len(vectors), BATCH):
        rows = np.array(vectors[start : start + BATCH])
        ids = np.arange(start, start + len(rows))
        payloads = [
            {"text": f"text {n}", "text_pair": None, "label": None, "origin": "generated"}
            for n in ids
        ]
        yield PointBatch(ids, rows, payloads)


def upload(directory: Path, vectors: NDArray[np.float32], hnsw: HnswParameters) -> None:
    """The least that it takes to have the points in a shard at `directory`, and the graph where there is to be one."""
    directory.mkdir()
    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=vectors.shape[1], distance=edge.Distance.Cosine),
        hnsw_config=edge.HnswIndexConfig(hnsw.m, hnsw.ef_construct, hnsw.full_scan_threshold_kb),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1,
            max_segment_size=1 << 40,
            indexing_threshold=hnsw.full_scan_threshold_kb,
        ),
        wal_enabled=False,
    )
    shard = edge.EdgeShard.create(str(directory), config)
    for batch in batches(vectors):
        rows = zip(batch.ids.tolist(), batch.vectors.tolist(), batch.payloads, strict=True)
        points = [edge.Point(*row) for row in rows]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    shard.close()


@contextmanager
def opened(sealed: Path, copy: Path) -> Iterator[edge.EdgeShard]:
    """A sealed shard, copied and opened in this process."""
    subprocess.run(["cp", "-r", "--sparse=always", str(sealed), str(copy)], check=True)
    shard = edge.EdgeShard.load(str(copy))
    try:
        yield shard
    finally:
        shard.close()


def search_seconds(
    shard: edge.EdgeShard, queries: NDArray[np.float32], size: int, k: int, seconds: float
) -> float:
    """Median seconds of a search of `size` vectors in this process, ids and scores as lists."""
    params = edge.SearchParams(hnsw_ef=HnswParameters().ef_search)
    times = []
    start, begun = 0, time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds:
        rows = queries[start : start + size].tolist()
        asked = [edge.QueryRequest(k, query=edge.Query.Nearest(row), params=params) for row in rows]
        answers = shard.query_batch(edge.QueryBatchRequest(asked))
        for answer in answers:
            _ = [point.id for point in answer], [point.score for point in answer]
        times.append(time.perf_counter() - now)
        start = (start + size) % (len(queries) - size)
    return statistics.median(times)


def main() -> None:
    """Upload in a process of its own, as the store does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path, help="an array of them, as NumPy saves it")
    parser.add_argument("directory", type=Path, help="of the shard; made")
    parser.add_argument("--full-scan-threshold-kb", type=int, required=True)
    given = parser.parse_args()
    hnsw = HnswParameters(full_scan_threshold_kb=given.full_scan_threshold_kb)
    upload(given.directory, np.load(given.vectors, mmap_mode="r"), hnsw)


if __name__ == "__main__":
    main()

"""The store service against the bare engine: searches, bulk upload, recall, memory, growth with size.

    python benchmarks/store.py                        # 100,000 x 64, as docs/results-store.md tells of
    python benchmarks/store.py --items 1000000        # what one machine should still take

Everything that is compared runs interleaved, round after round, and medians count; read the ratios, not the
milliseconds. The vectors are made up as a student's are: unit length, around centres of labels, themselves made of
smaller groups (of alike sentences), see `servers/clusters.py`. The bare engine is Qdrant Edge with the same graph,
searched in this process, ids and scores returned as lists, as the service returns them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray
from servers.clusters import clustered
from servers.measures import load
from servers.ours import echo, store_service

from services.store.backends.base import HnswParameters, PointBatch, VersionManifest
from services.store.backends.edge import SHARD, EdgeBackend

HERE = Path(__file__).resolve().parent
BATCH = 2048
VERSION = "v-bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="for the versions; a temporary one by default")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--bare-build", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare_build:
        bare_build(given.bare_build, given.items, given.dimensions)
        return
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = {
            "items": given.items,
            **build_figures(folder, given.items, given.dimensions),
            **search_figures(stack, folder, given),
        }
    for name, value in figures.items():
        print(f"{name:44} {value:12.4g}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def batches(count: int, dimensions: int) -> Iterator[PointBatch]:
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        ids = np.arange(start, start + size)
        payloads = [
            {"text": f"text {n}", "text_pair": None, "label": None, "origin": "generated"}
            for n in ids
        ]
        yield PointBatch(ids, clustered(size, dimensions, seed=start + 1), payloads)


def manifest_of(count: int, dimensions: int) -> VersionManifest:
    return VersionManifest(
        task="bench", version=VERSION, encoder_fingerprint="sha256:" + "0" * 64,
        labels=("one", "two"), dimensions=dimensions, count=count, knowledge_sha256="0" * 64,
        hnsw=HnswParameters(),
    )  # fmt: skip


def build_figures(folder: Path, items: int, dimensions: int) -> dict[str, float]:
    """Items a second of a whole build: ours, and the bare engine's in a process of its own."""
    backend = EdgeBackend(folder / "store", private=folder / "private")
    before = time.perf_counter()
    backend.build(manifest_of(items, dimensions), batches(items, dimensions))
    ours = items / (time.perf_counter() - before)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    backend.close()
    command = [sys.executable, str(Path(__file__)), "--bare-build", str(folder / "bare")]
    command += ["--items", str(items), "--dimensions", str(dimensions)]
    before = time.perf_counter()
    subprocess.run(command, check=True, cwd=HERE.parent)
    bare = items / (time.perf_counter() - before)
    return {
        "build, items/s": ours,
        "build of the bare engine, items/s": bare,
        "build against the bare engine": ours / bare,
        "peak memory of the building process, MiB": peak,
    }


def bare_build(directory: Path, items: int, dimensions: int) -> None:
    """The least that a build takes: the same points into a new shard, then the graph."""
    hnsw = HnswParameters()
    directory.mkdir()
    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine),
        hnsw_config=edge.HnswIndexConfig(hnsw.m, hnsw.ef_construct, hnsw.full_scan_threshold_kb),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1,
            max_segment_size=1 << 40,
            indexing_threshold=hnsw.full_scan_threshold_kb,
        ),
        wal_enabled=False,
    )
    shard = edge.EdgeShard.create(str(directory), config)
    for batch in batches(items, dimensions):
        rows = zip(batch.ids.tolist(), batch.vectors.tolist(), batch.payloads, strict=True)
        points = [edge.Point(*row) for row in rows]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    shard.close()


def search_figures(stack: ExitStack, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    items, dimensions, k = given.items, given.dimensions, given.k
    queries = clustered(4096, dimensions, seed=0)
    small = folder / "small"
    backend = EdgeBackend(small / "store", private=folder / "private")
    backend.build(manifest_of(10_000, dimensions), batches(10_000, dimensions))
    backend.close()
    large = stack.enter_context(bare_engine(folder / "bare"))
    few = stack.enter_context(bare_engine(small / "store" / VERSION / SHARD, copy=folder / "few"))
    service = stack.enter_context(
        store_service(folder / "store", private_directory=folder / "private")
    ).url
    floor = stack.enter_context(echo()).url + "/predict"
    url = f"{service}/v1/versions/{VERSION}/search"
    bodies = {size: _bodies(folder, queries, size, k) for size in (1, 32)}
    measures: dict[str, Callable[[], float]] = {
        "engine 1": lambda: engine_seconds(large, queries, 1, k, given.seconds),
        "engine 32": lambda: engine_seconds(large, queries, 32, k, given.seconds),
        "engine 1, 10,000 items": lambda: engine_seconds(few, queries, 1, k, given.seconds),
        "echo 1": lambda: load(floor, bodies[1], 1, given.seconds)["p50_ms"] / 1e3,
        "service 1": lambda: load(url, bodies[1], 1, given.seconds)["p50_ms"] / 1e3,
        "service 32": lambda: load(url, bodies[32], 1, given.seconds)["p50_ms"] / 1e3,
    }
    load(url, bodies[1], 1, 1.0)  # The first search copies and opens the version.
    rounds = {name: [] for name in measures}  # type: dict[str, list[float]]
    for _ in range(given.rounds):
        for name, measure in measures.items():
            rounds[name].append(measure())
    seconds = {name: statistics.median(values) for name, values in rounds.items()}
    return {
        "recall at k against exact": recall(folder, queries[:512], k),
        **{f"{name}, p50 ms": value * 1e3 for name, value in seconds.items()},
        "batch 1: of 1/(engine + echo)": (seconds["engine 1"] + seconds["echo 1"])
        / seconds["service 1"],
        "batch 32: of the engine": seconds["engine 32"] / seconds["service 32"],
        f"p50 at {items} over 10,000": seconds["engine 1"] / seconds["engine 1, 10,000 items"],
    }


@contextmanager
def bare_engine(shard: Path, copy: Path | None = None) -> Iterator[edge.EdgeShard]:
    """A shard opened in this process; a sealed one is copied first."""
    if copy is not None:
        subprocess.run(["cp", "-r", "--sparse=always", str(shard), str(copy)], check=True)
        shard = copy
    opened = edge.EdgeShard.load(str(shard))
    try:
        yield opened
    finally:
        opened.close()


def engine_seconds(
    shard: edge.EdgeShard, queries: NDArray[np.float32], size: int, k: int, seconds: float
) -> float:
    """Median seconds of a search of `size` vectors in this process."""
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


def recall(folder: Path, queries: NDArray[np.float32], k: int) -> float:
    backend = EdgeBackend(folder / "store", private=folder / "private")
    exact = backend.search(VERSION, queries, k, exact=True).scores
    found = backend.search(VERSION, queries, k).scores
    backend.close()
    return float(np.mean(found >= exact[:, -1:] - 1e-5))


def _bodies(folder: Path, queries: NDArray[np.float32], size: int, k: int) -> Path:
    path = folder / f"bodies-{size}.jsonl"
    starts = range(0, len(queries) - size, size)
    rows = [queries[start : start + size].tolist() for start in starts]
    path.write_text("\n".join(json.dumps({"vectors": row, "k": k}) for row in rows))
    return path


if __name__ == "__main__":
    main()

"""The store service against the bare engine: searches, bulk upload, recall, memory, growth with size.

    python benchmarks/store.py                        # 100,000 x 64, as docs/results-store.md tells of
    python benchmarks/store.py --items 1000000        # what one machine should still take
    python benchmarks/store.py --folder DIR --only build    # parts of it, one after another
    python benchmarks/store.py --folder DIR --only upload search

Everything that is compared runs interleaved, round after round, and medians count; read the ratios, not the
milliseconds. The vectors are made up as a student's are: unit length, around centres of labels, themselves made of
smaller groups (of alike sentences), see `servers/clusters.py`. The bare engine is Qdrant Edge on the same graph,
searched in this process, ids and scores returned as lists, as the service returns them (`bare_engine.py`).

- *upload*: the same points into a new version, and into a bare shard in a process of its own, both without a graph,
  from the first import to the last file that is on the disk;
- *build*: the whole of it, with the graph; its peak memory is that of both processes that take part;
- *echo*: the least that FastAPI and uvicorn cost for the same bodies;
- *route*: the engine behind a FastAPI route as one writes it at first (`servers/engine_app.py`).
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import bare_engine
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from servers.clusters import clustered
from servers.measures import load
from servers.ours import echo, store_service
from servers.processes import Server, free_port, server

from services.store.backends.base import HnswParameters, VersionManifest
from services.store.backends.edge import SHARD, EdgeBackend

HERE = Path(__file__).resolve().parent
PARTS = ("build", "upload", "search")
FEW = 10_000
NO_GRAPH = HnswParameters(full_scan_threshold_kb=1 << 40)
CALM = 0.5
"""Seconds of load before a measurement: a server that was stopped has to get going again."""

Figures = dict[str, float]
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uploads", type=int, default=3, help="rounds of them")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="for the versions; a temporary one by default")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="needs --folder")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    figures: Figures = {"items": given.items}
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        for name, count in (("few", FEW), ("many", given.items)):
            write_vectors(folder / f"{name}.npy", count, given.dimensions)
        if "build" in given.only:
            figures |= build_figures(folder)
        if "upload" in given.only:
            figures |= upload_figures(folder, given.items, given.uploads)
        if "search" in given.only:
            figures |= search_figures(stack, folder, given)
    for name, value in figures.items():
        print(f"{name:44} {value:12.4g}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def write_vectors(path: Path, items: int, dimensions: int) -> None:
    """Vectors (items, dimensions) as NumPy saves them; what is there already stays."""
    if path.exists():
        return
    vectors = open_memmap(path, "w+", np.float32, (items, dimensions))
    part = 100_000
    for start in range(0, items, part):
        size = min(part, items - start)
        vectors[start : start + size] = clustered(size, dimensions, seed=start + 1)
    vectors.flush()


def build_figures(folder: Path) -> Figures:
    """The versions `few` and `many`: what it takes to build the latter with its graph."""
    build(folder, "few", "few", HnswParameters())
    seconds = timed(build, folder, "many", "many", HnswParameters())
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(who).ru_maxrss for who in both) / 1024
    return {"build with the graph, s": seconds, "peak memory of a build, MiB": peak}


def upload_figures(folder: Path, items: int, rounds: int) -> Figures:
    """Items a second of an upload without a graph, ours and the bare engine's."""
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        seconds["ours"].append(timed(build, folder, "upload", "many", NO_GRAPH))
        shutil.rmtree(folder / "store" / "upload")
        seconds["bare"].append(timed(bare_upload, folder / "bare", folder / "many.npy"))
        shutil.rmtree(folder / "bare")
    ours, bare = (items / statistics.median(each) for each in seconds.values())
    return {
        "upload, items/s": ours,
        "upload to the bare engine, items/s": bare,
        "upload: of the bare engine": ours / bare,
    }


def timed(call: Callable[..., None], *arguments: object) -> float:
    before = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - before


def build(folder: Path, version: str, of: str, hnsw: HnswParameters) -> None:
    # Mapped, as a knowledge file is not all in memory either.
    vectors = np.load(folder / f"{of}.npy", mmap_mode="r")
    manifest = VersionManifest(
        task="bench", version=version, encoder_fingerprint="sha256:" + "0" * 64,
        labels=("one", "two"), dimensions=vectors.shape[1], count=len(vectors),
        knowledge_sha256="0" * 64, hnsw=hnsw,
    )  # fmt: skip
    backend = EdgeBackend(folder / "store", private=folder / "private")
    backend.build(manifest, bare_engine.batches(vectors))
    backend.close()


def bare_upload(directory: Path, vectors: Path) -> None:
    command = [sys.executable, str(HERE / "bare_engine.py"), str(vectors), str(directory)]
    threshold = str(NO_GRAPH.full_scan_threshold_kb)
    subprocess.run([*command, "--full-scan-threshold-kb", threshold], check=True, cwd=HERE.parent)


def search_figures(stack: ExitStack, folder: Path, given: argparse.Namespace) -> Figures:
    queries = clustered(4096, given.dimensions, seed=0)
    sealed = folder / "store"
    copies = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
    few, many = (
        stack.enter_context(bare_engine.opened(sealed / version / SHARD, copies / version))
        for version in ("few", "many")
    )
    service = stack.enter_context(store_service(sealed, private_directory=copies / "private"))
    floor = stack.enter_context(echo())
    route = stack.enter_context(engine_route(sealed / "many" / SHARD, copies / "route"))
    bodies = {size: write_bodies(copies, queries, size, given.k) for size in (1, 32)}
    path = "/v1/versions/many/search"
    load(service.url + path, bodies[1], 1, 1.0)  # The first search copies and opens the version.
    search = partial(bare_engine.search_seconds, k=given.k, seconds=given.seconds)
    measures: dict[str, Callable[[], float]] = {
        "engine 1": partial(search, many, queries, 1),
        "engine 32": partial(search, many, queries, 32),
        f"engine 1, {FEW} items": partial(search, few, queries, 1),
        "echo 1": partial(loaded, floor, "/predict", bodies[1], given.seconds),
        "route 1": partial(loaded, route, "/search", bodies[1], given.seconds),
        "service 1": partial(loaded, service, path, bodies[1], given.seconds),
        "route 32": partial(loaded, route, "/search", bodies[32], given.seconds),
        "service 32": partial(loaded, service, path, bodies[32], given.seconds),
    }
    for each in (service, floor, route):
        each.stop()
    rounds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(given.rounds):
        for name, measure in measures.items():
            rounds[name].append(measure())
    seconds = {name: statistics.median(values) for name, values in rounds.items()}
    return {
        f"recall at {given.k} against exact": recall(folder, queries[:512], given.k),
        **{f"{name}, p50 ms": value * 1e3 for name, value in seconds.items()},
        "batch 1: of 1/(engine + echo)": (seconds["engine 1"] + seconds["echo 1"])
        / seconds["service 1"],
        "batch 1: of the route": seconds["route 1"] / seconds["service 1"],
        "batch 32: of the engine": seconds["engine 32"] / seconds["service 32"],
        f"engine 1: p50 over that of {FEW}": seconds["engine 1"]
        / seconds[f"engine 1, {FEW} items"],
    }


@contextmanager
def engine_route(sealed: Path, copy: Path) -> Iterator[Server]:
    """A server of `servers/engine_app.py` on a copy of a shard."""
    subprocess.run(["cp", "-r", "--sparse=always", str(sealed), str(copy)], check=True)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "engine_app:app", "--port", str(port)]
    command += ["--app-dir", str(HERE / "servers"), "--no-access-log"]
    environment = {"SHARD": str(copy), "EF_SEARCH": str(HnswParameters().ef_search)}
    with server(command, port, environment) as running:
        yield running


def loaded(of: Server, path: str, bodies: Path, seconds: float) -> float:
    """Median seconds of an answer over one connection."""
    with of.awake():
        load(of.url + path, bodies, 1, CALM)
        figures = load(of.url + path, bodies, 1, seconds)
    if figures["failed"]:
        raise SystemExit(f"{figures['failed']:.0f} requests to {path} failed.")
    return figures["p50_ms"] / 1e3


def recall(folder: Path, queries: Vectors, k: int) -> float:
    """The share of the k nearest items that the approximate search finds, ties counted as found."""
    backend = EdgeBackend(folder / "store", private=folder / "private")
    exact = backend.search("many", queries, k, exact=True).scores
    found = backend.search("many", queries, k).scores
    backend.close()
    return float(np.mean(found >= exact[:, -1:] - 1e-5))


def write_bodies(folder: Path, queries: Vectors, size: int, k: int) -> Path:
    path = folder / f"bodies-{size}.jsonl"
    starts = range(0, len(queries) - size, size)
    rows = [queries[start : start + size].tolist() for start in starts]
    path.write_text("\n".join(json.dumps({"vectors": row, "k": k}) for row in rows))
    return path


if __name__ == "__main__":
    main()

"""The Edge backend never shows half a version, never opens a sealed one, and finds its way round damage."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from knowledge_samples import unit_vectors, write_sample

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.base import HnswParameters, VersionManifest
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest

BUILD = """
import sys
from pathlib import Path
from services.platform.errors import StorageFull
from services.store.backends.base import HnswParameters
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest
directory, knowledge = Path(sys.argv[1]), Path(sys.argv[2])
try:
    graph = HnswParameters(full_scan_threshold_kb=10)
    manifest = version_manifest(knowledge).model_copy(update={"hnsw": graph})
    EdgeBackend(directory).build(manifest, iterate_points(knowledge, 50))
except StorageFull as error:
    print(error)
"""


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "private"


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "knowledge.parquet")


@pytest.fixture
def backend(tmp_path: Path, private: Path) -> Iterator[EdgeBackend]:
    backend = EdgeBackend(tmp_path / "store", private=private)
    yield backend
    backend.close()


def build(backend: EdgeBackend, knowledge: Path) -> VersionManifest:
    return backend.build(version_manifest(knowledge), iterate_points(knowledge, 64))


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.read_bytes(),
        )
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_searching_leaves_the_sealed_files_untouched_and_cleans_up(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path, private: Path
) -> None:
    manifest = build(backend, knowledge)
    sealed = tmp_path / "store" / manifest.version
    before = snapshot(sealed)
    hits = backend.search(manifest.version, unit_vectors(200)[:20], 3)
    np.testing.assert_array_equal(hits.ids[:, 0], np.arange(20))
    assert backend.items(manifest.version, [3])[0].text.startswith("text 3")
    assert snapshot(sealed) == before
    assert len(list(private.iterdir())) == 1
    backend.close()
    assert list(private.iterdir()) == []
    with pytest.raises(StoreUnavailable, match="closed"):
        backend.search(manifest.version, unit_vectors(1), 1)


def test_a_graph_is_built_and_finds_what_exact_search_finds(tmp_path: Path, private: Path) -> None:
    graph = HnswParameters(full_scan_threshold_kb=10)
    knowledge = write_sample(tmp_path / "k", 2000, dimensions=32, hnsw=graph)
    backend = EdgeBackend(tmp_path / "store", private=private)
    manifest = build(backend, knowledge)
    graphs = list((tmp_path / "store").glob("*/shard/segments/*/vector_index/graph.bin"))
    assert len(graphs) == 1
    queries = unit_vectors(60, 32, seed=7)
    near, exact = (
        backend.search(manifest.version, queries, 16, exact=flag).ids for flag in (False, True)
    )
    recall = np.mean([len(set(a) & set(b)) / 16 for a, b in zip(near, exact, strict=True)])
    assert recall > 0.98
    backend.close()


def test_building_twice_gives_the_first_and_another_version_of_the_name_is_refused(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    first = build(backend, knowledge)
    before = snapshot(tmp_path / "store")
    assert build(backend, knowledge) == first
    assert snapshot(tmp_path / "store") == before
    other = version_manifest(write_sample(tmp_path / "other", seed=1))
    with pytest.raises(IncompatibleArtifacts, match="another store version of the name"):
        backend.build(other.model_copy(update={"version": first.version}), [])


def test_other_parameters_of_the_graph_alone_are_seen(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    first = build(backend, knowledge)
    graph = HnswParameters(m=8)
    with pytest.raises(IncompatibleArtifacts, match="its hnsw differ"):
        backend.build(first.model_copy(update={"hnsw": graph}), iterate_points(knowledge))
    second = build(backend, write_sample(tmp_path / "m8", hnsw=graph))
    assert second.version != first.version
    assert second.hnsw == backend.manifest(second.version).hnsw == graph


def test_a_rebuild_from_the_knowledge_file_has_the_version_s_graph(
    tmp_path: Path, private: Path
) -> None:
    graph = HnswParameters(m=8, full_scan_threshold_kb=10)
    knowledge = write_sample(tmp_path / "k", 1000, dimensions=32, hnsw=graph)
    version = version_manifest(knowledge).version
    backend = EdgeBackend(tmp_path / "none", private=private, knowledge=lambda _: knowledge)
    assert backend.manifest(version).hnsw == graph
    backend.search(version, unit_vectors(1, 32), 1)
    # With the default parameters so few vectors are scanned, and have no graph.
    (found,) = private.glob("*/shard/segments/*/vector_index/graph.bin")
    (settings,) = private.glob("*/shard/edge_config.json")
    assert '"m":8' in settings.read_text().replace(" ", "")
    assert found.stat().st_size > 0
    backend.close()


def test_points_that_are_not_what_the_manifest_says_leave_nothing(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    manifest = version_manifest(knowledge)
    batches = list(iterate_points(knowledge, 64))
    with pytest.raises(CorruptArtifact, match="should hold 200 points, 192 came"):
        backend.build(manifest, batches[:-1])
    with pytest.raises(CorruptArtifact, match="not numbered"):
        backend.build(manifest, batches[1:])
    with pytest.raises(CorruptArtifact, match="have the shape"):
        backend.build(manifest.model_copy(update={"dimensions": 8}), batches)
    with pytest.raises(ZeroDivisionError):
        backend.build(manifest, (batches[0 // i] for i in (1, 0)))
    assert list((tmp_path / "store").iterdir()) == []
    assert backend.versions() == []
    assert build(backend, knowledge).count == 200


def test_kill_9_at_any_instant_shows_no_half_version_and_the_next_build_carries_on(
    tmp_path: Path, private: Path
) -> None:
    knowledge = write_sample(tmp_path / "k", 1000)
    store = tmp_path / "store"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", BUILD, tmp_path / "whole", knowledge], check=True)
    whole = time.monotonic() - started
    instants = random.Random(0)
    killed = 0
    # A build that ends before its kill proves nothing: on a busy machine more of them are needed.
    for _ in range(40):
        if killed == 6:
            break
        process = subprocess.Popen(
            [sys.executable, "-c", BUILD, store, knowledge], start_new_session=True
        )
        time.sleep(instants.uniform(0.2, 1.0) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for manifest in EdgeBackend(store, private=private).versions():
            check_complete(store, private, manifest)
            shutil.rmtree(store / manifest.version)
    assert killed == 6
    subprocess.run([sys.executable, "-c", BUILD, store, knowledge], check=True)
    (manifest,) = EdgeBackend(store, private=private).versions()
    check_complete(store, private, manifest)
    assert [path.name for path in store.iterdir()] == [manifest.version]


def check_complete(store: Path, private: Path, manifest: VersionManifest) -> None:
    backend = EdgeBackend(store, private=private)
    hits = backend.search(manifest.version, unit_vectors(1000)[:10], 1)
    assert hits.ids[:, 0].tolist() == list(range(10))
    backend.close()


def test_a_build_whose_parent_alone_is_killed_seals_nothing(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k", 3000)
    process = subprocess.Popen([sys.executable, "-c", BUILD, tmp_path / "store", knowledge])
    while not list((tmp_path / "store").glob(".aside-*/shard")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert EdgeBackend(tmp_path / "store", private=tmp_path).versions() == []


def test_copies_of_killed_processes_are_removed_and_those_of_living_ones_stay(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path, private: Path
) -> None:
    manifest = build(backend, knowledge)
    backend.search(manifest.version, unit_vectors(1), 1)
    mine = set(private.iterdir())
    program = (
        "import os, sys, signal; from pathlib import Path\n"
        "from services.store.backends.edge import EdgeBackend\n"
        "import numpy as np\n"
        "b = EdgeBackend(Path(sys.argv[1]), private=Path(sys.argv[2]))\n"
        "b.search(sys.argv[3], np.ones((1, 16), dtype=np.float32), 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [tmp_path / "store", private, manifest.version]
    subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    assert len(set(private.iterdir()) - mine) == 1
    EdgeBackend(tmp_path / "store", private=private).close()
    assert set(private.iterdir()) == mine


def test_a_full_disk_is_told_and_leaves_no_version(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    knowledge = write_sample(tmp_path / "k", 800, dimensions=64)
    subprocess.run([sys.executable, "-c", BUILD, tmp_path / "whole", knowledge], check=True)
    needed = sum(path.stat().st_blocks * 512 for path in (tmp_path / "whole").rglob("*"))
    mount = tmp_path / "small"
    mount.mkdir()
    # Too small for the first files, for the points or the graph, for the last few files.
    for share in (0.02, 0.5, 0.98):
        options = f"size={int(needed * share)}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", mount], check=True)
        try:
            done = subprocess.run(
                [sys.executable, "-c", BUILD, mount / "store", knowledge],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "is full: no store version was written" in done.stdout, share
            assert [path for path in mount.rglob("*") if path.is_file()] == []
        finally:
            subprocess.run(["umount", mount], check=True)


def sealed_files(sealed: Path) -> list[Path]:
    return [path for path in sealed.glob("shard/**/*") if path.is_file()]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_sealed_file_is_refused_or_rebuilt_from_the_knowledge_file(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path, private: Path, damage: str
) -> None:
    manifest = build(backend, knowledge)
    victim = max(
        sealed_files(tmp_path / "store" / manifest.version), key=lambda path: path.stat().st_size
    )
    if damage == "flip":
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "cut":
        os.truncate(victim, victim.stat().st_size // 2)
    else:
        victim.unlink()
    with pytest.raises(CorruptArtifact):
        backend.search(manifest.version, unit_vectors(1), 1)
    assert list(private.iterdir()) == []
    rebuilding = EdgeBackend(
        tmp_path / "store", private=private, knowledge={manifest.version: knowledge}.get
    )
    hits = rebuilding.search(manifest.version, unit_vectors(200)[:5], 1)
    assert hits.ids[:, 0].tolist() == list(range(5))
    rebuilding.close()


def test_without_a_sealed_version_the_knowledge_file_serves(
    tmp_path: Path, private: Path, knowledge: Path
) -> None:
    version = version_manifest(knowledge).version
    backend = EdgeBackend(tmp_path / "none", private=private, knowledge=lambda _: knowledge)
    assert backend.manifest(version).count == 200
    assert backend.search(version, unit_vectors(200)[:1], 1).ids.tolist() == [[0]]
    with pytest.raises(CorruptArtifact, match="makes the store version v-"):
        backend.search("v-another", unit_vectors(1), 1)
    os.truncate(knowledge, 1000)
    backend.close()
    again = EdgeBackend(tmp_path / "none", private=private, knowledge=lambda _: knowledge)
    with pytest.raises(CorruptArtifact, match="truncated or damaged"):
        again.search(version, unit_vectors(1), 1)
    assert not (tmp_path / "none").exists()


def test_a_truncated_knowledge_file_builds_nothing(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    manifest = version_manifest(knowledge)
    os.truncate(knowledge, knowledge.stat().st_size - 10)
    with pytest.raises(CorruptArtifact, match="truncated or damaged"):
        backend.build(manifest, iterate_points(knowledge))
    assert backend.versions() == []


def test_a_version_with_an_unreadable_manifest_is_not_listed_and_can_be_built_again(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    manifest = build(backend, knowledge)
    (tmp_path / "store" / manifest.version / "version.json").write_text("{")
    assert backend.versions() == []
    with pytest.raises(CorruptArtifact, match=r"version\.json cannot be read"):
        backend.manifest(manifest.version)
    assert build(backend, knowledge).version == manifest.version
    assert [found.version for found in backend.versions()] == [manifest.version]


@pytest.mark.parametrize("name", ["../store", "", "a/b", ".aside-x", "A", "x" * 80])
def test_names_that_no_version_has_reach_no_file(backend: EdgeBackend, name: str) -> None:
    for call in (
        lambda: backend.manifest(name),
        lambda: backend.search(name, unit_vectors(1), 1),
        lambda: backend.delete(name),
    ):
        with pytest.raises(VersionNotFound):
            call()


def test_versions_beyond_those_kept_open_are_closed_and_reopened_under_load(
    tmp_path: Path, private: Path
) -> None:
    backend = EdgeBackend(tmp_path / "store", private=private, keep_open=2)
    names = [
        build(backend, write_sample(tmp_path / f"k{seed}", seed=seed)).version for seed in range(3)
    ]
    queries = [unit_vectors(200, seed=seed)[:8] for seed in range(3)]
    wrong: list[object] = []

    def search(seed: int) -> None:
        try:
            for i in range(8):
                which = (seed + i) % 3
                hits = backend.search(names[which], queries[which], 1)
                if hits.ids[:, 0].tolist() != list(range(8)):
                    wrong.append(hits)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(list(private.iterdir())) == 2
    backend.close()
    assert list(private.iterdir()) == []


def test_two_builds_at_once_end_with_one_version(tmp_path: Path, private: Path) -> None:
    knowledge = write_sample(tmp_path / "k", 1000)
    command = [sys.executable, "-c", BUILD, tmp_path / "store", knowledge]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    (manifest,) = EdgeBackend(tmp_path / "store", private=private).versions()
    assert [path.name for path in (tmp_path / "store").iterdir()] == [manifest.version]


def test_a_deleted_version_is_gone_for_good(
    backend: EdgeBackend, knowledge: Path, tmp_path: Path
) -> None:
    manifest = build(backend, knowledge)
    backend.search(manifest.version, unit_vectors(1), 1)
    backend.delete(manifest.version)
    assert backend.versions() == []
    assert list((tmp_path / "store").iterdir()) == []
    for call in (
        lambda: backend.search(manifest.version, unit_vectors(1), 1),
        lambda: backend.delete(manifest.version),
    ):
        with pytest.raises(VersionNotFound):
            call()

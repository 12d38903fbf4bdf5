"""Snapshots: what is restored on an empty machine serves again, and what is damaged restores nothing."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from forged_snapshots import FORGERIES, Forgery, repack
from knowledge_samples import FINGERPRINT, unit_vectors, write_sample
from qdrant_client import QdrantClient
from served_task import settings, write_task

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    SnapshotNotFound,
    StoreUnavailable,
)
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import write_release_manifest
from services.store.app import create_app
from services.store.archive import pack, read_index
from services.store.backends.edge import EdgeBackend
from services.store.backends.server import ServerBackend
from services.store.client import EmbeddedStoreClient
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.knowledge_store import KnowledgeStore
from services.store.snapshots import SUFFIX, SnapshotDirectory
from services.student.predictor import Predictor, TextInput

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


def store(directory: Path, *, releases: bool = True) -> KnowledgeStore:
    return KnowledgeStore(
        EdgeBackend(directory / "store", private=directory / "private"),
        releases=ReleaseDirectory(directory / "releases") if releases else None,
        snapshots=SnapshotDirectory(directory / "snapshots"),
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task")
    write_task(directory)
    return directory


@pytest.fixture(scope="module")
def packed(task: Path) -> Path:
    """The file of a snapshot of the live version."""
    served = store(task)
    snapshot = served.snapshot("live")
    served.close()
    return task / "snapshots" / f"{snapshot.name}{SUFFIX}"


def empty_machine(directory: Path, packed: Path) -> str:
    """A machine that has the snapshot's file and nothing else; the snapshot's name."""
    (directory / "snapshots").mkdir(parents=True)
    shutil.copy(packed, directory / "snapshots")
    return packed.name.removesuffix(SUFFIX)


def test_an_empty_machine_serves_the_restored_version_and_its_release(
    task: Path, packed: Path, tmp_path: Path
) -> None:
    name = empty_machine(tmp_path, packed)
    query = {"vectors": unit_vectors(3, 8).tolist(), "k": 5, "with_items": True}
    with TestClient(create_app(settings(task))) as client:
        version = client.get("/v1/versions/live/statistics").json()["version"]
        before = client.post(f"/v1/versions/{version}/search", json=query).json()
        manifest = client.get(f"/v1/versions/{version}").json()
    with TestClient(create_app(settings(tmp_path))) as client:
        assert client.get("/v1/versions").json() == {"versions": []}
        assert client.post(f"/v1/versions/{version}/search", json=query).status_code == 404
        listed = client.get("/v1/snapshots").json()["snapshots"]
        assert [entry["snapshot"] for entry in listed] == [name]
        assert (listed[0]["version"], listed[0]["items"]) == (version, 60)
        restored = client.post(f"/v1/snapshots/{name}/restore")
        assert (restored.status_code, restored.json()["version"]) == (200, manifest)
        assert client.post(f"/v1/versions/{version}/search", json=query).json() == before
        # The release is there too, and goes live when it is told to.
        release = restored.json()["release"]
        assert client.get("/v1/releases").json()["live"] is None
        assert client.post("/v1/versions/live/search", json=query).status_code == 404
        assert client.post(f"/v1/releases/{release}/activate").status_code == 200
        assert client.post("/v1/versions/live/search", json=query).json() == before
    # A student of that machine works with what came out of the snapshot alone.
    embedded = EmbeddedStoreClient.edge(tmp_path / "store")
    predictor = Predictor.load(tmp_path / "releases" / release, embedded)
    assert predictor.predict([TextInput("my printer jam", None)]).degraded is None
    predictor.close()
    embedded.close()
    assert list((tmp_path / "snapshots").iterdir()) == [tmp_path / "snapshots" / packed.name]


def test_restoring_again_changes_nothing_and_mends_what_was_damaged(
    packed: Path, tmp_path: Path
) -> None:
    name = empty_machine(tmp_path, packed)
    served = store(tmp_path)
    first = served.restore(name)
    sealed = tmp_path / "store" / first.manifest.version
    inode = sealed.stat().st_ino
    assert served.restore(name) == first
    assert sealed.stat().st_ino == inode
    segment = next((sealed / "shard").rglob("segment.json"))
    segment.write_text("{}")
    release_file = tmp_path / "releases" / str(first.release) / "soft_labels.npy"
    release_file.write_bytes(b"gone")
    assert served.restore(name) == first
    assert segment.read_text() != "{}"
    assert release_file.read_bytes() != b"gone"
    assert served.search(first.manifest.version, unit_vectors(1, 8), 3).hits.ids.min() >= 0
    served.close()


def test_restoring_leaves_what_the_gate_has_said_of_the_release_since(
    packed: Path, tmp_path: Path
) -> None:
    name = empty_machine(tmp_path, packed)
    served = store(tmp_path)
    release = str(served.restore(name).release)
    manifest = tmp_path / "releases" / release / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "gate": ["fell"]}))
    served.restore(name)
    assert ReleaseDirectory(tmp_path / "releases").get(release).gate == ("fell",)
    served.close()


def test_a_damaged_release_is_not_packed(tmp_path: Path) -> None:
    live = write_task(tmp_path)[0]
    (tmp_path / "releases" / live.release / "soft_labels.npy").write_bytes(b"gone")
    served = store(tmp_path)
    with pytest.raises(CorruptArtifact, match=r"soft_labels\.npy differ"):
        served.snapshot("live")
    assert served.snapshots() == []
    served.close()


def test_of_releases_that_share_a_version_the_live_one_is_packed(tmp_path: Path) -> None:
    first = write_task(tmp_path)[0]
    releases, staged = ReleaseDirectory(tmp_path / "releases"), tmp_path / "staged"
    shutil.copytree(releases.path(first.release), staged)
    (staged / "bundle" / "README.md").write_text("Mixes otherwise.")
    second = write_release_manifest(
        staged,
        task=first.task,
        labels=first.labels,
        store_version=first.store_version,
        encoder_fingerprint=first.encoder_fingerprint,
        items=first.items,
        metrics={},
    )
    releases.add(staged)
    releases.activate(second.release)
    served = store(tmp_path)
    assert served.snapshot("live").index.release == second.release != first.release
    served.close()


def damage(content: bytes, where: float) -> bytes:
    place = int(len(content) * where)
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its last kilobyte": lambda content: content[:-1024],
    "foreign": lambda _: b"PK\x03\x04" + bytes(5000),
    **{f"flipped at {w}": (lambda c, w=w: damage(c, w)) for w in (0.1, 0.5, 0.9)},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_snapshot_is_refused_and_leaves_nothing(
    packed: Path, tmp_path: Path, kind: str
) -> None:
    name = empty_machine(tmp_path, packed)
    file = tmp_path / "snapshots" / packed.name
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    served = store(tmp_path)
    with pytest.raises(CorruptArtifact):
        served.restore(name)
    assert served.versions() == []
    assert served.releases() == ([], None)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [packed.name]
    served.close()


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
def test_a_forged_snapshot_writes_nothing_outside_and_restores_nothing(
    packed: Path, tmp_path: Path, change: Forgery
) -> None:
    machine = tmp_path / "machine"
    repack(packed, change, machine / "snapshots" / packed.name)
    served = store(machine)
    with pytest.raises((CorruptArtifact, IncompatibleArtifacts)):
        served.restore(packed.name.removesuffix(SUFFIX))
    assert served.versions() == []
    served.close()
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/escaped-from-a-snapshot").exists()
    assert [path.name for path in machine.rglob("*") if path.is_file()] == [packed.name]


def test_a_snapshot_names_its_version_and_time_and_other_names_are_not_there(task: Path) -> None:
    served = store(task)
    before = {snapshot.name for snapshot in served.snapshots()}
    made = served.snapshot("live")
    assert made.name.startswith(f"{made.index.version.version}.")
    assert {snapshot.name for snapshot in served.snapshots()} == before | {made.name}
    served.delete_snapshot(made.name)
    assert {snapshot.name for snapshot in served.snapshots()} == before
    for name in (made.name, "..", "../../etc/passwd", "v-1", "a" * 300, ""):
        for call in (served.restore, served.delete_snapshot):
            with pytest.raises(SnapshotNotFound):
                call(name)
    served.close()


def test_a_version_without_a_release_is_restored_by_itself(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "knowledge.parquet")
    served = store(tmp_path / "one", releases=False)
    backend = EdgeBackend(tmp_path / "one" / "store", private=tmp_path / "one" / "private")
    version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
    expected = backend.search(version, unit_vectors(4), 6)
    made = served.snapshot(version)
    assert made.index.release is None
    served.close()
    shutil.copytree(tmp_path / "one" / "snapshots", tmp_path / "two" / "snapshots")
    other = store(tmp_path / "two")
    assert other.restore(made.name).manifest.encoder_fingerprint == FINGERPRINT
    hits = other.search(version, unit_vectors(4), 6).hits
    assert hits.ids.tolist() == expected.ids.tolist()
    other.close()
    # Its files are Edge's own: another engine has nothing to build the version from.
    elsewhere = KnowledgeStore(
        ServerBackend(QdrantClient(":memory:"), "toy"),
        snapshots=SnapshotDirectory(tmp_path / "two" / "snapshots"),
    )
    with pytest.raises(IncompatibleArtifacts, match="no release to build the version from"):
        elsewhere.restore(made.name)
    elsewhere.close()


def test_another_engine_builds_the_version_from_the_snapshot_s_knowledge_file(
    packed: Path, tmp_path: Path
) -> None:
    name = empty_machine(tmp_path, packed)
    served = KnowledgeStore(
        ServerBackend(QdrantClient(":memory:"), "tiny"),
        releases=ReleaseDirectory(tmp_path / "releases"),
        snapshots=SnapshotDirectory(tmp_path / "snapshots"),
    )
    restored = served.restore(name)
    assert served.manifest(restored.manifest.version).count == 60
    assert served.activate(str(restored.release)).release == restored.release
    # The named exception: the client's in-memory mode has no snapshots of its own.
    with pytest.raises(StoreUnavailable, match="in-memory mode of qdrant-client has no snapshots"):
        served.snapshot("live")
    served.close()


def test_another_task_s_snapshot_is_refused(packed: Path, tmp_path: Path) -> None:
    name = empty_machine(tmp_path, packed)
    write_task(tmp_path)
    manifest = next((tmp_path / "releases").glob("r-*/manifest.json"))
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "task": "another"}))
    served = store(tmp_path)
    with pytest.raises(IncompatibleArtifacts, match="releases here are of 'another'"):
        served.restore(name)
    served.close()


MAKE = """
import sys
from pathlib import Path
from services.releases.directory import ReleaseDirectory
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_store import KnowledgeStore
from services.store.snapshots import SnapshotDirectory
directory, what = Path(sys.argv[1]), sys.argv[2]
store = KnowledgeStore(
    EdgeBackend(directory / "store", private=directory / "private"),
    releases=ReleaseDirectory(directory / "releases"),
    snapshots=SnapshotDirectory(directory / "snapshots"),
)
print("begin", flush=True)
while True:
    store.snapshot("live") if what == "make" else store.restore(what)
"""


def test_a_kill_at_any_instant_leaves_whole_snapshots_and_whole_versions_alone(
    packed: Path, tmp_path: Path
) -> None:
    name = empty_machine(tmp_path, packed)
    for attempt in range(4):
        what = "make" if attempt % 2 else name
        process = subprocess.Popen(
            [sys.executable, "-c", MAKE, str(tmp_path), what], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        if attempt == 0:
            # The first restore goes through once, so that there is something to make one of.
            while not (tmp_path / "releases").exists() or not list(
                (tmp_path / "releases").glob("r-*")
            ):
                time.sleep(0.01)
            ReleaseDirectory(tmp_path / "releases").activate(
                next((tmp_path / "releases").glob("r-*")).name
            )
        time.sleep(0.03 + 0.04 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        served = store(tmp_path)
        assert served.restore(name).manifest.count == 60
        for snapshot in served.snapshots():
            served.restore(snapshot.name)
            if snapshot.name != name:
                served.delete_snapshot(snapshot.name)
        assert not list((tmp_path / "snapshots").glob(".aside-*"))
        assert served.search("live", unit_vectors(1, 8), 2).hits.ids.min() >= 0
        served.close()


def test_a_disk_that_fills_up_while_files_are_packed_says_so(task: Path, packed: Path) -> None:
    index = read_index(packed)
    sources = {"version/version.json": next((task / "store").glob("*/version.json"))}
    with pytest.raises(OSError, match="No space left") as caught:
        pack(Path("/dev/full"), index, sources)
    assert caught.value.errno == errno.ENOSPC


MAKE_ONE = """
import sys
from pathlib import Path
from services.platform.errors import StorageFull
from services.releases.directory import ReleaseDirectory
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_store import KnowledgeStore
from services.store.snapshots import SnapshotDirectory
task, small, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
store = KnowledgeStore(
    EdgeBackend(task / "store", private=task / "private"),
    releases=ReleaseDirectory(task / "releases"),
    snapshots=SnapshotDirectory(small),
)
try:
    store.snapshot("live") if what == "make" else store.restore(what)
except StorageFull as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["make", "restore"])
def test_a_full_disk_is_told_and_leaves_nothing_behind(
    task: Path, packed: Path, tmp_path: Path, what: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", small], check=True)
    try:
        if what == "restore":
            shutil.copy(packed, small)
        name = what if what == "make" else packed.name.removesuffix(SUFFIX)
        done = subprocess.run(
            [sys.executable, "-c", MAKE_ONE, task, small, name],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"The disk that holds {small}"), done.stderr
        assert " is full: " in done.stdout
        left = [path.name for path in small.rglob("*")]
        assert left == ([packed.name] if what == "restore" else [])
    finally:
        subprocess.run(["umount", small], check=True)

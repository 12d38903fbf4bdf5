"""Old releases go with their store versions and snapshots; what serves stays, and a kill leaves nothing half there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from offline.pipeline.chain import run_lock
from offline.store.clean_up import CleanedUp, clean_up, clean_up_task
from offline.store.config import StoreConfig
from services.platform.errors import AlreadyRunning, CorruptArtifact, ReleasePruned
from services.releases.directory import ReleaseDirectory
from services.releases.in_use import ReleaseHold
from services.releases.manifest import check_release, write_release_manifest
from services.releases.pruning import finish_pruning
from services.store.backends.base import StoreBackend, VersionManifest
from services.store.backends.edge import EdgeBackend
from services.store.backends.manifest import MANIFEST, read_manifest
from services.store.backends.sealed import check_sums
from services.store.backends.server import ServerBackend
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.snapshots import SnapshotDirectory

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "store"))

from knowledge_samples import write_sample

COUNT = 5
TASK = "toy"

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


def stage(directory: Path, number: int) -> Path:
    """A release's files: their content does not matter here, their hashes do."""
    (directory / "bundle").mkdir(parents=True)
    for name in ("bundle/model.onnx", "knowledge.parquet", "soft_labels.npy"):
        (directory / name).write_bytes(b"%d" % number)
    write_release_manifest(
        directory,
        task=TASK,
        labels=["one", "two"],
        store_version=f"v-{number}",
        encoder_fingerprint="sha256:0",
        items=40,
        metrics={},
    )
    return directory


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with releases 0 to 4, each with a sealed version and a snapshot; 1 was live before 2 is."""
    root = tmp_path_factory.mktemp("built")
    knowledge = write_sample(root / "k", 40)
    backend = EdgeBackend(root / "task" / "store", private=root / "private")
    first = backend.build(
        version_manifest(knowledge).model_copy(update={"version": "v-0"}), iterate_points(knowledge)
    )
    for number in range(1, COUNT):
        copy = root / "task" / "store" / f"v-{number}"
        shutil.copytree(root / "task" / "store" / "v-0", copy)
        named = first.model_copy(update={"version": copy.name})
        (copy / MANIFEST).write_text(named.model_dump_json())
    releases = ReleaseDirectory(root / "task" / "releases")
    snapshots = SnapshotDirectory(root / "task" / "snapshots")
    for number in range(COUNT):
        added = releases.add(stage(root / f"staged-{number}", number))
        snapshots.create(backend, f"v-{number}", releases.path(added.release))
    for number in (1, 2):
        releases.activate(names(root / "task")[number])
    return root / "task"


def names(task: Path) -> list[str]:
    """The releases 0 to 4."""
    by_version = {
        found.store_version: found.release for found in ReleaseDirectory(task / "releases").list()
    }
    return [by_version[f"v-{number}"] for number in range(COUNT)]


@pytest.fixture
def task(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "task")
    return tmp_path / "task"


@pytest.fixture
def backend(task: Path) -> Iterator[StoreBackend]:
    made = EdgeBackend(task / "store", private=task / "private")
    yield made
    made.close()


def versions(backend: StoreBackend) -> set[str]:
    return {manifest.version for manifest in backend.versions()}


def snapshots_of(task: Path) -> set[str]:
    return {found.index.version.version for found in SnapshotDirectory(task / "snapshots").list()}


def expected(task: Path) -> CleanedUp:
    """What keeping one of them takes: 4 is the newest, 2 is live, 1 was before it."""
    zero, one, two, three, _ = names(task)
    by_version = {
        found.index.version.version: found.name
        for found in SnapshotDirectory(task / "snapshots").list()
    }
    gone = (by_version["v-0"], by_version["v-3"])
    kept = {one: "previous", two: "live"}
    return CleanedUp((zero, three), ("v-0", "v-3"), gone, kept)


def test_the_newest_and_what_serves_stay_and_the_rest_goes(
    task: Path, backend: StoreBackend
) -> None:
    told = expected(task)
    assert clean_up(task, backend, 1, dry_run=True) == told
    assert versions(backend) == {f"v-{number}" for number in range(COUNT)}
    assert clean_up(task, backend, 1) == told
    assert versions(backend) == snapshots_of(task) == {"v-1", "v-2", "v-4"}
    releases = ReleaseDirectory(task / "releases")
    for manifest in releases.list():
        path = releases.path(manifest.release)
        if manifest.release in told.releases:
            assert {each.name for each in path.iterdir()} == {"manifest.json"}
            with pytest.raises(ReleasePruned, match="cannot serve: a clean-up took"):
                releases.activate(manifest.release)
            assert releases.knowledge_of_version(manifest.store_version) is None
        else:
            check_release(path)
    assert releases.rollback().release == names(task)[1]
    assert clean_up(task, backend, 3).releases == ()


def test_a_release_that_was_given_up_serves_again_once_it_is_added_again(
    task: Path, backend: StoreBackend, tmp_path: Path
) -> None:
    clean_up(task, backend, 1)
    releases = ReleaseDirectory(task / "releases")
    added = releases.add(stage(tmp_path / "again", 0))
    assert added.can_serve
    assert releases.activate(added.release).release == names(task)[0]


def test_a_release_that_a_process_serves_stays_until_that_process_is_gone(
    task: Path, backend: StoreBackend
) -> None:
    zero = names(task)[0]
    program = (
        "import sys; from pathlib import Path; from services.releases.in_use import ReleaseHold\n"
    )
    program += "hold = ReleaseHold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", program, str(task / "releases" / zero)]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"held\n"
        for dry_run in (True, False):
            done = clean_up(task, backend, 1, dry_run=dry_run)
            assert done.kept[zero] == "served"
        assert "v-0" in versions(backend)
        check_release(task / "releases" / zero)
        server.kill()
    assert clean_up(task, backend, 1).releases == (zero,)
    assert "v-0" not in versions(backend)


def test_a_release_that_is_taken_up_after_its_mark_is_told_from_a_whole_one(
    task: Path, backend: StoreBackend
) -> None:
    clean_up(task, backend, 1)
    zero = task / "releases" / names(task)[0]
    hold = ReleaseHold(zero)
    with pytest.raises(ReleasePruned):
        check_release(zero)
    hold.close()


def test_a_clean_up_that_is_killed_at_any_instant_leaves_nothing_half_there(
    built: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    killed = 0
    for attempt in range(12):
        task = tmp_path / str(attempt)
        shutil.copytree(built, task)
        told = expected(task)
        # A fork starts at once: the kill falls into the clean-up and not into the start of a program.
        child = os.fork()
        if child == 0:
            clean_up(task, EdgeBackend(task / "store", private=task / "private"), 1)
            os._exit(0)
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        backend = EdgeBackend(task / "store", private=task / "private")
        for manifest in backend.versions():
            sealed = task / "store" / manifest.version
            check_sums(sealed)
            assert read_manifest(sealed / MANIFEST) == manifest
        releases = ReleaseDirectory(task / "releases")
        for release in releases.list():
            if release.can_serve:
                check_release(releases.path(release.release))
                assert release.store_version in versions(backend)
        clean_up(task, backend, 1)
        assert versions(backend) == snapshots_of(task) == {"v-1", "v-2", "v-4"}
        for name in told.releases:
            assert [each.name for each in releases.path(name).iterdir()] == ["manifest.json"]
        backend.close()
    assert killed >= 3


def test_the_version_of_a_release_that_stays_stays(
    task: Path, backend: StoreBackend, tmp_path: Path
) -> None:
    # Another student on the version of release 0, added last.
    other = stage(tmp_path / "other", 0)
    (other / "bundle" / "model.onnx").write_bytes(b"another")
    told = check_release(task / "releases" / names(task)[0])
    write_release_manifest(
        other,
        task=TASK,
        labels=told.labels,
        store_version="v-0",
        encoder_fingerprint=told.encoder_fingerprint,
        items=40,
        metrics={},
    )
    ReleaseDirectory(task / "releases").add(other)
    assert "v-0" not in clean_up(task, backend, 1).versions
    assert "v-0" in versions(backend)


def test_a_release_that_is_restored_during_a_clean_up_stays_whole(
    task: Path, tmp_path: Path
) -> None:
    zero = names(task)[0]
    releases = ReleaseDirectory(task / "releases")

    class Restoring(EdgeBackend):
        """Somebody restores release 0 as soon as the versions have been listed."""

        def versions(self) -> list[VersionManifest]:
            found = super().versions()
            releases.add(stage(tmp_path / "again", 0))
            return found

    restoring = Restoring(task / "store", private=task / "private")
    done = clean_up(task, restoring, 1)
    restoring.close()
    assert done.versions == ("v-3",)
    assert (task / "store" / "v-0").exists()
    # Neither does the end of an earlier clean-up take it, which knew it as marked.
    finish_pruning(releases, zero)
    check_release(releases.path(zero))


def test_nothing_goes_that_cannot_be_told_from_what_serves(
    task: Path, backend: StoreBackend
) -> None:
    whole = {f"v-{number}" for number in range(COUNT)}
    releases = ReleaseDirectory(task / "releases")
    pointer = (releases.root / "live.json").read_bytes()
    (releases.root / "live.json").write_text("{")
    with pytest.raises(CorruptArtifact):
        clean_up(task, backend, 1)
    (releases.root / "live.json").write_bytes(pointer)
    # What an unreadable release searches is not known: all versions stay.
    (releases.path(names(task)[4]) / "manifest.json").write_text("{")
    assert clean_up(task, backend, 1).versions == ()
    assert versions(backend) == whole


def test_collections_of_a_qdrant_server_go_the_same_way(task: Path, tmp_path: Path) -> None:
    server = ServerBackend(QdrantClient(":memory:"), TASK)
    knowledge = write_sample(tmp_path / "k", 40)
    for number in (0, 2, 3, 4, 9):
        manifest = version_manifest(knowledge).model_copy(update={"version": f"v-{number}"})
        server.build(manifest, iterate_points(knowledge))
    assert clean_up(task, server, 1).versions == ("v-0", "v-3")
    # No release names v-9: whose it is, is not known here.
    assert versions(server) == {"v-2", "v-4", "v-9"}
    server.close()


def test_the_command_says_what_it_took_or_would_take_and_nothing_else(task: Path) -> None:
    told = json.loads(json.dumps(expected(task).figures()))
    command = [sys.executable, "-m", "offline", "release", "prune", "--keep", "1", "--task-dir"]
    for more, dry_run in (["--dry-run"], True), ([], False):
        done = subprocess.run(
            [*command, str(task), *more],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"dry_run": dry_run, **told}


def test_no_clean_up_while_a_run_works(task: Path) -> None:
    with run_lock(task), pytest.raises(AlreadyRunning):
        clean_up_task(task, StoreConfig(), 1)
    assert clean_up_task(task, StoreConfig(), 2).releases == (names(task)[0],)

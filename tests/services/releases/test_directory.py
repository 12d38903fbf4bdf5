"""Releases are immutable, one pointer says which is live, and a kill at any instant breaks neither."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from services.platform.errors import CorruptArtifact, ReleaseNotFound, StorageFull
from services.releases.directory import LIVE, ReleaseDirectory
from services.releases.manifest import (
    ReleaseManifest,
    check_release,
    read_release_manifest,
    write_release_manifest,
)


def forked_worker(root: Path, staged: list[Path]) -> int:
    """Process id of a fork that adds, activates and rolls back until it is killed."""
    child = os.fork()
    if child:
        return child
    try:
        releases = ReleaseDirectory(root)
        while True:
            for path in staged:
                releases.activate(releases.add(path).release)
            releases.rollback()
    finally:
        os._exit(1)


def stage(directory: Path, *, fill: bytes = b"a", size: int = 1000) -> Path:
    """The files of a release whose parts are not looked into here."""
    (directory / "bundle").mkdir(parents=True)
    (directory / "bundle" / "model.onnx").write_bytes(fill * size)
    (directory / "knowledge.parquet").write_bytes(fill * size)
    (directory / "soft_labels.npy").write_bytes(fill * size)
    write_release_manifest(
        directory,
        task="tiny",
        labels=["one", "two"],
        store_version="v-000000000000",
        encoder_fingerprint="sha256:" + "0" * 64,
        items=3,
        metrics={"accuracy": 0.5},
        gate=[],
    )
    return directory


def test_a_release_is_added_once_and_the_same_files_are_the_same_release(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    assert releases.list() == []
    first = releases.add(stage(tmp_path / "first"))
    again = releases.add(stage(tmp_path / "again"))
    other = releases.add(stage(tmp_path / "other", fill=b"b"))
    assert first == again
    assert first.release != other.release
    assert releases.list() == [first, other]
    assert releases.get(first.release) == first
    assert first.created_at is not None
    assert check_release(releases.path(first.release)) == first
    assert (tmp_path / "first" / "manifest.json").exists()


def test_a_release_that_is_added_again_says_what_the_gate_says_now(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    staged = stage(tmp_path / "staged")
    told = read_release_manifest(staged)

    def add(gate: tuple[str, ...]) -> ReleaseManifest:
        text = told.model_copy(update={"gate": gate}).model_dump_json()
        (staged / "manifest.json").write_text(text)
        return releases.add(staged)

    refused = add(("accuracy fell",))
    assert refused.gate == ("accuracy fell",)
    passed = add(())
    assert passed == releases.get(told.release) == check_release(releases.path(told.release))
    assert passed.gate == ()
    assert passed.created_at == refused.created_at
    assert releases.activate(told.release).release == told.release


def test_rollback_switches_between_live_and_previous(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    one, two = (
        releases.add(stage(tmp_path / name, fill=name.encode())).release for name in ("a", "b")
    )
    assert releases.live() is None
    with pytest.raises(ReleaseNotFound, match="no previous release"):
        releases.rollback()
    assert releases.activate(one).previous is None
    with pytest.raises(ReleaseNotFound, match="no previous release"):
        releases.rollback()
    pointer = releases.activate(two)
    assert (pointer.release, pointer.previous) == (two, one)
    assert releases.activate(two) == pointer, "activating the live release changes nothing"
    back = releases.rollback()
    assert (back.release, back.previous) == (one, two)
    assert releases.live() == back
    assert releases.rollback().release == two


@pytest.mark.parametrize("name", ["r-000000000000", "../../etc", "", "r-xyz", "."])
def test_what_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    for call in (releases.get, releases.path, releases.activate):
        with pytest.raises(ReleaseNotFound):
            call(name)


@pytest.mark.parametrize("damage", ["change", "remove", "relabel", "add"])
def test_a_damaged_release_is_neither_added_nor_activated(tmp_path: Path, damage: str) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    live = releases.add(stage(tmp_path / "live")).release
    releases.activate(live)

    def spoil(directory: Path) -> None:
        match damage:
            case "change":
                (directory / "soft_labels.npy").write_bytes(b"x")
            case "remove":
                (directory / "knowledge.parquet").unlink()
            case "add":
                (directory / "bundle" / "stray").write_bytes(b"x")
            case _:
                path = directory / "manifest.json"
                path.write_text(path.read_text().replace('"two"', '"three"'))

    staged = stage(tmp_path / "staged", fill=b"c")
    spoil(staged)
    with pytest.raises(CorruptArtifact):
        releases.add(staged)
    assert [manifest.release for manifest in releases.list()] == [live]
    assert not list(releases.root.glob(".adding-*"))

    later = releases.add(stage(tmp_path / "later", fill=b"d")).release
    spoil(releases.path(later))
    with pytest.raises(CorruptArtifact):
        releases.activate(later)
    pointer = releases.live()
    assert pointer is not None
    assert pointer.release == live

    releases.add(stage(tmp_path / "repair", fill=b"d"))
    assert releases.activate(later).release == later, "adding it again replaces damaged files"


def test_a_damaged_live_pointer_is_told_and_can_be_written_anew(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    release = releases.add(stage(tmp_path / "staged")).release
    releases.activate(release)
    (releases.root / LIVE).write_text("{")
    with pytest.raises(CorruptArtifact, match="live pointer"):
        releases.live()
    assert releases.activate(release).release == release
    assert releases.live() is not None


def test_an_unreadable_release_does_not_hide_the_others(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    good = releases.add(stage(tmp_path / "good")).release
    bad = releases.add(stage(tmp_path / "bad", fill=b"b")).release
    (releases.path(bad) / "manifest.json").write_text("{}")
    assert [manifest.release for manifest in releases.list()] == [good]
    with pytest.raises(CorruptArtifact):
        releases.get(bad)


def test_kill_9_at_any_instant_of_adding_and_activating_leaves_a_valid_state(
    tmp_path: Path,
) -> None:
    staged = [
        stage(tmp_path / str(number), fill=bytes([65 + number]), size=20_000) for number in range(3)
    ]
    rng = random.Random(0)
    known: set[str] = set()
    for attempt in range(50):
        root = tmp_path / f"releases-{attempt % 10}"
        worker = forked_worker(root, staged)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "it worked until it was killed"
        releases = ReleaseDirectory(root)
        for manifest in releases.list():
            assert check_release(releases.path(manifest.release)) == manifest
            known.add(manifest.release)
        live = releases.live()
        if live is not None:
            check_release(releases.path(live.release))
    assert len(known) == 3
    for attempt in range(10):
        releases = ReleaseDirectory(tmp_path / f"releases-{attempt}")
        for path in staged:
            releases.add(path)
        leftovers = {path.name for path in releases.root.glob(".*")} - {".lock", ".live-next"}
        assert leftovers == set()
        assert len(releases.list()) == 3


def test_a_reader_sees_a_whole_pointer_while_others_write(tmp_path: Path) -> None:
    releases = ReleaseDirectory(tmp_path / "releases")
    names = [
        releases.add(stage(tmp_path / name, fill=name.encode())).release for name in ("a", "b", "c")
    ]
    releases.activate(names[0])
    stop = threading.Event()

    def write(name: str) -> None:
        while not stop.is_set():
            releases.activate(name)

    writers = [threading.Thread(target=write, args=(name,)) for name in names[1:]]
    for writer in writers:
        writer.start()
    seen = set()
    try:
        for _ in range(500):
            pointer = ReleaseDirectory(releases.root).live()
            assert pointer is not None
            assert pointer.previous != pointer.release
            seen.add(pointer.release)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert seen <= set(names)


def test_a_full_disk_adds_nothing(tmp_path: Path) -> None:
    """`/dev/full` answers every write as a full disk does."""
    releases = ReleaseDirectory(tmp_path / "releases")
    live = releases.add(stage(tmp_path / "live")).release
    other = releases.add(stage(tmp_path / "other", fill=b"b")).release
    releases.activate(live)
    (releases.root / ".live-next").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="full"):
        releases.activate(other)
    pointer = releases.live()
    assert pointer is not None
    assert pointer.release == live


def test_a_small_disk_that_fills_up_adds_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the right to mount")
    try:
        releases = ReleaseDirectory(mount / "releases")
        with pytest.raises(StorageFull, match="full"):
            releases.add(stage(tmp_path / "staged", size=1_000_000))
        assert releases.list() == []
        assert releases.add(stage(tmp_path / "small", size=10))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_the_manifest_depends_on_the_files_alone(tmp_path: Path) -> None:
    one = (stage(tmp_path / "one") / "manifest.json").read_bytes()
    two = (stage(tmp_path / "two") / "manifest.json").read_bytes()
    assert one == two
    assert json.loads(one)["created_at"] is None
    assert ReleaseManifest.model_validate_json(one).release.startswith("r-")

"""Files and disks that fail: a disk that fills up, a knowledge file that is cut off, engine files that are damaged."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
from knowledge_samples import unit_vectors, write_sample
from tiny_release import TASK
from tiny_task import build_task

from faults.tally import Tally
from services.platform.errors import CorruptArtifact, StorageFull, VersionNotFound
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest

_QUERIES = unit_vectors(8, seed=3)


def disk_full(folder: Path, tries: int, rng: random.Random) -> Tally:
    """A build on a disk that has too little room, at any point of the build; then there is room, and it is built."""
    tally = Tally("disk full in a build")
    knowledge = write_sample(folder / "k", 3000)
    manifest = version_manifest(knowledge)
    roomy = EdgeBackend(folder / "roomy")
    roomy.build(manifest, iterate_points(knowledge))
    needed = sum(
        path.stat().st_blocks * 512 for path in (folder / "roomy").rglob("*") if path.is_file()
    )
    before = roomy.search(manifest.version, _QUERIES, 5, exact=True).ids
    roomy.close()
    disk = folder / "disk"
    disk.mkdir()
    for _ in range(tries):
        size = rng.randrange(needed // 20, needed * 19 // 20)
        if not _mount(disk, size):
            tally.saw("not tried: this user may not mount a file system")
            return tally
        backend = EdgeBackend(disk / "store")
        try:
            with tally.one_try():
                try:
                    backend.build(manifest, iterate_points(knowledge))
                    tally.saw("built in the room that there was")
                except StorageFull:
                    tally.saw("StorageFull")
                    assert backend.versions() == [], "a version is to be seen"
                    left = [path.name for path in (disk / "store").iterdir()]
                    assert left == [], f"left behind: {left}"
                subprocess.run(["mount", "-o", "remount,size=1G", str(disk)], check=True)
                backend.build(manifest, iterate_points(knowledge))
                found = backend.search(manifest.version, _QUERIES, 5, exact=True).ids
                assert np.array_equal(found, before), "the build with room is else"
                tally.saw("built once there was room")
        finally:
            backend.close()
            subprocess.run(["umount", str(disk)], check=True)
    return tally


def truncated_knowledge(folder: Path, tries: int, rng: random.Random) -> Tally:
    """A release's knowledge file that is cut off anywhere."""
    tally = Tally("truncated knowledge file")
    task = build_task(folder / TASK)
    file = task.releases.path(task.two) / "knowledge.parquet"
    whole = file.read_bytes()
    backend = EdgeBackend(folder / "elsewhere", knowledge=task.releases.knowledge_of_version)
    version = task.releases.get(task.two).store_version
    for _ in range(tries):
        with tally.one_try():
            file.write_bytes(whole[: rng.randrange(len(whole))])
            for attempt in (
                lambda: backend.build(version_manifest(file), iterate_points(file)),
                lambda: backend.search(version, np.eye(8, dtype=np.float32), 3),
                lambda: task.releases.activate(task.two),
            ):
                try:
                    attempt()
                except CorruptArtifact:
                    continue
                raise AssertionError("a file that is cut off was taken")
            assert backend.versions() == [], "a version is to be seen"
            live = task.releases.live()
            assert live is not None
            assert live.release == task.one, "another release is live"
            tally.saw("build, search and activation refused, live stays")
    with tally.one_try():
        tally.tries -= 1
        file.write_bytes(whole)
        backend.build(version_manifest(file), iterate_points(file))
        task.releases.activate(task.two)
    backend.close()
    return tally


def corrupted_engine(folder: Path, tries: int, rng: random.Random) -> Tally:
    """A byte of a sealed version's files, or a whole file of them, that is not what was sealed."""
    tally = Tally("corrupted engine file")
    task = build_task(folder / TASK)
    version = task.releases.get(task.one).store_version
    sealed = task.directory / "store" / version
    shutil.copytree(sealed, folder / "whole")
    vectors = np.eye(8, dtype=np.float32)
    backend = EdgeBackend(task.directory / "store")
    before = backend.search(version, vectors, 4).ids
    backend.close()
    for _ in range(tries):
        with tally.one_try():
            _damage(sealed, rng)
            alone = EdgeBackend(task.directory / "store")
            try:
                alone.search(version, vectors, 4)
            except (CorruptArtifact, VersionNotFound) as error:
                tally.saw(type(error).__name__)
            else:
                raise AssertionError("damaged files were searched")
            finally:
                alone.close()
            helped = EdgeBackend(
                task.directory / "store", knowledge=task.releases.knowledge_of_version
            )
            assert np.array_equal(helped.search(version, vectors, 4).ids, before), "answers else"
            helped.close()
            tally.saw("answered all the same from the knowledge file")
        shutil.rmtree(sealed)
        shutil.copytree(folder / "whole", sealed)
    return tally


def _mount(disk: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _damage(sealed: Path, rng: random.Random) -> None:
    files = sorted(path for path in sealed.rglob("*") if path.is_file() and path.stat().st_size)
    file = rng.choice(files)
    kind = rng.choice(["flip", "cut", "remove"])
    if kind == "remove":
        file.unlink()
        return
    size = file.stat().st_size
    place = rng.randrange(size)
    with file.open("r+b") as stream:
        if kind == "cut":
            stream.truncate(place)
            return
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << rng.randrange(8))]))

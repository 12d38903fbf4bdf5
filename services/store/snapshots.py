"""Snapshots of store versions in a directory: make one, list them, make it a served version again.

A snapshot is a version and the release that it belongs to in one file; see `services.store.archive`.
It is written aside, flushed and renamed into place, so that a killed process leaves a whole one or none.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.platform.durable_files import sync
from services.platform.errors import CorruptArtifact, SnapshotNotFound
from services.releases.manifest import check_release
from services.store.archive import RELEASE, VERSION, SnapshotIndex, pack, read_index, unpack
from services.store.backends.base import StoreBackend
from services.store.backends.sealed import ASIDE, OwnedDirectory, directory_aside, disk_errors

log = structlog.get_logger(__name__)

SUFFIX = ".tar.zst"
SNAPSHOT_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}\.[0-9]{8}t[0-9]{12}z"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot in the directory.

    Attributes:
        name: `<version>.<when>`.
        index: what it holds.
        bytes: of its file.
    """

    name: str
    index: SnapshotIndex
    bytes: int


class SnapshotDirectory:
    """Snapshots in one directory; it is made when the first one is."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, backend: StoreBackend, version: str, release: Path | None) -> Snapshot:
        """Make a snapshot of a version.

        Args:
            backend: that serves the version.
            version: its name.
            release: directory of the release that it belongs to, or None.

        Raises:
            VersionNotFound, CorruptArtifact, StorageFull, StoreUnavailable: there is no snapshot then.
        """
        manifest = backend.manifest(version)
        if release is not None:
            # A snapshot of what is damaged would be found out when it is needed.
            check_release(release)
        made_at = datetime.now(UTC)
        name = f"{version}.{made_at:%Y%m%dt%H%M%S%fz}"
        index = SnapshotIndex(
            created_at=made_at,
            engine=backend.engine,
            version=manifest,
            release=release.name if release else None,
            files={},
        )
        with self._aside() as aside:
            own, packed = aside.path / VERSION, aside.path / "packed"
            backend.save(version, own)
            sources = {VERSION: own} | ({RELEASE: release} if release else {})
            pack(packed, index, _files(sources))
            packed.rename(self._path(name))
            sync(self._root)
        snapshot = self.get(name)
        log.info("snapshot_made", snapshot=name, bytes=snapshot.bytes)
        return snapshot

    def list(self) -> list[Snapshot]:
        """Every snapshot whose index can be read, oldest first; what cannot is logged and left out."""
        found = []
        for path in self._root.glob(f"*{SUFFIX}"):
            try:
                found.append(self.get(path.name.removesuffix(SUFFIX)))
            except (CorruptArtifact, SnapshotNotFound) as error:
                log.warning("snapshot_unreadable", file=path.name, reason=str(error))
        return sorted(found, key=lambda snapshot: (snapshot.index.created_at, snapshot.name))

    def get(self, name: str) -> Snapshot:
        """The snapshot of that name. Raises SnapshotNotFound, CorruptArtifact."""
        path = self._path(name)
        with self._there(name):
            return Snapshot(name, read_index(path), path.stat().st_size)

    @contextmanager
    def unpacked(self, name: str) -> Iterator[tuple[SnapshotIndex, Path]]:
        """What a snapshot holds and a directory with its files, each one checked; gone afterwards.

        Raises:
            SnapshotNotFound.
            CorruptArtifact: truncated, damaged, or with files that its index does not tell of.
            StorageFull, StoreUnavailable.
        """
        path = self._path(name)
        with self._aside() as aside:
            with self._there(name):
                index = unpack(path, aside.path)
            yield index, aside.path

    def delete(self, name: str) -> None:
        """Remove a snapshot. Raises SnapshotNotFound, StoreUnavailable."""
        with disk_errors(self._root, "nothing was removed"), self._there(name):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(SNAPSHOT_PATTERN, name):
            raise _not_found(name)
        return self._root / f"{name}{SUFFIX}"

    @contextmanager
    def _there(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise _not_found(name) from error

    def _aside(self) -> AbstractContextManager[OwnedDirectory]:
        return directory_aside(self._root, ASIDE, "the snapshot was not made, nor restored")


def _files(sources: dict[str, Path]) -> dict[str, Path]:
    return {
        f"{name}/{path.relative_to(directory).as_posix()}": path
        for name, directory in sources.items()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _not_found(name: str) -> SnapshotNotFound:
    return SnapshotNotFound(
        f"There is no snapshot {name[:100]!r}.", hint="GET /v1/snapshots lists those there are."
    )

"""Store versions in a directory, searched in process by Qdrant Edge.

    <directory>/<version>/version.json     the manifest, written last
    <directory>/<version>/shard/           the engine's files, sealed: no process opens them
    <directory>/<version>/layout.json      how they are laid out, where not as usual
    <directory>/<version>/sums.json        their lengths and sums

Every process that searches copies a version to a directory of its own and opens the copy. Where the
sealed files are absent or damaged, it builds its own copy from the knowledge file.
"""

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from services.platform.durable_files import sync, sync_tree
from services.platform.errors import (
    CorruptArtifact,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.base import (
    Engine,
    Hits,
    PointBatch,
    StoredItem,
    VersionManifest,
    check_query,
    same_version,
    valid_version,
    version_not_found,
)
from services.store.backends.edge_build import build_in_child
from services.store.backends.edge_shard import OpenShard
from services.store.backends.layout import Layout
from services.store.backends.manifest import MANIFEST, manifest_from_knowledge, read_manifest
from services.store.backends.sealed import (
    ASIDE,
    SUMS,
    OwnedDirectory,
    check_sums,
    copy_checked,
    directory_aside,
    disk_errors,
    remove_leftovers,
    write_sums,
)
from services.store.knowledge_file import iterate_points

log = structlog.get_logger(__name__)

KnowledgeLookup = Callable[[str], Path | None]
"""The knowledge file of a version, or None where there is none at hand."""

SHARD = "shard"
LAYOUT = "layout.json"
_PRIVATE = "retrikt-store-"
_WAIT_SECONDS = 2.0


class EdgeBackend:
    """A `StoreBackend` on a directory of sealed versions.

    Args:
        directory: holds a directory for each version; made when the first one is built.
        knowledge: where a version's knowledge file is; None does without that way out.
        private: where this process's copies go; the system's temporary directory unless told
            otherwise. Removed on `close`; those of killed processes are removed by the next one.
        keep_open: how many versions stay open; the one not searched for longest is closed first.
        layout: of the versions that are built here; shards and copies are not for one directory.
    """

    engine: Engine = "edge"

    def __init__(
        self,
        directory: Path,
        *,
        knowledge: KnowledgeLookup | None = None,
        private: Path | None = None,
        keep_open: int = 4,
        layout: Layout | None = None,
    ) -> None:
        self._directory = directory
        self._layout = layout or Layout()
        self._knowledge = knowledge or (lambda _: None)
        self._private = private or Path(tempfile.gettempdir())
        self._keep_open = keep_open
        self._open: dict[str, tuple[OpenShard, OwnedDirectory]] = {}
        self._lock = Lock()
        self._gates = [Lock() for _ in range(16)]
        self._closed = False
        remove_leftovers(self._private, _PRIVATE)

    def build(self, manifest: VersionManifest, batches: Iterable[PointBatch]) -> VersionManifest:
        if (present := self._sealed(manifest)) is not None:
            return present
        sealed = manifest.model_copy(update={"created_at": datetime.now(UTC)})
        with self._aside() as aside:
            shard = aside.path / SHARD
            build_in_child(shard, manifest, batches, lock=aside.lock, layout=self._layout)
            if self._layout != Layout():
                (aside.path / LAYOUT).write_text(self._layout.model_dump_json(), encoding="utf-8")
            write_sums(aside.path)
            (aside.path / MANIFEST).write_text(sealed.model_dump_json(indent=1), encoding="utf-8")
            sync_tree(aside.path)
            return self._put_in_place(aside, sealed)

    def versions(self) -> list[VersionManifest]:
        found = []
        for path in self._directory.glob(f"[!.]*/{MANIFEST}"):
            try:
                found.append(read_manifest(path))
            except (CorruptArtifact, VersionNotFound) as error:
                log.warning("version_unreadable", version=path.parent.name, reason=str(error))
        return sorted(found, key=lambda manifest: (str(manifest.created_at), manifest.version))

    def manifest(self, version: str) -> VersionManifest:
        try:
            return read_manifest(self._path(version) / MANIFEST)
        except (VersionNotFound, CorruptArtifact):
            if (path := self._knowledge(version)) is None:
                raise
            return manifest_from_knowledge(path, version)

    def search(
        self, version: str, vectors: NDArray[np.float32], k: int, *, exact: bool = False
    ) -> Hits:
        while True:
            shard = self._shard(version)
            check_query(shard.manifest, vectors, k)
            if (hits := shard.search(vectors, k, exact=exact)) is not None:
                return hits

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        while True:
            if (items := self._shard(version).items(ids)) is not None:
                return items

    def delete(self, version: str) -> None:
        path = self._path(version)
        if not path.is_dir():
            raise version_not_found(version)
        with self._lock:
            self._let_go(version)
        trash = OwnedDirectory(self._directory, ASIDE)
        try:
            # One rename makes it invisible; what a kill leaves of the rest is a leftover.
            path.rename(trash.path / version)
        except FileNotFoundError as error:
            raise version_not_found(version) from error
        finally:
            trash.remove()

    def save(self, version: str, directory: Path) -> None:
        sealed = self._path(version)
        read_manifest(sealed / MANIFEST)
        with disk_errors(directory, f"the version {version} was not saved"):
            copy_checked(sealed, directory)
            for name in (SUMS, MANIFEST):
                shutil.copyfile(sealed / name, directory / name)

    def restore(self, manifest: VersionManifest, directory: Path) -> VersionManifest:
        if read_manifest(directory / MANIFEST) != manifest:
            raise CorruptArtifact(f"{directory} does not hold the version {manifest.version}.")
        if (present := self._sealed(manifest)) is not None:
            with suppress(CorruptArtifact):
                check_sums(self._path(manifest.version))
                return present
        with self._aside() as aside:
            copy_checked(directory, aside.path)
            for name in (SUMS, MANIFEST):
                shutil.copyfile(directory / name, aside.path / name)
            sync_tree(aside.path)
            return self._put_in_place(aside, manifest, replace=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for version in list(self._open):
                self._let_go(version)

    def _path(self, version: str) -> Path:
        return self._directory / valid_version(version)

    def _sealed(self, manifest: VersionManifest) -> VersionManifest | None:
        """The version that is already there; None where there is none or its manifest is damaged."""
        try:
            present = read_manifest(self._path(manifest.version) / MANIFEST)
        except (VersionNotFound, CorruptArtifact):
            return None
        return same_version(present, manifest)

    def _aside(self) -> AbstractContextManager[OwnedDirectory]:
        return directory_aside(self._directory, ASIDE, "no store version was written")

    def _put_in_place(
        self, aside: OwnedDirectory, sealed: VersionManifest, *, replace: bool = False
    ) -> VersionManifest:
        target = self._path(sealed.version)
        try:
            aside.path.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not replace and (present := self._sealed(sealed)) is not None:
                return present  # Another process was quicker.
            shutil.rmtree(target)
            aside.path.rename(target)
        sync(self._directory)
        log.info("version_sealed", version=sealed.version, items=sealed.count)
        return sealed

    def _shard(self, version: str) -> OpenShard:
        opened = self._open.get(version)
        if opened is not None and not opened[0].closed:
            return opened[0]
        with self._opening(version):
            if (opened := self._open.get(version)) is None:
                opened = self._keep(version, *self._open_private(version))
            return opened[0]

    @contextmanager
    def _opening(self, version: str) -> Iterator[None]:
        """One thread opens a version; others wait a moment, and do not pile up behind a rebuild."""
        gate = self._gates[hash(version) % len(self._gates)]
        if not gate.acquire(timeout=_WAIT_SECONDS):
            raise StoreUnavailable(f"The store version {version} is still being opened.")
        try:
            yield
        finally:
            gate.release()

    def _keep(
        self, version: str, shard: OpenShard, copy: OwnedDirectory
    ) -> tuple[OpenShard, OwnedDirectory]:
        with self._lock:
            while len(self._open) >= self._keep_open:
                self._let_go(min(self._open, key=lambda name: self._open[name][0].last_used))
            self._open[version] = (shard, copy)
            if self._closed:
                self._let_go(version)
                raise StoreUnavailable("The store has been closed.")
        return shard, copy

    def _open_private(self, version: str) -> tuple[OpenShard, OwnedDirectory]:
        if self._closed:
            raise StoreUnavailable("The store has been closed.")
        with disk_errors(self._private, f"no copy of the store version {version} can be made"):
            copy = OwnedDirectory(self._private, _PRIVATE)
            try:
                return self._fill(version, copy), copy
            except BaseException:
                copy.remove()
                raise

    def _fill(self, version: str, copy: OwnedDirectory) -> OpenShard:
        sealed = self._path(version)
        try:
            manifest = read_manifest(sealed / MANIFEST)
            copy_checked(sealed, copy.path)
            return OpenShard(copy.path / SHARD, manifest, _read_layout(copy.path / LAYOUT))
        except (VersionNotFound, CorruptArtifact) as error:
            path = self._knowledge(version)
            if path is None:
                raise
            # A version that was never sealed here is no fault: an evaluation asks for one.
            damaged = isinstance(error, CorruptArtifact)
            level = logging.WARNING if damaged else logging.INFO
            log.log(level, "private_copy_built_from_knowledge", version=version, reason=str(error))
        manifest = manifest_from_knowledge(path, version)
        shutil.rmtree(copy.path / SHARD, ignore_errors=True)
        build_in_child(copy.path / SHARD, manifest, iterate_points(path), lock=copy.lock)
        return OpenShard(copy.path / SHARD, manifest)

    def _let_go(self, version: str) -> None:
        if (opened := self._open.pop(version, None)) is not None:
            shard, copy = opened
            shard.close()
            copy.remove()


def _read_layout(path: Path) -> Layout:
    """What lies beside a version. Raises CorruptArtifact."""
    try:
        return Layout.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Layout()
    except ValidationError as error:
        raise CorruptArtifact(f"{path} cannot be read: {error.errors()[0]['msg']}.") from error

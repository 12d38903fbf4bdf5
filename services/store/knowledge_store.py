"""The knowledge store as one object: versions, releases and snapshots; knows nothing of HTTP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    NotFound,
    ReleaseNotFound,
    Unavailable,
    VersionNotFound,
)
from services.releases.directory import LivePointer, ReleaseDirectory
from services.releases.manifest import (
    KNOWLEDGE,
    ReleaseManifest,
    check_release,
    refuse_given_up,
    refuse_purged,
)
from services.store.archive import RELEASE, VERSION, SnapshotIndex
from services.store.backends.base import (
    Hits,
    ItemCounts,
    StoreBackend,
    StoredItem,
    VersionManifest,
)
from services.store.backends.manifest import manifest_from_knowledge
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.last_read import LastRead
from services.store.live_release import LIVE_NAME, LiveRelease
from services.store.snapshots import Snapshot, SnapshotDirectory


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        version: that was searched, never `live`.
        hits: the nearest items.
        items: their texts, by id; None where they were not asked for.
    """

    version: str
    hits: Hits
    items: dict[int, StoredItem] | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a version.

    Attributes:
        manifest: of the version.
        counts: its items by label and origin; None where nothing at hand tells them.
        age_seconds: since it was sealed; None for one that only its knowledge file is left of.
        live: whether the live release searches it.
    """

    manifest: VersionManifest
    counts: ItemCounts | None
    age_seconds: float | None
    live: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What a snapshot brought back: a version, and the release that it belongs to, if there is one."""

    manifest: VersionManifest
    release: str | None


class KnowledgeStore:
    """One task's knowledge; may be called from several threads.

    Wherever a version's name is taken, `live` stands for the version that the live release searches.

    Args:
        backend: where the versions are.
        releases: the task's releases; without them nothing is live, and nothing can be activated.
        snapshots: where snapshots are kept; without it there are none.
    """

    def __init__(
        self,
        backend: StoreBackend,
        *,
        releases: ReleaseDirectory | None = None,
        snapshots: SnapshotDirectory | None = None,
    ) -> None:
        self._backend = backend
        self._directory = releases
        self._snapshots = snapshots
        self._live = LiveRelease(releases) if releases else None
        self._read = LastRead()

    def versions(self) -> list[VersionManifest]:
        """The sealed versions, oldest first."""
        return self._backend.versions()

    def manifest(self, version: str) -> VersionManifest:
        """The manifest of a version. Raises VersionNotFound, CorruptArtifact, StoreUnavailable."""
        return self._backend.manifest(self._name(version))

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        with_items: bool = False,
    ) -> Found:
        """The k nearest items of each vector; see `StoreBackend.search`."""
        name = self._name(version)
        with self._read.reading(name):
            hits = self._backend.search(name, vectors, k, exact=exact)
            if not with_items:
                return Found(name, hits, None)
            ids = np.unique(hits.ids[hits.ids >= 0]).tolist()
            return Found(name, hits, {item.id: item for item in self._backend.items(name, ids)})

    def at_hand(self, version: str) -> bool:
        """Whether a search of the version, by its own name, waits for nothing but this processor.

        So it is with an engine in this process, when the version is the one that was read last.
        """
        return self._backend.engine == "edge" and self._read.last == version

    def items(self, version: str, ids: Sequence[int]) -> tuple[str, list[StoredItem]]:
        """The version's own name, and its items with these ids. Raises NotFound."""
        name = self._name(version)
        with self._read.reading(name):
            return name, self._backend.items(name, ids)

    def statistics(self, version: str) -> Statistics:
        """Items by label and by origin, and the age of a version."""
        manifest = self.manifest(version)
        sealed_at = manifest.created_at
        age = None if sealed_at is None else (datetime.now(UTC) - sealed_at).total_seconds()
        live = False
        # A damaged pointer is told where it is needed; figures do without.
        with suppress(CorruptArtifact, NotFound):
            live = self._live is not None and self._live.version_or_none() == manifest.version
        return Statistics(manifest, self._counts(manifest), age, live)

    def releases(self) -> tuple[list[ReleaseManifest], LivePointer | None]:
        """The releases, oldest first, and the live pointer. Raises ReleaseNotFound without any."""
        directory = self._releases()
        return directory.list(), directory.live()

    def activate(self, release: str) -> LivePointer:
        """Make a release live, once its store version is known to be here and to be its own.

        Raises:
            ReleaseNotFound, VersionNotFound, IncompatibleArtifacts, CorruptArtifact, StorageFull,
            Unavailable: the live one stays.
        """
        directory = self._releases()
        self._check(directory.get(release))
        with _writable(directory):
            return directory.activate(release)

    def rollback(self) -> LivePointer:
        """Make the release before the live one live again. Raises as `activate` does."""
        directory = self._releases()
        live = directory.live()
        if live is not None and live.previous is not None:
            self._check(directory.get(live.previous))
        with _writable(directory):
            return directory.rollback()

    def snapshot(self, version: str) -> Snapshot:
        """Make a snapshot of a version, with the release that it belongs to.

        Raises:
            NotFound: no snapshots are kept.
            VersionNotFound, CorruptArtifact, StorageFull, StoreUnavailable.
        """
        snapshots, name = self._kept_snapshots(), self._name(version)
        return snapshots.create(self._backend, name, self._release_of(name))

    def snapshots(self) -> list[Snapshot]:
        """Every snapshot, oldest first. Raises NotFound where none are kept."""
        return self._kept_snapshots().list()

    def delete_snapshot(self, name: str) -> None:
        """Remove a snapshot. Raises SnapshotNotFound."""
        self._kept_snapshots().delete(name)

    def restore(self, name: str) -> Restored:
        """Make a snapshot's version a served one again, and its release one that can be activated.

        Another engine's version is built anew from the release's knowledge file. A restore that was
        interrupted is repeated from the start and finds what is there already.

        Raises:
            SnapshotNotFound.
            CorruptArtifact: the snapshot is damaged; nothing is restored.
            IncompatibleArtifacts: another task's, or another engine's without a release.
            ReleasePurged: its release's knowledge was deleted here on request; nothing is restored.
            StorageFull, StoreUnavailable, Unavailable.
        """
        with self._kept_snapshots().unpacked(name) as (index, directory):
            release = self._release_in(index, directory)
            manifest = self._restored_version(index, directory)
            if release is not None and self._directory is not None:
                with _writable(self._directory):
                    self._directory.add(directory / RELEASE, retell=False)
        return Restored(manifest, index.release)

    def close(self) -> None:
        """Let go of files and connections."""
        self._backend.close()

    def _name(self, version: str) -> str:
        if version != LIVE_NAME:
            return version
        if self._live is None:
            raise VersionNotFound(
                "This store knows no live version: it has no releases.",
                hint="Set RETRIKT_STORE_RELEASES, or name a version.",
            )
        return self._live.version()

    def _counts(self, manifest: VersionManifest) -> ItemCounts | None:
        if manifest.counts is None and self._directory is not None:
            path = self._directory.knowledge_of_version(manifest.version)
            return version_manifest(path).counts if path else None
        return manifest.counts

    def _check(self, release: ReleaseManifest) -> None:
        refuse_given_up(release)
        version = self._backend.manifest(release.store_version)
        if (version.encoder_fingerprint, version.knowledge_sha256, version.task) != (
            release.encoder_fingerprint,
            release.knowledge_sha256,
            release.task,
        ):
            raise IncompatibleArtifacts(
                f"The store version {version.version} was not built for the release {release.release}.",
                hint="Build the version again from the release's knowledge file.",
            )

    def _release_of(self, version: str) -> Path | None:
        return self._directory.path_of_version(version) if self._directory else None

    def _release_in(self, index: SnapshotIndex, directory: Path) -> ReleaseManifest | None:
        """The release in a snapshot, once it is known to belong to the snapshot's version and here."""
        if index.release is None:
            return None
        release = check_release(directory / RELEASE)
        belongs = (release.release, release.store_version, release.knowledge_sha256, release.task)
        version = index.version
        if belongs != (index.release, version.version, version.knowledge_sha256, version.task):
            raise IncompatibleArtifacts(
                f"The snapshot's release {release.release} does not belong to its version "
                f"{version.version}."
            )
        present = self._directory.list() if self._directory else []
        for known in present:
            if known.release == release.release:
                refuse_purged(known)
        others = {known.task for known in present}
        if others - {release.task}:
            raise IncompatibleArtifacts(
                f"The snapshot is of the task {release.task!r}, the releases here are of "
                f"{min(others)!r}.",
                hint="Restore it where that task is served.",
            )
        return release

    def _restored_version(self, index: SnapshotIndex, directory: Path) -> VersionManifest:
        if index.engine == self._backend.engine:
            return self._backend.restore(index.version, directory / VERSION)
        if index.release is None:
            raise IncompatibleArtifacts(
                f"The snapshot holds files of the backend {index.engine} and no release to build the "
                f"version from; this store's backend is {self._backend.engine}."
            )
        knowledge = directory / RELEASE / KNOWLEDGE
        manifest = manifest_from_knowledge(knowledge, index.version.version)
        return self._backend.build(manifest, iterate_points(knowledge))

    def _releases(self) -> ReleaseDirectory:
        if self._directory is None:
            raise ReleaseNotFound(
                "This store has no releases directory.", hint="Set RETRIKT_STORE_RELEASES."
            )
        return self._directory

    def _kept_snapshots(self) -> SnapshotDirectory:
        if self._snapshots is None:
            raise NotFound("This store keeps no snapshots.", hint="Set RETRIKT_STORE_SNAPSHOTS.")
        return self._snapshots


@contextmanager
def _writable(directory: ReleaseDirectory) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The releases in {directory.root} cannot be written: {error.strerror}.",
            hint="Give this service the right to write there, or use `retrikt release`.",
        ) from error

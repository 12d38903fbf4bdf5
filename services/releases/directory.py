"""A task's releases on disk, and the live pointer that says which one serves.

    <root>/live.json            {"release", "previous", "activated_at"}, replaced by rename
    <root>/<release>/           manifest.json, bundle/, knowledge.parquet, soft_labels.npy, lexical.safetensors,
                                edited.safetensors
    <root>/.adding-…, .live-…   what a writer has not finished; removed by the next one
    <root>/.lock                held by the one writer at a time

Everything is written aside, flushed and renamed, so that a process killed at any instant leaves
either the state before or the state after. Readers take no lock.
"""

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from services.platform.durable_files import full_disk_told, rename_into_place, replacing, sync
from services.platform.errors import (
    CorruptArtifact,
    InvalidInput,
    ReleaseNotFound,
    ReleasePruned,
)
from services.releases.manifest import (
    EDITED,
    KNOWLEDGE,
    LEXICAL,
    MANIFEST,
    ReleaseManifest,
    check_release,
    read_release_manifest,
)

log = structlog.get_logger(__name__)

LIVE = "live.json"
RELEASE_NAME = re.compile(r"r-[0-9a-f]{12}")


class LivePointer(BaseModel):
    """`live.json`: the release that serves, the one before it, and since when (ISO 8601, UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str
    previous: str | None = None
    activated_at: str


class ReleaseDirectory:
    """`<task dir>/releases`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> list[ReleaseManifest]:
        """Every release that can be read, oldest first; what cannot is logged and left out."""
        found = []
        for path in sorted(self.root.glob("r-*")):
            if not RELEASE_NAME.fullmatch(path.name):
                continue
            try:
                found.append(self.get(path.name))
            except (CorruptArtifact, ReleaseNotFound) as error:
                log.warning("release_unreadable", release=path.name, reason=str(error))
        return sorted(found, key=lambda manifest: (manifest.created_at or "", manifest.release))

    def get(self, release: str) -> ReleaseManifest:
        """The manifest of a release; its other files are checked when it is added and activated.

        Raises:
            ReleaseNotFound: there is no such release.
            CorruptArtifact: its manifest is missing, unreadable, or another release's.
        """
        return self._named(release, read_release_manifest(self.path(release)))

    def path(self, release: str) -> Path:
        """The directory of a release.

        Raises:
            ReleaseNotFound: there is no such release.
        """
        path = self.root / release
        if not RELEASE_NAME.fullmatch(release) or not path.is_dir():
            raise ReleaseNotFound(
                f"There is no release {release!r} in {self.root}.",
                hint="`retrikt release list` shows those that there are.",
            )
        return path

    def knowledge_of_version(self, store_version: str) -> Path | None:
        """The knowledge file that a store version is built from; None where no release has it."""
        path = self.path_of_version(store_version)
        return path / KNOWLEDGE if path else None

    def path_of_version(self, store_version: str) -> Path | None:
        """The directory of a release that searches a store version; of several that do, of the live one."""
        live = None
        with suppress(CorruptArtifact):
            live = self.live()
        found = [
            manifest.release
            for manifest in self.list()
            if manifest.store_version == store_version and manifest.can_serve
        ]
        if live is not None and live.release in found:
            return self.path(live.release)
        return self.path(found[0]) if found else None

    def live(self) -> LivePointer | None:
        """The live pointer, or None before the first activation.

        Raises:
            CorruptArtifact: the file is there but cannot be read.
        """
        path = self.root / LIVE
        try:
            return LivePointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise CorruptArtifact(
                f"The live pointer {path} cannot be read: {error}",
                hint="Activate a release to write it anew.",
            ) from error

    def add(self, staged: Path, *, retell: bool = True) -> ReleaseManifest:
        """Copy the release in `staged` here, check it, and rename it into place.

        Adding the same release again replaces what its manifest says beside the content (figures, and the
        gate's reasons: another gate may have let it pass, or not), and nothing else; unless the one
        that is here was damaged, or its files were given up: then it is replaced as a whole.

        Args:
            staged: the release's directory.
            retell: replace what is said beside the content; an old copy of a release has no say in it.

        Raises:
            CorruptArtifact: `staged` is not what its manifest says; nothing is added.
            StorageFull: the disk has no room left; nothing is added.
        """
        told = read_release_manifest(staged)
        release = told.release
        with self.writing():
            target = self.root / release
            if target.exists():
                try:
                    present = self._named(release, check_release(target))
                    return self._told_anew(present, told) if retell else present
                except (CorruptArtifact, ReleasePruned) as error:
                    log.warning("release_replaced", release=release, reason=str(error))
            aside = self.root / f".adding-{release}"
            try:
                shutil.copytree(staged, aside)
                manifest = check_release(aside).model_copy(update={"created_at": _now()})
                text = manifest.model_dump_json(indent=1)
                (aside / MANIFEST).write_text(text, encoding="utf-8")
                if target.exists():
                    target.rename(self.root / f".damaged-{release}")
                rename_into_place(aside, target)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        log.info("release_added", release=release, items=manifest.items)
        return manifest

    def activate(self, release: str, *, instead_of: str | None = None) -> LivePointer:
        """Make a release the live one: one atomic rename of the pointer.

        Args:
            release: that goes live.
            instead_of: only where this one is live still; else nothing is changed.

        Returns:
            What is live now.

        Raises:
            ReleaseNotFound: there is no such release.
            ReleasePurged, ReleasePruned: its files were given up; the live one stays.
            CorruptArtifact: its files are not what its manifest says; the live one stays.
            StorageFull: the disk has no room left; the live one stays.
        """
        with self.writing():
            self._named(release, check_release(self.path(release)))
            if instead_of is not None:
                live = self.live()
                if live is not None and live.release != instead_of:
                    return live
            return self._point_at(release)

    def rollback(self) -> LivePointer:
        """Make the previous release the live one; doing it twice comes back to the first.

        Raises:
            ReleaseNotFound: no release was live before this one, or it is gone.
            ReleasePurged, ReleasePruned, CorruptArtifact: see `activate`.
        """
        with self.writing():
            live = self.live()
            if live is None or live.previous is None:
                raise ReleaseNotFound(
                    f"There is no previous release in {self.root} to roll back to.",
                    hint="`retrikt release activate` takes any release of `retrikt release list`.",
                )
            self._named(live.previous, check_release(self.path(live.previous)))
            return self._point_at(live.previous)

    def purge(self, release: str) -> ReleaseManifest:
        """Delete a release's knowledge file and lexical index, for good: it can never serve again.

        Its manifest, student and soft labels stay, as a record of what served.

        Raises:
            ReleaseNotFound: there is no such release.
            InvalidInput: it is live.
            StorageFull: the disk has no room left.
        """
        with self.writing():
            live = self.live()
            if live is not None and live.release == release:
                raise InvalidInput(
                    f"The release {release} is live and cannot be purged.",
                    hint="Make another one live first.",
                )
            path = self.path(release)
            manifest = self.get(release)
            if manifest.purged_at is None:
                manifest = manifest.model_copy(update={"purged_at": _now()})
                # Marked first: killed in between, it is known as purged and purged again.
                self.write_manifest(manifest)
            # Two indexes have the texts' n-grams; nobody needs any of it any more.
            (path / EDITED).unlink(missing_ok=True)
            (path / LEXICAL).unlink(missing_ok=True)
            (path / KNOWLEDGE).unlink(missing_ok=True)
            sync(path)
        log.info("release_purged", release=release)
        return manifest

    def _point_at(self, release: str) -> LivePointer:
        try:
            live = self.live()
        except CorruptArtifact as error:
            log.warning("live_pointer_replaced", reason=str(error))
            live = None
        if live is not None and live.release == release:
            return live
        pointer = LivePointer(
            release=release,
            previous=None if live is None else live.release,
            activated_at=_now(),
        )
        self._write(self.root / LIVE, self.root / ".live-next", pointer)
        log.info("release_activated", release=release, previous=pointer.previous)
        return pointer

    def _told_anew(self, present: ReleaseManifest, told: ReleaseManifest) -> ReleaseManifest:
        """The manifest of a release that is here, with what is said of it now beside its content."""
        beside = {"metrics": told.metrics, "gate": told.gate, "edits": told.edits}
        manifest = present.model_copy(update=beside)
        if manifest != present:
            self.write_manifest(manifest)
            log.info("release_told_anew", release=present.release, gate=list(manifest.gate))
        return manifest

    def write_manifest(self, manifest: ReleaseManifest) -> None:
        """Put a release's manifest in place of the one that is there; for a writer, see `writing`."""
        path = self.root / manifest.release / MANIFEST
        self._write(path, path.with_name(f".{MANIFEST}"), manifest)

    def _write(self, path: Path, aside: Path, content: BaseModel) -> None:
        with replacing(path, aside=aside) as file:
            file.write(content.model_dump_json(indent=1).encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One writer at a time; the lock goes with the process that held it. Raises StorageFull."""
        with full_disk_told(self.root, "nothing was added or changed"):
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for path in [*self.root.glob(".adding-*"), *self.root.glob(".damaged-*")]:
                    shutil.rmtree(path, ignore_errors=True)
                yield

    def _named(self, release: str, manifest: ReleaseManifest) -> ReleaseManifest:
        if manifest.release != release:
            raise CorruptArtifact(
                f"The directory {self.root / release} holds the release {manifest.release}."
            )
        return manifest


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

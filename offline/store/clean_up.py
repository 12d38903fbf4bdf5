"""Keeping the last few releases of a task, their store versions and its snapshots, and no others.

What serves stays: the live release, the one before it, and whatever a student still serves (see
`services.releases.in_use`). A release is marked before its store version goes, and each goes by one
rename or one call, so that a clean-up killed at any instant leaves nothing that is half there; the next one
carries on. Versions that no release of the task names are left alone: somebody restored or built them on purpose.
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from offline.pipeline.chain import run_lock
from offline.store.config import StoreConfig
from offline.store.publish import open_backend
from services.platform.errors import SnapshotNotFound, VersionNotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    BUNDLE,
    EDITED,
    KNOWLEDGE,
    LEXICAL,
    SOFT_LABELS,
    ReleaseManifest,
)
from services.releases.pruning import finish_pruning, prune_release, why_kept
from services.store.backends.base import StoreBackend
from services.store.snapshots import SnapshotDirectory

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """What a clean-up took away; in a dry run, what it would take.

    Attributes:
        releases: that can serve no more.
        versions: of the store.
        snapshots: by name.
        kept: older releases that stay all the same, and why: `live`, `previous` or `served`.
    """

    releases: tuple[str, ...]
    versions: tuple[str, ...]
    snapshots: tuple[str, ...]
    kept: Mapping[str, str]

    def figures(self) -> dict[str, object]:
        return {
            "releases": list(self.releases),
            "versions": list(self.versions),
            "snapshots": list(self.snapshots),
            "kept": dict(self.kept),
        }


def clean_up(
    task_directory: Path, backend: StoreBackend, keep: int, *, dry_run: bool = False
) -> CleanedUp:
    """Keep the `keep` newest releases, and as many snapshots, beside what serves.

    The caller holds the lock of the task's runs: a version that is built there has no release yet.

    Args:
        task_directory: holds `releases` and `snapshots`.
        backend: that holds the store versions.
        keep: at least 1.
        dry_run: say what would go, and take nothing.

    Raises:
        CorruptArtifact: the live pointer cannot be read; nothing is taken away.
        StorageFull: the disk has no room for a mark.
        StoreUnavailable: the store does not answer; the next clean-up takes its versions.
    """
    releases = ReleaseDirectory(task_directory / "releases")
    kept_snapshots = SnapshotDirectory(task_directory / "snapshots")
    live = releases.live()
    serving = {live.release, live.previous} if live else set()
    there = releases.list()
    given_up: list[str] = []
    kept: dict[str, str] = {}
    able = [manifest for manifest in there if manifest.can_serve]
    for manifest in able[:-keep]:
        give_up = why_kept if dry_run else prune_release
        if (reason := give_up(releases, manifest.release)) is None:
            given_up.append(manifest.release)
        else:
            kept[manifest.release] = reason
    if not dry_run:
        _finish(releases, there)
    searched_no_more = _searched_no_more(releases, given_up)
    versions = [each.version for each in backend.versions() if each.version in searched_no_more]
    served = {manifest.store_version for manifest in there if manifest.release in serving}
    snapshots = _snapshots(kept_snapshots, keep, served)
    if not dry_run:
        versions = [version for version in versions if _deleted(releases, version, backend)]
        for name in snapshots:
            with suppress(SnapshotNotFound):
                kept_snapshots.delete(name)
        log.info("cleaned_up", releases=given_up, versions=versions, snapshots=snapshots)
    return CleanedUp(tuple(given_up), tuple(versions), tuple(snapshots), kept)


def clean_up_task(
    task_directory: Path, store: StoreConfig, keep: int, *, dry_run: bool = False
) -> CleanedUp:
    """Clean up where the configuration has the store versions, while no run works there.

    Raises:
        AlreadyRunning: a run works in the task's directory.
        As `clean_up` does.
    """
    with run_lock(task_directory, hint="Wait for it to end."):
        backend = open_backend(task_directory, store)
        try:
            return clean_up(task_directory, backend, keep, dry_run=dry_run)
        finally:
            backend.close()


def _finish(releases: ReleaseDirectory, there: Sequence[ReleaseManifest]) -> None:
    """Take what an earlier clean-up, killed between its mark and its end, has left of a release."""
    for manifest in there:
        directory = releases.path(manifest.release)
        parts = (KNOWLEDGE, SOFT_LABELS, LEXICAL, EDITED, BUNDLE)
        left = any((directory / name).exists() for name in parts)
        if manifest.pruned_at is not None and left:
            finish_pruning(releases, manifest.release)


def _searched_no_more(releases: ReleaseDirectory, given_up: Sequence[str]) -> set[str]:
    """The versions that only releases without their files would search; `given_up` counts as such in a dry run."""
    there = releases.list()
    readable = {manifest.release for manifest in there}
    if unreadable := sorted({path.name for path in releases.root.glob("r-*")} - readable):
        log.warning("versions_left_alone", reason=f"what {unreadable[0]} searches cannot be read")
        return set()
    able = [each for each in there if each.can_serve and each.release not in given_up]
    searched = {manifest.store_version for manifest in there}
    return searched - {manifest.store_version for manifest in able}


def _deleted(releases: ReleaseDirectory, version: str, backend: StoreBackend) -> bool:
    """Delete a version, unless a release that searches it was added since; whether it is gone."""
    with releases.writing():
        if version not in _searched_no_more(releases, ()):
            return False
        with suppress(VersionNotFound):  # Somebody else was quicker.
            backend.delete(version)
    return True


def _snapshots(directory: SnapshotDirectory, keep: int, serving: Set[str]) -> list[str]:
    """All but the newest, and the newest one of each version that serves."""
    there = directory.list()
    newest = {snapshot.index.version.version: snapshot.name for snapshot in there}
    stay = {newest[version] for version in serving if version in newest}
    return [snapshot.name for snapshot in there[:-keep] if snapshot.name not in stay]

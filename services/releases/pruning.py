"""Giving up an old release: its files go for the room that they take, its manifest stays as a record.

The manifest says so before the first file goes. Whoever comes in between, after a kill as well, finds the release
marked and not half there; giving it up again takes the rest.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.platform.durable_files import sync
from services.releases.directory import LivePointer, ReleaseDirectory
from services.releases.in_use import served_by_nobody
from services.releases.manifest import BUNDLE, EDITED, KNOWLEDGE, LEXICAL, SOFT_LABELS

log = structlog.get_logger(__name__)


def why_kept(releases: ReleaseDirectory, release: str) -> str | None:
    """What keeps a release from being given up now: `live`, `previous` or `served`; None where nothing does.

    Raises:
        ReleaseNotFound: there is no such release.
        CorruptArtifact: the live pointer cannot be read.
    """
    if (state := _state(releases.live(), release)) is not None:
        return state
    with served_by_nobody(releases.path(release)) as alone:
        return None if alone else "served"


def prune_release(releases: ReleaseDirectory, release: str) -> str | None:
    """Give a release up, unless something keeps it: see `why_kept`, which says what is returned and raised.

    Adding the same release again, a snapshot's or a run's, brings it back.

    Raises:
        StorageFull: the disk has no room for the mark.
    """
    with releases.writing():
        if (state := _state(releases.live(), release)) is not None:
            return state
        manifest = releases.get(release)
        if manifest.pruned_at is None:
            with served_by_nobody(releases.path(release)) as alone:
                if not alone:
                    return "served"
                now = datetime.now(UTC).isoformat(timespec="microseconds")
                releases.write_manifest(manifest.model_copy(update={"pruned_at": now}))
        # Whoever takes it up from here on finds it marked.
        _remove_files(releases.path(release))
    log.info("release_pruned", release=release)
    return None


def finish_pruning(releases: ReleaseDirectory, release: str) -> None:
    """Take what is left of a release that is marked as given up; one that was added again since stays.

    Raises:
        ReleaseNotFound: there is no such release.
        CorruptArtifact: its manifest cannot be read.
    """
    with releases.writing():
        if releases.get(release).pruned_at is not None:
            _remove_files(releases.path(release))


def _remove_files(directory: Path) -> None:
    """What a release is held by goes last."""
    (directory / SOFT_LABELS).unlink(missing_ok=True)
    (directory / LEXICAL).unlink(missing_ok=True)
    (directory / EDITED).unlink(missing_ok=True)
    shutil.rmtree(directory / BUNDLE, ignore_errors=True)
    (directory / KNOWLEDGE).unlink(missing_ok=True)
    sync(directory)


def _state(live: LivePointer | None, release: str) -> str | None:
    if live is None:
        return None
    return {live.previous: "previous", live.release: "live"}.get(release)

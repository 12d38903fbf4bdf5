"""Deleting texts for good: from kept releases and store versions, snapshots, finished stages and the journal.

The live release does not hold them any more when this begins. Texts are told by key alone, so that a purge that
was cut short is finished from the journal. What cannot be read is taken to hold them. What lies outside of the
task's directory (the files that the task's data came from, copies of snapshots) is not touched.
"""

import json
import shutil
from collections.abc import Collection, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from offline.knowledge.journal import Journal, item_keys
from offline.pipeline.stage import PARTIAL
from offline.store.config import StoreConfig
from offline.store.publish import open_backend
from services.platform.durable_files import sync
from services.platform.errors import CorruptArtifact, SnapshotNotFound, VersionNotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import EDITED, KNOWLEDGE, LEXICAL
from services.store.archive import RELEASE
from services.store.backends.base import StoreBackend, VersionManifest
from services.store.backends.sealed import ASIDE, remove_leftovers
from services.store.snapshots import SUFFIX, SnapshotDirectory

log = structlog.get_logger(__name__)

_ITEMS_AT_ONCE = 1024
# A language model that is asked for labels is told of a run's labelled rows there.
_LABELLERS = "stages/**/labeller.json"
# Made from the texts of a run, without a column to find one in; deleted before that by which they are found.
_SHEETS = ("stages/**/samples.md", "report.html")


@dataclass(frozen=True, slots=True)
class Purged:
    """What was deleted.

    Attributes:
        releases: that can never serve again.
        versions: of the store.
        snapshots: by name.
        files: of finished stages and reports, and directories of stages that were cut short, which may hold
            anything; relative to the task's directory. A later run makes them anew.
        journal: items taken out of earlier edits.
    """

    releases: tuple[str, ...]
    versions: tuple[str, ...]
    snapshots: tuple[str, ...]
    files: tuple[str, ...]
    journal: int


def purge(task_directory: Path, keys: Collection[str], store: StoreConfig) -> Purged:
    """Delete the items with these keys from everything in a task's directory but the live release.

    Repeating it finishes what was cut short.

    Args:
        task_directory: of the task; the caller holds the lock of its runs.
        keys: of the texts.
        store: where the store versions are.

    Raises:
        StoreUnavailable: the store does not answer; the same call carries on later.
    """
    wanted = set(keys)
    releases = ReleaseDirectory(task_directory / "releases")
    live = releases.live()
    held = [
        manifest.release
        for manifest in releases.list()
        if (live is None or manifest.release != live.release)
        and _release_holds(releases.root / manifest.release, wanted)
    ]
    for release in held:
        releases.purge(release)
    held += _delete_knowledge_of_unreadable(releases, wanted)
    with releases.writing():
        # Where a release's knowledge went alone, as older versions purged it, its n-grams are still there.
        for name in (LEXICAL, EDITED):
            for path in releases.root.glob(f"r-*/{name}"):
                if not path.with_name(KNOWLEDGE).exists():
                    path.unlink(missing_ok=True)
                    sync(path.parent)
    # Those that an earlier purge marked may still have their version, if it was cut short.
    there = releases.list()
    needed = {manifest.store_version for manifest in there if manifest.can_serve}
    marked = {manifest.store_version for manifest in there if manifest.purged_at is not None}
    gone = marked - needed
    snapshots = _delete_snapshots(task_directory, wanted, gone, needed)
    versions = _delete_versions(task_directory, wanted, gone, needed, store)
    files = _delete_files(task_directory, wanted)
    journal = Journal(task_directory).finish_purge(wanted)
    found = Purged(tuple(held), versions, snapshots, files, journal)
    log.info("purged", releases=len(held), versions=len(versions), files=len(files))
    return found


def _delete_knowledge_of_unreadable(releases: ReleaseDirectory, keys: set[str]) -> list[str]:
    """Of releases whose manifest cannot be read, so that no mark can be put in it: their names."""
    deleted = []
    with releases.writing():
        live = releases.live()
        known = {manifest.release for manifest in releases.list()}
        known |= {live.release} if live else set()
        for path in sorted(releases.root.glob("r-*")):
            if path.name not in known and _release_holds(path, keys):
                (path / EDITED).unlink(missing_ok=True)
                (path / LEXICAL).unlink(missing_ok=True)
                (path / KNOWLEDGE).unlink(missing_ok=True)
                sync(path)
                deleted.append(path.name)
    return deleted


def _release_holds(path: Path, keys: set[str]) -> bool:
    """Whether a release holds one of the texts; a damaged one that may is taken to."""
    knowledge = path / KNOWLEDGE
    if not knowledge.exists():
        return False
    try:
        return _holds(knowledge, keys)
    except CorruptArtifact:
        log.warning("release_unreadable", release=path.name)
        return True


def _holds(path: Path, keys: set[str]) -> bool:
    """Whether a Parquet file with texts holds one of them. Raises CorruptArtifact."""
    try:
        names = pq.read_schema(path).names
        if "text" not in names:
            return False
        columns = [name for name in ("text", "text_pair") if name in names]
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}") from error
    pairs = table["text_pair"].to_pylist() if "text_pair" in columns else None
    return not keys.isdisjoint(item_keys(table["text"].to_pylist(), pairs))


def _delete_versions(
    task_directory: Path, keys: set[str], gone: Set[str], needed: Set[str], store: StoreConfig
) -> tuple[str, ...]:
    """Versions of purged releases, and those of no release that hold one of the texts."""
    # What builds that were killed have left.
    remove_leftovers(task_directory / "store", ASIDE)
    deleted = []
    # Before they are listed: one that is sealed in between is not taken for one that cannot be read.
    names: list[str] = []
    if store.backend == "edge":
        found = (task_directory / "store").glob("[!.]*")
        names = sorted(path.name for path in found if path.is_dir())
    backend = open_backend(task_directory, store)
    try:
        manifests = {manifest.version: manifest for manifest in backend.versions()}
        for version in dict.fromkeys([*manifests, *names]):
            if version in needed:
                continue
            manifest = manifests.get(version)
            with suppress(VersionNotFound):
                if version in gone or manifest is None or _version_holds(backend, manifest, keys):
                    backend.delete(version)
                    deleted.append(version)
    finally:
        backend.close()
    return tuple(deleted)


def _version_holds(backend: StoreBackend, manifest: VersionManifest, keys: set[str]) -> bool:
    """Whether its items do; a damaged one is taken to."""
    for start in range(0, manifest.count, _ITEMS_AT_ONCE):
        ids = range(start, min(manifest.count, start + _ITEMS_AT_ONCE))
        try:
            items = backend.items(manifest.version, ids)
        except CorruptArtifact:
            log.warning("version_unreadable", version=manifest.version)
            return True
        found = item_keys([item.text for item in items], [item.text_pair for item in items])
        if not keys.isdisjoint(found):
            return True
    return False


def _delete_snapshots(
    task_directory: Path, keys: set[str], gone: Set[str], needed: Set[str]
) -> tuple[str, ...]:
    """Snapshots of purged releases, and those of releases given up that hold one of the texts."""
    remove_leftovers(task_directory / "snapshots", ASIDE)
    directory = SnapshotDirectory(task_directory / "snapshots")
    deleted = []
    # Before they are listed, as with versions.
    files = sorted((task_directory / "snapshots").glob(f"*{SUFFIX}"))
    there = directory.list()
    readable = {snapshot.name for snapshot in there}
    for path in files:
        if (name := path.name.removesuffix(SUFFIX)) not in readable:
            path.unlink(missing_ok=True)
            deleted.append(name)
    for snapshot in there:
        version = snapshot.index.version.version
        if version in needed:
            continue
        if version in gone or _snapshot_holds(directory, snapshot.name, keys):
            with suppress(SnapshotNotFound):
                directory.delete(snapshot.name)
                deleted.append(snapshot.name)
    return tuple(deleted)


def _snapshot_holds(directory: SnapshotDirectory, name: str, keys: set[str]) -> bool:
    """Whether its release does; one that cannot be looked into is taken to."""
    try:
        with directory.unpacked(name) as (_, path):
            knowledge = path / RELEASE / KNOWLEDGE
            return not knowledge.exists() or _holds(knowledge, keys)
    except CorruptArtifact:
        return True


def _delete_files(task_directory: Path, keys: set[str]) -> tuple[str, ...]:
    deleted = []
    for path in sorted((task_directory / "stages").rglob("*.parquet")):
        try:
            holds = _holds(path, keys)
        except CorruptArtifact:
            holds = True
        if holds:
            # What is found again after a kill goes last.
            indexes = (path.with_name(name) for name in (LEXICAL, EDITED))
            deleted += [index for index in indexes if index.exists()]
            deleted.append(path)
    deleted += [path for path in sorted(task_directory.glob(_LABELLERS)) if _told(path, keys)]
    if deleted:
        sheets = [path for pattern in _SHEETS for path in sorted(task_directory.glob(pattern))]
        deleted = [*sheets, *deleted]
    for path in deleted:
        path.unlink(missing_ok=True)
    unfinished = sorted((task_directory / "stages").glob(f"*/{PARTIAL}*"))
    for path in unfinished:
        shutil.rmtree(path)
    return tuple(str(path.relative_to(task_directory)) for path in (*deleted, *unfinished))


def _told(path: Path, keys: set[str]) -> bool:
    """Whether a labeller is told one of the texts as an example; an unreadable one is taken to be."""
    try:
        asked = json.loads(path.read_bytes()).get("asked") or {"examples": []}
        rows = [(text, pair) for text, pair, _ in asked["examples"]]
        found = item_keys([text for text, _ in rows], [pair for _, pair in rows])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("labeller_unreadable", file=str(path))
        return True
    return not keys.isdisjoint(found)

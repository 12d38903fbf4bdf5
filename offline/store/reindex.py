"""Indexing the live release's knowledge file anew: a new store version, and a release that searches it.

Nothing is trained or written by a teacher: student, texts and soft labels are the live release's own.
What is new is the index, with the parameters and the backend of the present configuration.
"""

import itertools
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig, recall_reasons
from offline.store.publish import Published, open_backend
from offline.store.recall import version_recall
from offline.tasks.prepared import Examples
from services.platform.errors import ReleaseNotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    KNOWLEDGE,
    ReleaseManifest,
    check_release,
    write_release_manifest,
)
from services.store.backends.base import HnswParameters, StoreBackend, VersionManifest
from services.store.backends.manifest import manifest_from_knowledge
from services.store.knowledge_file import (
    iterate_points,
    read_knowledge,
    read_knowledge_metadata,
    version_manifest,
    write_knowledge,
)

NO_ROWS = Examples([], None, [])


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What became of it.

    Attributes:
        published: as of any other release.
        recall: share of the exact nearest items that approximate search finds in the new version.
    """

    published: Published
    recall: float


def reindex(
    task_directory: Path,
    store: StoreConfig,
    release: ReleaseConfig,
    held_out: Examples = NO_ROWS,
) -> Reindexed:
    """Build a new version of the live release's knowledge file, and make the release of it live.

    An attempt that was interrupted carries on with the version that it had begun.

    Args:
        task_directory: holds `store` and `releases`.
        store: backend and graph of the new version.
        release: the least recall, and whether to activate.
        held_out: texts whose query vectors the recall is measured with; see `version_recall`.

    Raises:
        ReleaseNotFound: nothing is live.
        CorruptArtifact: the live release's files are damaged.
        StorageFull, StoreUnavailable: the live release stays; the same call carries on later.
    """
    releases = ReleaseDirectory(task_directory / "releases")
    live = releases.live()
    if live is None:
        raise ReleaseNotFound(
            f"No release in {releases.root} is live.",
            hint="Make one with `retrikt rebuild CONFIG`.",
        )
    source = releases.path(live.release)
    present = check_release(source)
    with tempfile.TemporaryDirectory(prefix="retrikt-release-") as folder:
        staged = Path(folder) / "release"
        shutil.copytree(source, staged)
        _write_graph(staged / KNOWLEDGE, store.hnsw)
        backend = open_backend(task_directory, store)
        try:
            version = _build(backend, staged / KNOWLEDGE, releases)
            recall = version_recall(backend, version, staged, held_out)
        finally:
            backend.close()
        reasons = recall_reasons(version.version, recall, release)
        write_release_manifest(
            staged,
            task=present.task,
            labels=present.labels,
            store_version=version.version,
            encoder_fingerprint=present.encoder_fingerprint,
            items=present.items,
            metrics={**present.metrics, "recall": recall},
            gate=reasons,
            balances=present.balances,
            edits=present.edits,
        )
        added = releases.add(staged)
    if reasons:
        return Reindexed(Published(added.release, "refused", reasons), recall)
    if not release.activate:
        return Reindexed(Published(added.release, "added"), recall)
    releases.activate(added.release)
    return Reindexed(Published(added.release, "activated"), recall)


def restore_version(task_directory: Path, store: StoreConfig, release: ReleaseManifest) -> None:
    """Build a release's store version from its knowledge file, unless it is there."""
    knowledge = ReleaseDirectory(task_directory / "releases").path(release.release) / KNOWLEDGE
    backend = open_backend(task_directory, store)
    try:
        manifest = manifest_from_knowledge(knowledge, release.store_version)
        backend.build(manifest, iterate_points(knowledge))
    finally:
        backend.close()


def _write_graph(knowledge: Path, hnsw: HnswParameters) -> None:
    """Note the graph's parameters in a knowledge file; every build of it then makes the same version."""
    metadata = read_knowledge_metadata(knowledge)
    if (metadata.hnsw or HnswParameters()) != hnsw:
        changed = metadata.model_copy(update={"hnsw": hnsw})
        write_knowledge(knowledge, replace(read_knowledge(knowledge), metadata=changed))


def _build(backend: StoreBackend, knowledge: Path, releases: ReleaseDirectory) -> VersionManifest:
    """Under the file's own name, or `-2`, `-3`, … after it: the first one that no release searches."""
    manifest = version_manifest(knowledge)
    searched = {release.store_version for release in releases.list()}
    numbered = (f"{manifest.version}-{number}" for number in itertools.count(2))
    names = itertools.chain([manifest.version], numbered)
    name = next(name for name in names if name not in searched)
    return backend.build(manifest_from_knowledge(knowledge, name), iterate_points(knowledge))

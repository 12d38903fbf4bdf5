"""Publishing a release: its store version is built, the release is added, and, past the gate, made live.

Every step can be repeated: a run that was killed half way through carries on where it was.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig, reasons_against, recall_reasons, shadow_reasons
from offline.store.recall import version_recall
from offline.store.shadow import Shadow, compare, times
from offline.tasks.prepared import Examples
from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    InvalidInput,
    NotFound,
    StoreUnavailable,
)
from services.releases.directory import LivePointer, ReleaseDirectory
from services.releases.manifest import (
    KNOWLEDGE,
    MANIFEST,
    ReleaseManifest,
    read_release_manifest,
)
from services.store.backends.base import StoreBackend
from services.store.backends.edge import EdgeBackend
from services.store.client import EmbeddedStoreClient
from services.store.knowledge_file import iterate_points, version_manifest
from services.student.predictor import Predictor, TextInput

log = structlog.get_logger(__name__)

API_KEY = "RETRIKT_STORE_QDRANT_API_KEY"
"""Environment variable with the Qdrant server's key, the store service's own; never in a configuration."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a release.

    Attributes:
        release: its id.
        outcome: `activated`, `unchanged` (the same is live already), `added` (not activated, as the
            configuration says), `refused` (by the gate), `rolled_back` (somebody took it out) or `overtaken`
            (another release than `base` went live in the meantime).
        reasons: why it was not activated, where nobody asked for that.
        overridden: what the gate had against it, where it was forced.
    """

    release: str
    outcome: str
    reasons: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()

    def figures(self) -> dict[str, str]:
        return {"release": self.release, "outcome": self.outcome}


def publish(
    candidate: Path,
    metrics: Mapping[str, Any],
    held_out: Examples,
    task_directory: Path,
    store: StoreConfig,
    release: ReleaseConfig,
    *,
    judged: tuple[str, ...] | None = None,
    base: str | None = None,
    force: bool = False,
) -> Published:
    """Make a candidate a release of the task.

    Args:
        candidate: a release's files, as `offline.store.index.write_candidate` lays them out.
        metrics: figures for its manifest.
        held_out: labelled rows on which the gate compares it with the live release; may be empty.
        task_directory: holds `store` and `releases`.
        store: where the store version goes.
        release: the gate's thresholds, and whether to activate.
        judged: what speaks against the candidate, where it has been compared with the live release already.
        base: release that the candidate was made from by an edit; it goes live in place of that one alone, and
            though somebody went back from it before: whoever edits asks for it anew.
        force: activate whatever the gate says.

    Raises:
        CorruptArtifact: the candidate's files are damaged.
        StorageFull, StoreUnavailable: nothing was activated; the same call carries on later.
    """
    manifest = read_release_manifest(candidate)
    build_version(candidate / KNOWLEDGE, task_directory, store)
    releases = ReleaseDirectory(task_directory / "releases")
    live = _live_pointer(releases)
    if base is not None and live is not None and live.release != base:
        return _overtaken(manifest.release, live)
    if live is not None and _same(releases, live.release, manifest):
        return Published(live.release, "unchanged")
    if base is None and live is not None and _rolled_back(releases, live, manifest.release):
        reason = "it was rolled back; `retrikt release activate` makes it live again"
        return Published(manifest.release, "rolled_back", (reason,))
    shadow = None
    reasons = judged or ()
    if judged is None:
        reasons, shadow = _gate(candidate, releases, live, held_out, release)
    recall = _recall(candidate, manifest.store_version, held_out, task_directory, store)
    if live is not None:
        # Whatever a first release misses, without it nothing would serve.
        reasons += recall_reasons(manifest.store_version, recall, release)
    overridden, reasons = (reasons, ()) if force else ((), reasons)
    compared = {"shadow": shadow.figures()} if shadow else {}
    _add(releases, candidate, manifest, {**metrics, "recall": recall, **compared}, reasons)
    if reasons:
        return Published(manifest.release, "refused", reasons)
    if not release.activate:
        return Published(manifest.release, "added")
    now = releases.activate(manifest.release, instead_of=base)
    if now.release != manifest.release:
        return _overtaken(manifest.release, now)
    return Published(manifest.release, "activated", overridden=overridden)


def build_version(knowledge_file: Path, task_directory: Path, store: StoreConfig) -> None:
    """Build the store version of a knowledge file, unless it is there."""
    backend = open_backend(task_directory, store)
    try:
        backend.build(version_manifest(knowledge_file), iterate_points(knowledge_file))
    finally:
        backend.close()


def open_backend(task_directory: Path, store: StoreConfig) -> StoreBackend:
    """The backend that the configuration names."""
    if store.backend == "server":
        from services.store.backends.server import ServerBackend

        return ServerBackend.connect(
            store.url,
            task=task_directory.name,
            api_key=os.environ.get(API_KEY),
            layout=store.layout,
        )
    return EdgeBackend(task_directory / "store", layout=store.layout)


def same_release(one: ReleaseManifest, other: ReleaseManifest) -> bool:
    """Whether two releases answer alike: the same student, items, soft labels, index and edits, however searched."""
    parts = (
        "task",
        "labels",
        "knowledge_sha256",
        "soft_labels_sha256",
        "lexical_sha256",
        "edited_sha256",
        "bundle_sha256",
        "balances",
    )
    return all(getattr(one, part) == getattr(other, part) for part in parts)


@contextmanager
def open_predictor(release_directory: Path) -> Iterator[Predictor]:
    """A release at work in this process, on a private store version made from its knowledge file."""
    with tempfile.TemporaryDirectory(prefix="retrikt-") as nowhere:
        backend = EdgeBackend(Path(nowhere), knowledge=lambda _: release_directory / KNOWLEDGE)
        client = EmbeddedStoreClient(backend)
        predictor = Predictor.load(release_directory, client, must_hold_version=True)
        try:
            yield predictor
        finally:
            predictor.close()
            client.close()


def probabilities(predictor: Predictor, examples: Examples) -> NDArray[np.float32]:
    """(n, labels): the release's answers, store included.

    Raises:
        StoreUnavailable: the store did not answer; a degraded answer is no measurement.
    """
    inputs = _inputs(examples)
    parts = []
    for start in range(0, len(inputs), 64):
        prediction = predictor.predict(inputs[start : start + 64])
        if prediction.degraded is not None:
            raise StoreUnavailable(f"The store did not answer: {prediction.degraded}.")
        parts.append(prediction.probabilities)
    if not parts:
        return np.empty((0, len(predictor.labels)), np.float32)
    return np.concatenate(parts)


def _inputs(examples: Examples) -> list[TextInput]:
    pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
    return [TextInput(text, pair) for text, pair in zip(examples.texts, pairs, strict=True)]


def _gate(
    candidate: Path,
    releases: ReleaseDirectory,
    live: LivePointer | None,
    held_out: Examples,
    config: ReleaseConfig,
) -> tuple[tuple[str, ...], Shadow | None]:
    """Reasons against the candidate, and the comparison; none where there is nothing to compare it with."""
    if live is None:
        return (), None
    if not len(held_out):
        log.warning("gate_not_applied", reason="the task has no validation rows")
        return (), None
    with ExitStack() as opened:
        try:
            theirs = opened.enter_context(open_predictor(releases.path(live.release)))
            live_answers = probabilities(theirs, held_out).argmax(1)
        except (CorruptArtifact, IncompatibleArtifacts, InvalidInput, NotFound) as error:
            log.warning("gate_not_applied", reason=f"the live release cannot answer: {error}")
            return (), None
        ours = opened.enter_context(open_predictor(candidate))
        answers = probabilities(ours, held_out).argmax(1)
        labels = ours.labels
        # The live release's labels may stand in another order, or be others.
        places = np.array([labels.index(name) if name in labels else -1 for name in theirs.labels])
        gold = np.array([labels.index(label) for label in held_out.labels or []], dtype=np.int64)
        in_turn = times(ours, theirs, _inputs(held_out))
    shadow = compare(live.release, answers, places[live_answers], gold, in_turn)
    fallen = reasons_against(answers, places[live_answers], gold, labels, config)
    return (*fallen, *shadow_reasons(shadow, config)), shadow


def _recall(
    candidate: Path, version: str, held_out: Examples, task_directory: Path, store: StoreConfig
) -> float:
    """Of the store version where it lies, and not of a copy: that is what will be searched."""
    backend = open_backend(task_directory, store)
    try:
        return version_recall(backend, backend.manifest(version), candidate, held_out)
    finally:
        backend.close()


def _overtaken(release: str, live: LivePointer) -> Published:
    reason = f"{live.release} went live in the meantime: make the change again"
    return Published(release, "overtaken", (reason,))


def _same(releases: ReleaseDirectory, live: str, manifest: ReleaseManifest) -> bool:
    """Whether the live release is the candidate, or the same but for another index of its items."""
    if live == manifest.release:
        return True
    try:
        theirs = releases.get(live)
    except (CorruptArtifact, NotFound):
        return False
    return same_release(theirs, manifest)


def _rolled_back(releases: ReleaseDirectory, live: LivePointer, release: str) -> bool:
    """Whether somebody went back from this release to the live one, which is older than it is."""
    if live.previous != release:
        return False
    try:
        return (releases.get(release).created_at or "") > (
            releases.get(live.release).created_at or ""
        )
    except (CorruptArtifact, NotFound):
        return False


def _live_pointer(releases: ReleaseDirectory) -> LivePointer | None:
    """The live pointer; None where there is none, or it is damaged: activation writes it anew."""
    try:
        return releases.live()
    except CorruptArtifact as error:
        log.warning("live_pointer_unreadable", reason=str(error))
        return None


def _add(
    releases: ReleaseDirectory,
    candidate: Path,
    manifest: ReleaseManifest,
    metrics: Mapping[str, Any],
    reasons: tuple[str, ...],
) -> None:
    with tempfile.TemporaryDirectory(prefix="retrikt-release-") as folder:
        staged = Path(folder) / manifest.release
        shutil.copytree(candidate, staged)
        told = manifest.model_copy(update={"metrics": dict(metrics), "gate": reasons})
        (staged / MANIFEST).write_text(told.model_dump_json(indent=1), encoding="utf-8")
        releases.add(staged)

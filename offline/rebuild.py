"""Rebuilding as a job: what a scheduler calls to bring a task's live release up to date.

A rebuild runs the stages whose inputs have changed, puts the release before the gate and makes it live.
One runs at a time in a task's directory; what became of the last one that came to its end lies there in
`rebuild.json`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from offline.knowledge.in_force import with_edits
from offline.pipeline.chain import Step, run_lock
from offline.run import TaskRun
from offline.stages.index import CANDIDATE
from offline.store.clean_up import clean_up_task
from offline.store.publish import Published, same_release
from offline.store.reindex import reindex, restore_version
from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact, NotFound, RetriktError
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import ReleaseManifest, read_release_manifest

log = structlog.get_logger(__name__)

SUMMARY = "rebuild.json"
REFUSED_STATUS = 9
"""Exit status where the gate refused the release; no error of ours has it."""
_NOT_ACCEPTED = ("refused", "rolled_back")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a rebuild.

    Attributes:
        task: name of the task.
        outcome: `activated`; `unchanged`, where what was made is live already; `added`, where the
            configuration says not to activate; `refused` by the gate; `rolled_back`, where somebody
            has gone back from this release, which is respected.
        release: that was made.
        live: release that serves now, if there is one.
        store_version: that the live release searches.
        seed: that the samples are written with.
        kept_seed: seed of the next rebuild that is given none; None takes the configuration's.
        ran: stages that had to run, each with its reason.
        reasons: why the release is not live.
        recall: of the new index, where an index was all that was asked for.
        cleaned_up: what was taken away afterwards, where the configuration keeps the newest releases alone
            (`release.keep`); null where nothing was to be, or it failed, which is logged.
        seconds: that it took.
    """

    task: str
    outcome: str
    release: str
    live: str | None
    store_version: str | None
    seed: int
    kept_seed: int | None
    ran: dict[str, str]
    reasons: tuple[str, ...]
    recall: float | None
    cleaned_up: Mapping[str, object] | None
    seconds: float

    @property
    def exit_status(self) -> int:
        return REFUSED_STATUS if self.outcome == "refused" else 0

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def rebuild(task: TaskRun, *, seed: int | None = None, store_only: bool = False) -> Rebuilt:
    """Bring a task's release up to date.

    Args:
        task: configuration and directory.
        seed: asks for new samples. It is kept for later rebuilds once its release is accepted, so
            that a scheduled one does not go back to the older samples. One that is cut short is
            carried on with by the next rebuild.
        store_only: run no stage; index the live release's knowledge file into a new version.

    Raises:
        AlreadyRunning: another rebuild, or a run, works in the task's directory.
        RetriktError: whatever a stage raises. Finished stages are kept and the live release stays.
    """
    started = time.perf_counter()
    with run_lock(
        task.directory, name=".rebuild.lock", held_by="rebuild", hint="Wait for it to end."
    ):
        last = _last_summary(task.directory)
        kept = _seed_of(last, "kept_seed")
        if seed is None and not store_only:
            seed = _seed_of(last, "asked_seed")
        number = next(s for s in (seed, kept, task.config.seed) if s is not None)
        ran: dict[str, str] = {}
        recall = None
        if store_only:
            with run_lock(task.directory):
                made = reindex(
                    task.directory, task.config.store, task.config.release, task.held_out(number)
                )
            published, recall = made.published, made.recall
        else:
            if seed is not None:
                # Killed once its release is live, it would else be undone by the next rebuild.
                asked = json.dumps({**last, "asked_seed": seed}, indent=1)
                _write(task.directory / SUMMARY, asked)
            steps = list(task.plan(number))
            ran = {step.stage: step.reason for step in steps if step.runs}
            published = _run(task, number, steps)
        live = _live(task.directory)
        rebuilt = Rebuilt(
            task=task.config.task.name,
            outcome=published.outcome,
            release=published.release,
            live=live.release if live else None,
            store_version=live.store_version if live else None,
            seed=number,
            kept_seed=kept if seed is None or published.outcome in _NOT_ACCEPTED else seed,
            ran=ran,
            reasons=published.reasons,
            recall=recall,
            cleaned_up=None if published.outcome == "refused" else _clean_up(task),
            seconds=round(time.perf_counter() - started, 3),
        )
        _write(task.directory / SUMMARY, rebuilt.as_json())
    log.info("rebuilt", outcome=rebuilt.outcome, release=rebuilt.release, seconds=rebuilt.seconds)
    return rebuilt


def _run(task: TaskRun, seed: int, steps: Sequence[Step]) -> Published:
    """Run and publish, unless every stage is up to date and what it made is live already."""
    live = _live(task.directory)
    if live is not None and not any(step.runs for step in steps):
        key = next(step.key for step in steps if step.stage == "index")
        kept = task.directory / "stages" / "index" / str(key) / CANDIDATE
        with with_edits(kept, task.directory) as candidate:
            made = read_release_manifest(candidate)
        if same_release(made, live):
            with run_lock(task.directory):
                restore_version(task.directory, task.config.store, live)
            return Published(live.release, "unchanged")
    published = task.run(seed)
    assert published is not None, "a whole run publishes"
    return published


def _clean_up(task: TaskRun) -> Mapping[str, object] | None:
    """What has done its work is not undone for a clean-up that fails: the next one takes the rest."""
    keep = task.config.release.keep
    if keep is None:
        return None
    try:
        return clean_up_task(task.directory, task.config.store, keep).figures()
    except RetriktError as error:
        log.warning("clean_up_failed", code=error.code, reason=str(error))
        return None


def _live(directory: Path) -> ReleaseManifest | None:
    """The live release; None where there is none, or it is damaged: a rebuild is the way out of that."""
    releases = ReleaseDirectory(directory / "releases")
    try:
        pointer = releases.live()
        return None if pointer is None else releases.get(pointer.release)
    except (CorruptArtifact, NotFound) as error:
        log.warning("live_release_unreadable", reason=str(error))
        return None


def _last_summary(directory: Path) -> Mapping[str, Any]:
    """The last summary; empty where there is none that can be read."""
    try:
        told: Any = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _seed_of(summary: Mapping[str, Any], name: str) -> int | None:
    seed = summary.get(name)
    return seed if isinstance(seed, int) else None


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(f"{text}\n".encode())

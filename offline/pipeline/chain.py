"""The chain of stages that makes a release, and running it for one configuration and seed."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from filelock import FileLock, Timeout

from offline.pipeline.beside import Job, Processes, processes
from offline.pipeline.code_hash import code_hash
from offline.pipeline.manifest import StageManifest
from offline.pipeline.progress import ProgressDisplay
from offline.pipeline.shards import IN_PROCESS, Engine
from offline.pipeline.stage import Plan, Stage, run_stage
from offline.processor import torch_threads
from services.platform.durable_files import full_disk_told
from services.platform.errors import AlreadyRunning

log = structlog.get_logger(__name__)


def stages_upto(stages: Sequence[Stage], last: str) -> Sequence[Stage]:
    """Those that `last` needs, itself included, in order."""
    needed = {last}
    for stage in reversed(stages):
        if stage.name in needed:
            needed.update(stage.inputs)
    return tuple(stage for stage in stages if stage.name in needed)


@dataclass(frozen=True, slots=True)
class Step:
    """What a dry run says of one stage; `key` is None where it hangs on a stage that has yet to run."""

    stage: str
    key: str | None
    runs: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages in order, with the sections of a configuration that they read.

    Attributes:
        stages: every stage after those it reads.
        root: directory of the finished stages.
        sections: configuration section by name.
        outside: hashes of what is outside the tree of stages, by the stage that reads it and a name; see
            `offline.pipeline.outside`.
        beside: names of stages that may run at the same time, where none reads another's result; the others run
            alone.
        processes: how many stages run at the same time, at most.
        engine: where shards are done.
    """

    stages: Sequence[Stage]
    root: Path
    sections: Mapping[str, Any]
    outside: Mapping[str, Mapping[str, str]]
    beside: Set[str] = frozenset()
    processes: int = 1
    engine: Engine = IN_PROCESS

    def upto(self, last: str) -> "Chain":
        """The stages that `last` needs, itself included."""
        return replace(self, stages=stages_upto(self.stages, last))

    def plan(self, seed: int) -> Iterator[Step]:
        """What running would do, and why; nothing is run or written."""
        done: dict[str, StageManifest] = {}
        for stage in self.stages:
            waiting = [name for name in stage.inputs if name not in done]
            if waiting:
                yield Step(stage.name, None, True, f"follows {', '.join(waiting)}")
                continue
            plan = self._plan(stage, seed, done)
            manifest = plan.finished()
            if manifest is None:
                yield Step(stage.name, plan.key, True, plan.reason())
            else:
                done[stage.name] = manifest
                yield Step(stage.name, plan.key, False, "nothing that it depends on has changed")

    def finished(self, seed: int) -> dict[str, StageManifest] | None:
        """The manifest of every stage, by name; None where one of them would have to run."""
        done: dict[str, StageManifest] = {}
        for stage in self.stages:
            manifest = self._plan(stage, seed, done).finished()
            if manifest is None:
                return None
            done[stage.name] = manifest
        return done

    def run(self, seed: int, display: ProgressDisplay) -> dict[str, StageManifest]:
        """Run what has not run; the manifest of every stage, by name."""
        done: dict[str, StageManifest] = {}
        waiting = list(self.stages)
        ready: list[Job] = []
        with display.working() as begin, processes(self._threads) as beside:
            while waiting or ready or beside.names:
                for stage in [stage for stage in waiting if done.keys() >= {*stage.inputs}]:
                    waiting.remove(stage)
                    plan = self._plan(stage, seed, done)
                    reused = plan.finished()
                    if reused is None:
                        ready.append(self._job(plan, done))
                    else:
                        display.reused(stage.name, reused.key)
                        done[stage.name] = reused
                        break
                else:
                    job = self._next(ready, beside)
                    if job is None:
                        manifest = beside.wait()
                    else:
                        alone = not self._has_company(job, ready, beside)
                        ready.remove(job)
                        report = begin(job.plan.stage.name)
                        if not alone:
                            beside.start(job, report)
                            continue
                        with self._share(job):
                            manifest = run_stage(
                                job.plan, job.settings, job.inputs, report, job.engine
                            )
                    display.finished(manifest.stage, manifest.seconds, manifest.metrics)
                    done[manifest.stage] = manifest
        return {stage.name: done[stage.name] for stage in self.stages}

    def _job(self, plan: Plan, done: Mapping[str, StageManifest]) -> Job:
        inputs = {name: self.directory(done[name]) for name in plan.stage.inputs}
        return Job(plan, self.sections[plan.stage.section], inputs, self.engine)

    def _next(self, ready: Sequence[Job], beside: Processes) -> Job | None:
        """What can begin now; None where a stage that runs has to end first."""
        if not beside.names:
            return ready[0]
        if len(beside.names) == self.processes:
            return None
        return next((job for job in ready if job.plan.stage.name in self.beside), None)

    @property
    def _threads(self) -> int:
        """Of torch in a stage that may run beside others."""
        at_once = max(1, min(self.processes, len(self.beside)))
        return max(1, len(os.sched_getaffinity(0)) // at_once)

    def _share(self, job: Job) -> AbstractContextManager[None]:
        """A stage that might run beside others takes no more threads alone: sums are to be rounded alike."""
        if job.plan.stage.name not in self.beside:
            return nullcontext()
        return torch_threads(self._threads)

    def _has_company(self, job: Job, ready: Sequence[Job], beside: Processes) -> bool:
        """Whether others run beside it, or may begin to: alone it needs no process of its own."""
        if job.plan.stage.name not in self.beside or self.processes == 1:
            return False
        others = [other for other in ready if other.plan.stage.name in self.beside]
        return bool(beside.names) or len(others) > 1

    def directory(self, manifest: StageManifest) -> Path:
        return self.root / manifest.stage / manifest.key

    def _plan(self, stage: Stage, seed: int, done: Mapping[str, StageManifest]) -> Plan:
        return Plan(
            stage=stage,
            root=self.root,
            seed=seed,
            config=as_json(self.sections[stage.section]),
            inputs={name: done[name] for name in stage.inputs},
            code=code_hash(stage.module),
            outside=self.outside.get(stage.name, {}),
        )


def as_json(section: Any) -> Any:
    """A configuration section as JSON values."""
    from pydantic import TypeAdapter

    return json.loads(TypeAdapter(type(section)).dump_json(section))


@contextmanager
def run_lock(
    directory: Path,
    *,
    name: str = ".lock",
    held_by: str = "run",
    hint: str = "Wait for it, or choose another --output.",
) -> Iterator[None]:
    """Hold a lock of a task's directory; it goes with the process that held it.

    Args:
        directory: of the task; made where there is none.
        name: of the lock's file.
        held_by: what it keeps apart, for the error's message.
        hint: what to do while another process holds it.

    Raises:
        AlreadyRunning: another process holds it.
        StorageFull: what is done under it finds no room on the disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / name, timeout=0)
    full = full_disk_told(directory, hint="Make room and run the same command again.")
    try:
        with lock, full:
            yield
    except Timeout as error:
        raise AlreadyRunning(f"Another {held_by} works in {directory}.", hint=hint) from error

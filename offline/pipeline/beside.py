"""Stages that do not need each other, run at the same time, each in a process of its own.

Training a student is many small matrix products: a second core makes one of them hardly faster, but trains
another one at full speed. A process dies with the one that started it, and leaves no more behind than a
killed run does.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from offline.pipeline.manifest import StageManifest
from offline.pipeline.shards import Engine
from offline.pipeline.stage import Plan, Report, run_stage
from services.platform.errors import RetriktError

_TERMINATED = 128 + signal.SIGTERM
_Channel: TypeAlias = "connection.Connection[Any, Any]"


@dataclass(frozen=True, slots=True)
class Job:
    """What `offline.pipeline.stage.run_stage` takes, but for where progress is told."""

    plan: Plan
    settings: Any
    inputs: Mapping[str, Path]
    engine: Engine


class Processes:
    """Stages at work, each in a process of its own."""

    def __init__(self, threads: int) -> None:
        # Not forked: threads of OpenMP do not survive that.
        self._context = get_context("spawn")
        self._threads = threads
        self._running: dict[_Channel, tuple[str, BaseProcess, Report]] = {}

    @property
    def names(self) -> list[str]:
        """Of the stages at work."""
        return [name for name, _, _ in self._running.values()]

    def start(self, job: Job, report: Report) -> None:
        """Begin a stage that reads none of the others' results; `report` is called in `wait`."""
        ours, theirs = self._context.Pipe(duplex=False)
        name = job.plan.stage.name
        process = self._context.Process(target=_work, args=(job, self._threads, theirs), name=name)
        process.start()
        # The other end is the process's alone: its death then ends what is read here.
        theirs.close()
        self._running[ours] = (name, process, report)

    def wait(self) -> StageManifest:
        """Until a stage has finished.

        Raises:
            RetriktError: the first that a stage raises, or a process that was killed.
        """
        while True:
            ready = connection.wait(list(self._running))
            for channel in [channel for channel in self._running if channel in ready]:
                name, process, report = self._running[channel]
                try:
                    kind, content = channel.recv()
                except EOFError:
                    process.join()
                    raise RetriktError(
                        f"The process of the stage {name} ended with status {process.exitcode}.",
                        hint="It may have been short of memory: `--set processes=1` runs one stage "
                        "at a time.",
                    ) from None
                if kind == "report":
                    report(*content)
                elif kind == "failed":
                    raise content
                else:
                    process.join()
                    del self._running[channel]
                    return StageManifest.model_validate_json(content)

    def stop(self) -> None:
        """End what still runs."""
        for _, process, _ in self._running.values():
            process.terminate()
        for _, process, _ in self._running.values():
            process.join()


@contextmanager
def processes(threads: int) -> Iterator[Processes]:
    """Stages with so many threads of torch each; none outlives the block."""
    running = Processes(threads)
    try:
        yield running
    finally:
        running.stop()


def _work(job: Job, threads: int, channel: _Channel) -> None:
    import torch

    from services.platform.logs import configure_logs

    threading.Thread(target=_die_with_parent, daemon=True, name="die-with-parent").start()
    # As an exception, so that what was half written is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    configure_logs("retrikt", "warning")
    torch.set_num_threads(threads)

    def report(done: int, total: int, figures: Mapping[str, float]) -> None:
        channel.send(("report", (done, total, dict(figures))))

    try:
        manifest = run_stage(job.plan, job.settings, job.inputs, report, job.engine)
    except RetriktError as error:
        channel.send(("failed", error))
    except Exception as error:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note(traceback.format_exc())
        channel.send(("failed", told))
    else:
        channel.send(("finished", manifest.model_dump_json()))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)

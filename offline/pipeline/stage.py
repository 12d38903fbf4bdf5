"""A stage: a function from (inputs, config section, seed) to a directory, run once for each content."""

import importlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import structlog

from offline.pipeline.code_hash import code_hash
from offline.pipeline.manifest import (
    MANIFEST,
    StageManifest,
    hash_files,
    hash_json,
    read_manifest,
)
from offline.pipeline.shards import IN_PROCESS, Engine
from offline.pipeline.versions import RECORDED
from services.platform.durable_files import full_disk_told, rename_into_place
from services.platform.errors import CorruptArtifact

log = structlog.get_logger(__name__)

PARTIAL = ".partial-"
"""What the directories of unfinished stages start with."""


Report = Callable[[int, int, Mapping[str, float]], None]
"""Called with (done, total, figures to show) as long work goes on."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the pipeline.

    Attributes:
        name: its name in directories, logs and reports.
        module: the module whose `run(inputs, config, context)` does the work and returns the metrics.
        inputs: names of the stages whose directories it reads.
        section: the part of the configuration that it reads.
    """

    name: str
    module: str
    inputs: tuple[str, ...]
    section: str


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a running stage is given beside its inputs and its configuration.

    Attributes:
        directory: where its result goes.
        seed: of all that it draws.
        report: called as the work goes on.
        partial: where it may keep the work done so far: a later run with the same key finds what a
            killed one left there (which the stage has to write aside and rename); no part of the result.
        engine: where its shards are done, if its work is cut into any; no part of the result hangs on it.
    """

    directory: Path
    seed: int
    report: Report
    partial: Path | None = None
    engine: Engine = IN_PROCESS


@dataclass(frozen=True, slots=True)
class Plan:
    """One stage, its inputs known: where its result belongs and what makes it that result."""

    stage: Stage
    root: Path
    seed: int
    config: Any
    inputs: Mapping[str, StageManifest]
    code: str = field(default="")
    outside: Mapping[str, str] = field(default_factory=dict)

    @property
    def ingredients(self) -> dict[str, Any]:
        """All that the result depends on; two plans with the same ingredients have the same result."""
        return {
            "stage": self.stage.name,
            "code": self.code or code_hash(self.stage.module),
            "config": self.config,
            "seed": self.seed,
            "inputs": {name: manifest.content for name, manifest in self.inputs.items()},
            "outside": dict(self.outside),
        }

    @property
    def key(self) -> str:
        return hash_json(self.ingredients)[:16]

    @property
    def directory(self) -> Path:
        return self.root / self.stage.name / self.key

    def finished(self) -> StageManifest | None:
        """The manifest when the stage has run already; a damaged result counts as none."""
        if not self.directory.exists():
            return None
        try:
            return read_manifest(self.directory)
        except CorruptArtifact as error:
            log.warning("stage_damaged", stage=self.stage.name, key=self.key, reason=str(error))
            return None

    def reason(self) -> str:
        """Why the stage has to run: what differs from its latest finished run.

        What lies outside of the tree of stages is called by its name in the configuration.
        """
        latest = _latest(self.root / self.stage.name)
        if latest is None:
            return "has not run yet"
        if self.directory.exists():
            return "its files were damaged"
        ingredients = self.ingredients
        then = {
            "code": latest.code,
            "config": latest.config,
            "seed": latest.seed,
            "inputs": latest.inputs,
        }
        changed = [name for name, value in then.items() if ingredients[name] != value]
        changed += sorted(
            name
            for name in self.outside.keys() | latest.outside.keys()
            if self.outside.get(name) != latest.outside.get(name)
        )
        return f"changed: {', '.join(changed)}"


def run_stage(
    plan: Plan,
    settings: Any,
    inputs: Mapping[str, Path],
    report: Report,
    engine: Engine = IN_PROCESS,
) -> StageManifest:
    """Run one stage: write aside, hash, rename into place.

    Args:
        plan: what is to be run.
        settings: the stage's configuration section, as its module takes it.
        inputs: directories of the stages that it reads.
        report: called as the work goes on.
        engine: where its shards are done.

    Raises:
        StorageFull: the disk has no room left; what was written is removed.
        RetriktError: whatever the stage raises; what was written is removed.
    """
    parent = plan.directory.parent
    parent.mkdir(parents=True, exist_ok=True)
    partial = parent / f"{PARTIAL}{plan.key}"
    _remove_leftovers(parent, spared=partial)
    aside = parent / f".{plan.key}.{os.getpid()}"
    aside.mkdir()
    started = time.perf_counter()
    full = full_disk_told(
        parent,
        f"the stage {plan.stage.name} wrote nothing",
        hint="Make room and run the same command again; finished stages are kept.",
    )
    with full:
        try:
            with PeakMemory() as memory:
                module = importlib.import_module(plan.stage.module)
                metrics = module.run(
                    inputs, settings, StageContext(aside, plan.seed, report, partial, engine)
                )
            ingredients = plan.ingredients
            files = hash_files(aside)
            manifest = StageManifest(
                stage=plan.stage.name,
                key=plan.key,
                seed=plan.seed,
                inputs=ingredients["inputs"],
                config=plan.config,
                code=ingredients["code"],
                outside=ingredients["outside"],
                files=files,
                content=hash_json(files),
                metrics=metrics,
                seconds=round(time.perf_counter() - started, 3),
                peak_memory_bytes=memory.peak,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                versions={name: version(name) for name in RECORDED},
            )
            (aside / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
            if plan.directory.exists():
                shutil.rmtree(plan.directory)
            rename_into_place(aside, plan.directory)
            shutil.rmtree(partial, ignore_errors=True)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return manifest


class PeakMemory:
    """Samples the process's resident memory every 50 ms; `peak` is the largest seen, in bytes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True, name="peak-memory")
        self.peak = 0

    def __enter__(self) -> "PeakMemory":
        self.peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)


def _remove_leftovers(parent: Path, spared: Path) -> None:
    """Directories that killed runs left behind; the run lock makes sure that nobody writes them now."""
    for path in parent.glob(".*"):
        if path != spared:
            shutil.rmtree(path, ignore_errors=True)


def _latest(parent: Path) -> StageManifest | None:
    newest: StageManifest | None = None
    for path in parent.glob(f"*/{MANIFEST}"):
        with suppress(ValueError, OSError):
            manifest = StageManifest.model_validate_json(path.read_bytes())
            if newest is None or manifest.created_at > newest.created_at:
                newest = manifest
    return newest

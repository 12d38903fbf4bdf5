"""`report.json`: what the runs of a task came to, over their seeds."""

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offline.pipeline.manifest import StageManifest
from offline.report.evaluation import BASELINES, OURS, TEACHER, read_outcomes
from offline.report.intervals import paired_difference
from offline.stages.index import CANDIDATE
from offline.teacher.comparison import COMPARISON
from services.releases.manifest import BUNDLE

MEASURED = ("distinct", "copies", "copies_unlabelled", "label_agreement", "self_bleu")
"""Figures of the kept generated items that a report always names; null where no run kept one."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The finished stages of one seed.

    Attributes:
        seed: of the run.
        root: directory of the stages.
        manifests: by stage.
    """

    seed: int
    root: Path
    manifests: Mapping[str, StageManifest]

    def path(self, stage: str, *parts: str) -> Path:
        """A file of a stage."""
        return self.root.joinpath(stage, self.manifests[stage].key, *parts)

    def read(self, stage: str, name: str) -> Any:
        """A JSON file of a stage."""
        return json.loads(self.path(stage, name).read_text(encoding="utf-8"))


def summarise(
    task: str, runs: Sequence[FinishedRun], store_bytes: int, release_seconds: float | None
) -> dict[str, Any]:
    """The report's figures: means over the runs, with their standard deviation where it says so.

    Args:
        task: name of the task.
        runs: one a seed, at least one.
        store_bytes: size of the published store version's files; 0 where none was published.
        release_seconds: how long publishing took; None where nothing was published.
    """
    evaluations = [run.read("evaluate", "metrics.json") for run in runs]
    comparisons = [run.read("comparison", COMPARISON) for run in runs]
    knowledge = [run.read("knowledge", "figures.json") for run in runs]
    systems = {
        system: _system([found["systems"][system] for found in evaluations])
        for system in (*BASELINES, OURS)
    }
    teacher = [found["systems"][TEACHER] for found in evaluations]
    return {
        "task": task,
        "seeds": [run.seed for run in runs],
        "test_rows": evaluations[0]["rows"],
        "teacher": {
            "accuracy": _mean(found["accuracy"] for found in teacher),
            "accuracy_std": _std(found["accuracy"] for found in teacher),
            "macro_f1": _mean(found["macro_f1"] for found in teacher),
            "nll": _mean(found["nll"] for found in teacher),
            "ece": _mean(found["ece"] for found in teacher),
            "parameters": teacher[0]["parameters"],
        },
        "knowledge": {**dict.fromkeys(MEASURED), **_means(knowledge)},
        "ppo": _ppo(comparisons),
        "systems": systems,
        "differences": _differences(runs),
        "store_items": round(_mean(run.manifests["index"].metrics["items"] for run in runs)),
        "store_bytes": store_bytes,
        "bundle_bytes": size_of(runs[0].path("index", CANDIDATE, BUNDLE)),
        "seconds": _seconds(runs, release_seconds),
        "peak_memory_bytes": max(
            manifest.peak_memory_bytes for run in runs for manifest in run.manifests.values()
        ),
        "content": {
            str(run.seed): {stage: found.content for stage, found in run.manifests.items()}
            for run in runs
        },
    }


def _system(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **{
            name: {
                "mean": _mean(row[name] for row in found),
                "std": _std(row[name] for row in found),
            }
            for name in ("accuracy", "macro_f1", "nll", "ece")
        },
        "parameters": found[0]["parameters"],
    }


def _ppo(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tuned prompt against the same after PPO, on fresh samples; agreement is the judge's."""
    report: dict[str, Any] = {}
    measured = {
        "reward": "reward",
        "label_agreement": "label_agreement_judge",
        "self_bleu": "self_bleu",
    }
    for name, figure in measured.items():
        for when, prompt in (("before", "tuned_prompt"), ("after", "ppo")):
            report[f"{name}_{when}"] = _mean(found[prompt][figure] for found in comparisons)
    report["prompts"] = {
        prompt: _means([found[prompt] for found in comparisons])
        for prompt in ("name_prefix", "tuned_prompt", "ppo")
    }
    return report


def _differences(runs: Sequence[FinishedRun]) -> dict[str, dict[str, float]]:
    """Accuracy of ours minus that of each other system, with the 95 % interval, as fractions."""
    outcomes = [read_outcomes(run.path("evaluate", "predictions.parquet")) for run in runs]

    def right(system: str) -> Any:
        return np.stack([found[system] for found in outcomes])

    return {
        system: {
            name: round(value, 6)
            for name, value in asdict(paired_difference(right(OURS), right(system))).items()
        }
        for system in (TEACHER, *BASELINES)
    }


def _seconds(runs: Sequence[FinishedRun], release_seconds: float | None) -> dict[str, float]:
    """Mean seconds of each stage, when it ran."""
    seconds = {
        stage: round(_mean(run.manifests[stage].seconds for run in runs), 3)
        for stage in runs[0].manifests
    }
    return seconds if release_seconds is None else {**seconds, "release": round(release_seconds, 3)}


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every figure, over the rows that hold it: a run that kept no generated item measures none."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 6)


def _std(values: Iterable[float]) -> float:
    """Sample standard deviation; 0 for a single run."""
    found = list(values)
    return round(float(np.std(found, ddof=1)), 6) if len(found) > 1 else 0.0


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory, without the holes of sparse ones; 0 where there is none.

    The embedded store makes files of 32 MiB at once, and a disk holds what was written to them.
    """
    return sum(_written(path) for path in directory.rglob("*") if path.is_file())


def _written(path: Path) -> int:
    written = end = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # A hole up to the end.
                    break
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            written += end - start
    return written

"""A rebuild as a job on a finished task: one at a time, its summary, its status, and what a kill leaves."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from offline.configs.run import RunConfig
from offline.rebuild import REFUSED_STATUS, Rebuilt, rebuild
from offline.run import TaskRun
from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.publish import publish
from offline.tasks.prepared import Examples
from services.platform.errors import AlreadyRunning, InvalidConfig, InvalidData, ReleaseNotFound
from services.releases.directory import ReleaseDirectory
from services.store.backends.base import HnswParameters
from services.store.backends.edge import EdgeBackend

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_release import LABELS, TASK, write_release

CONFIGURATION: dict[str, dict[str, Any]] = {
    "task": {
        "name": TASK,
        "labels": list(LABELS),
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
    }
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A directory of runs with one task and its live release; no stage has ever run there."""
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    write_release(candidate, items=300)
    task = tmp_path / "runs" / TASK
    publish(candidate, {}, Examples([], None, []), task, StoreConfig(), ReleaseConfig())
    return tmp_path / "runs"


def task(runs: Path, **sections: object) -> TaskRun:
    config = RunConfig.model_validate({**CONFIGURATION, **sections})
    return TaskRun(config, runs, Console(stderr=True))


def live(runs: Path) -> str:
    pointer = ReleaseDirectory(runs / TASK / "releases").live()
    assert pointer is not None
    return pointer.release


def summary(runs: Path) -> dict[str, object]:
    told = json.loads((runs / TASK / "rebuild.json").read_text())
    assert isinstance(told, dict)
    return told


def test_an_index_alone_goes_live_and_its_summary_lies_in_the_task_s_directory(runs: Path) -> None:
    before = live(runs)
    made = rebuild(task(runs), store_only=True)
    assert (made.outcome, made.exit_status, made.ran) == ("activated", 0, {})
    assert made.release == made.live == live(runs) != before
    assert made.recall == 1.0
    assert summary(runs) == json.loads(made.as_json())


def test_a_rebuild_keeps_the_newest_releases_and_their_versions_where_the_configuration_says_so(
    runs: Path,
) -> None:
    first = live(runs)
    kept = task(runs, release={"keep": 1})
    # The one before stays beside the live one, and then has to go.
    assert rebuild(kept, store_only=True).cleaned_up == {
        "releases": [],
        "versions": [],
        "snapshots": [],
        "kept": {first: "previous"},
    }
    again = rebuild(kept, store_only=True)
    assert again.cleaned_up is not None
    assert again.cleaned_up["releases"] == [first]
    assert summary(runs)["cleaned_up"] == again.cleaned_up
    releases = ReleaseDirectory(runs / TASK / "releases")
    assert [found.can_serve for found in releases.list()] == [False, True, True]
    assert len(EdgeBackend(runs / TASK / "store").versions()) == 2


def test_a_poor_index_is_refused_with_a_status_of_its_own_and_the_live_one_stays(
    runs: Path,
) -> None:
    before = live(runs)
    poor = HnswParameters(m=4, ef_construct=8, ef_search=8, full_scan_threshold_kb=10)
    # No index reaches more than all: the threshold makes the refusal certain on so few items.
    job = task(runs, store={"hnsw": poor})
    strict = job.config.release.model_copy(update={"recall": 1.01})
    job.config = job.config.model_copy(update={"release": strict})
    made = rebuild(job, store_only=True)
    assert (made.outcome, made.exit_status) == ("refused", REFUSED_STATUS)
    assert "of the exact nearest items" in made.reasons[0]
    assert made.live == before == live(runs)
    assert summary(runs)["outcome"] == "refused"


@pytest.mark.parametrize("lock", [".rebuild.lock", ".lock"])
def test_a_rebuild_beside_another_or_beside_a_run_is_refused_at_once(runs: Path, lock: str) -> None:
    before = live(runs)
    with FileLock(runs / TASK / lock), pytest.raises(AlreadyRunning):
        rebuild(task(runs), store_only=True)
    assert live(runs) == before
    assert not (runs / TASK / "rebuild.json").exists()


def test_a_task_without_a_live_release_has_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(ReleaseNotFound):
        rebuild(task(tmp_path / "runs"), store_only=True)


def test_a_summary_that_is_damaged_is_written_anew(runs: Path) -> None:
    for damaged in ("", "{", "[]", '{"kept_seed": "x"}'):
        (runs / TASK / "rebuild.json").write_text(damaged)
        made = rebuild(task(runs), store_only=True)
        assert (made.seed, made.kept_seed) == (0, None)
        assert summary(runs)["release"] == live(runs)


def test_an_index_alone_keeps_the_seed_of_the_samples(runs: Path) -> None:
    (runs / TASK / "rebuild.json").write_text('{"kept_seed": 7}')
    made = rebuild(task(runs), store_only=True)
    assert (made.seed, made.kept_seed) == (7, 7)


def test_a_seed_that_was_asked_for_is_noted_before_anything_runs(runs: Path) -> None:
    with pytest.raises(InvalidData):
        rebuild(task(runs), seed=5)
    assert summary(runs) == {"asked_seed": 5}


def test_an_engine_that_is_not_installed_matters_where_stages_run_and_nowhere_else(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline.pipeline.ray_cluster.find_spec", lambda name: None)
    for split in ("train", "test"):
        row = {"text": f"{split} words", "label": LABELS[0]}
        (runs / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    data = {**CONFIGURATION["task"]["data"], "directory": str(runs)}
    on_ray = task(runs, task={**CONFIGURATION["task"], "data": data}, engine={"kind": "ray"})
    assert next(step.stage for step in on_ray.plan()) == "prepare"
    assert rebuild(on_ray, store_only=True).outcome == "activated"
    with pytest.raises(InvalidConfig, match="Ray is not installed"):
        on_ray.run(upto="prepare")


def test_every_outcome_but_a_refusal_is_success_to_a_scheduler() -> None:
    for outcome in ("activated", "unchanged", "added", "rolled_back", "refused"):
        told = Rebuilt("t", outcome, "r", None, None, 0, None, {}, (), None, None, 0.0)
        assert told.exit_status == (9 if outcome == "refused" else 0)


def command(home: Path, *arguments: str) -> list[str]:
    (home / "tiny.yaml").write_text(json.dumps(CONFIGURATION))
    for split in ("train", "test"):
        (home / f"{split}.jsonl").write_text("")
    return [sys.executable, "-m", "offline", "rebuild", "tiny.yaml", *arguments]


def test_the_command_prints_the_summary_alone_and_a_killed_one_leaves_no_lock(runs: Path) -> None:
    home, before = runs.parent, live(runs)
    with subprocess.Popen(
        command(home, "--store-only"), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as begun:
        while begun.poll() is None and not (runs / TASK / ".rebuild.lock").exists():
            time.sleep(0.005)
        begun.kill()
    assert begun.returncode == -signal.SIGKILL, "it held the lock when it was killed"
    assert live(runs) == before
    done = subprocess.run(
        command(home, "--store-only"), cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["live"] == live(runs) != before
    # Empty data files: the fault is told as JSON too, with the status of wrong data.
    failed = subprocess.run(command(home), cwd=home, capture_output=True, text=True, check=False)
    assert failed.returncode == 2, failed.stderr[-2000:]
    told = json.loads(failed.stdout)
    assert (told["outcome"], told["code"]) == ("failed", "invalid_data")
    assert "Traceback" not in failed.stderr

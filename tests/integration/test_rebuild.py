"""`retrikt rebuild` as a scheduler calls it, on a whole run: what changed is run, and nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.releases.directory import ReleaseDirectory


class Job:
    """A copy of the finished run, in which `retrikt rebuild` is called."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.task = home / "runs" / "small"

    def rebuild(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = self.begin(*arguments)
        out, said = done.communicate(timeout=280)
        assert "Traceback" not in said
        return done.returncode, json.loads(out)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "offline", "rebuild", "small.yaml", *arguments],
            cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def live(self) -> str:
        pointer = ReleaseDirectory(self.task / "releases").live()
        assert pointer is not None
        return pointer.release

    def state(self) -> set[str]:
        """Everything in the task's directory but the summary and the locks."""
        paths = self.task.rglob("*")
        return {str(path) for path in paths if path.name not in ("rebuild.json", ".rebuild.lock")}


@pytest.fixture
def job(quick_run: Any, tmp_path: Path) -> Job:
    shutil.copytree(quick_run.home, tmp_path / "home")
    return Job(tmp_path / "home")


def test_nothing_changed_is_unchanged_with_status_0_and_a_lost_version_comes_back(job: Job) -> None:
    before, live = job.state(), job.live()
    status, told = job.rebuild()
    assert (status, told["outcome"], told["ran"]) == (0, "unchanged", {})
    assert told["release"] == told["live"] == live == job.live()
    assert json.loads((job.task / "rebuild.json").read_text()) == told
    assert job.state() == before
    shutil.rmtree(job.task / "store")
    assert job.rebuild()[1]["outcome"] == "unchanged"
    assert (job.task / "store" / told["store_version"] / "version.json").is_file()


def test_store_only_makes_a_new_version_live_and_the_next_rebuild_leaves_it(job: Job) -> None:
    live = job.live()
    status, told = job.rebuild("--store-only")
    assert (status, told["outcome"], told["ran"]) == (0, "activated", {})
    assert told["recall"] >= 0.95
    assert told["store_version"].endswith("-2")
    assert told["live"] == job.live() != live
    status, again = job.rebuild()
    assert (status, again["outcome"], again["live"]) == (0, "unchanged", told["live"])


def test_what_changed_runs_and_an_accepted_seed_is_kept(job: Job) -> None:
    data = job.home / "train.jsonl"
    lines = data.read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    wide_gate = ("--set", "release.accuracy_drop=1.0", "--set", "release.label_drop=1.0")
    status, told = job.rebuild("--seed", "3", *wide_gate)
    assert (status, told["outcome"], told["seed"], told["kept_seed"]) == (0, "activated", 3, 3)
    assert "prepare" in told["ran"]
    status, again = job.rebuild()
    assert (status, again["outcome"], again["seed"]) == (0, "unchanged", 3)
    # Killed between the activation and its summary, a rebuild is carried on with, not undone.
    (job.task / "rebuild.json").write_text('{"kept_seed": null, "asked_seed": 3}')
    status, carried = job.rebuild()
    assert (status, carried["outcome"], carried["kept_seed"]) == (0, "unchanged", 3)
    assert carried["live"] == told["live"]

"""Stages run once, resume after a kill at any instant, and say why they run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offline.pipeline.chain import run_lock
from offline.pipeline.manifest import read_manifest
from offline.pipeline.progress import EventDisplay
from services.platform.errors import AlreadyRunning, CorruptArtifact, StorageFull

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from toy_stages import Count, toy_chain  # noqa: E402

WHOLE = Count()


def run(root: Path, first: Count = WHOLE, second: Count = WHOLE, seed: int = 0) -> str:
    chain = toy_chain(root, first, second)
    done = chain.run(seed, EventDisplay())
    return (chain.directory(done["second"]) / "sum.txt").read_text()


def steps(root: Path, first: Count = WHOLE, second: Count = WHOLE) -> dict[str, str]:
    plan = toy_chain(root, first, second).plan(0)
    return {step.stage: step.reason for step in plan if step.runs}


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(tmp_path: Path) -> None:
    assert steps(tmp_path) == {"first": "has not run yet", "second": "follows first"}
    assert list(tmp_path.iterdir()) == []
    run(tmp_path)
    assert steps(tmp_path) == {}
    assert steps(tmp_path, second=Count(21)) == {"second": "changed: config"}


def test_finished_stages_are_reused_until_something_they_depend_on_changes(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.glob("*/*")}
    run(tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.glob("*/*")} == before
    run(tmp_path, second=Count(21))
    assert len(list(tmp_path.glob("first/*"))) == 1
    assert len(list(tmp_path.glob("second/*"))) == 2


def test_what_follows_an_unchanged_result_is_not_redone(tmp_path: Path) -> None:
    run(tmp_path)
    # Another pause is another configuration of the first stage, with the same content.
    run(tmp_path, first=Count(pause=0.001))
    assert len(list(tmp_path.glob("first/*"))) == 2
    assert len(list(tmp_path.glob("second/*"))) == 1


def test_a_changed_data_file_redoes_the_stage_that_reads_it(tmp_path: Path) -> None:
    toy_chain(tmp_path, Count(), Count(), outside="a").run(0, EventDisplay())
    plan = list(toy_chain(tmp_path, Count(), Count(), outside="b").plan(0))
    assert plan[0].runs
    assert plan[0].reason == "changed: data"


def test_a_damaged_result_is_done_again(tmp_path: Path) -> None:
    expected = run(tmp_path)
    (target,) = tmp_path.glob("second/*/sum.txt")
    target.write_text("0")
    with pytest.raises(CorruptArtifact, match=r"sum\.txt differ"):
        read_manifest(target.parent)
    assert steps(tmp_path) == {"second": "its files were damaged"}
    assert run(tmp_path) == expected


def test_a_kill_at_any_instant_leaves_finished_stages_and_the_same_result(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", Count(pause=0.001), Count(pause=0.001))
    killed = 0
    for attempt in range(8):
        process = start_toy_run(tmp_path / "killed")
        time.sleep(random.Random(attempt).uniform(0.0, 0.7))
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for manifest in (tmp_path / "killed").glob("*/*/manifest.json"):
            if not manifest.parent.name.startswith("."):
                read_manifest(manifest.parent)
    assert killed > 0
    finished = {path: path.stat().st_ino for path in (tmp_path / "killed").glob("first/[!.]*")}
    assert start_toy_run(tmp_path / "killed").wait() == 0
    for path, inode in finished.items():
        assert path.stat().st_ino == inode
    (result,) = (tmp_path / "killed").glob("second/[!.]*/sum.txt")
    assert result.read_text() == expected
    assert not list((tmp_path / "killed").glob("*/.*"))


def start_toy_run(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, HERE / "toy_stages.py", root],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import toy_stages, offline.pipeline.stage as stage\n"
        "from pathlib import Path\n"
        "from offline.pipeline.progress import EventDisplay\n"
        "from services.platform.errors import StorageFull\n"
        "def run(inputs, config, context):\n"
        "    (context.directory / 'sum.txt').write_bytes(b'x' * 3_000_000)\n"
        "toy_stages.run = run\n"
        "chain = toy_stages.toy_chain(Path(sys.argv[1]), toy_stages.Count(), toy_stages.Count())\n"
        "try:\n"
        "    chain.run(0, EventDisplay())\n"
        "except StorageFull as error:\n"
        "    print(error)\n"
    )
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, mount, HERE], capture_output=True, text=True, check=True
        )
        assert "is full: the stage first wrote nothing" in done.stdout
        assert [path for path in mount.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", mount], check=True)
    assert StorageFull.code == "storage_full"


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(AlreadyRunning, match="Another run"), run_lock(tmp_path):
        pass


def test_the_manifest_says_what_the_result_hangs_on(tmp_path: Path) -> None:
    run(tmp_path, seed=3)
    (path,) = tmp_path.glob("second/*/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["seed"] == 3
    assert manifest["config"] == {"upto": 20, "pause": 0.0, "fails": False, "threads": False}
    assert manifest["inputs"].keys() == {"first"}
    assert manifest["peak_memory_bytes"] > 1_000_000

"""Stages that run at the same time: the same results, no process left behind, errors as they were raised."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from offline.pipeline.progress import EventDisplay
from offline.pipeline.stage import Report
from services.platform.errors import InvalidData, RetriktError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from toy_stages import Count, forked_chain, wide_chain  # noqa: E402


class Told:
    """A display that keeps what it is told."""

    def __init__(self, when_told: Callable[[str], None] = lambda _: None) -> None:
        self.events: list[str] = []
        self.reports: list[tuple[str, int, int]] = []
        self._when_told = when_told

    def reused(self, stage: str, key: str) -> None:
        self.events.append(f"{stage} kept")

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
        self.events.append(f"{stage} ends")

    def working(self) -> AbstractContextManager[Callable[[str], Report]]:
        return nullcontext(self._begin)

    def _begin(self, name: str) -> Report:
        self.events.append(f"{name} begins")

        def report(done: int, total: int, _: Mapping[str, float]) -> None:
            self.reports.append((name, done, total))
            self._when_told(name)

        return report


@pytest.fixture(autouse=True)
def importable_in_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def stage_processes() -> list[psutil.Process]:
    """The children of this process, but for the one in which Python keeps track of semaphores."""
    children = psutil.Process().children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def results(root: Path) -> dict[str, str]:
    return {path.parent.parent.name: path.read_text() for path in root.glob("*/[!.]*/sum.txt")}


def test_results_are_those_of_one_process_and_both_tell_how_far_they_are(tmp_path: Path) -> None:
    alone, together = Told(), Told()
    forked_chain(tmp_path / "1", Count(5), Count(7), processes=1).run(3, alone)
    forked_chain(tmp_path / "2", Count(5), Count(7)).run(3, together)
    assert results(tmp_path / "2") == results(tmp_path / "1")
    assert alone.events == [
        f"{stage} {what}"
        for stage in ("first", "left", "right", "last")
        for what in ("begins", "ends")
    ]
    assert together.events[:4] == ["first begins", "first ends", "left begins", "right begins"]
    assert together.events[-2:] == ["last begins", "last ends"]
    assert ("left", 5, 5) in together.reports
    assert ("right", 7, 7) in together.reports
    again = Told()
    forked_chain(tmp_path / "2", Count(6), Count(7)).run(3, again)
    assert again.events == [
        "first kept", "right kept", "left begins", "left ends", "last begins", "last ends",
    ]  # fmt: skip


def test_what_can_begin_does_not_wait_for_what_runs_beside_it(tmp_path: Path) -> None:
    told = Told()
    wide_chain(tmp_path, long=Count(40, pause=0.1), short=Count(2)).run(0, told)
    assert told.events.index("after_short begins") < told.events.index("long ends")
    # It is not among those that may run beside others.
    assert told.events.index("long ends") < told.events.index("alone begins")
    assert set(results(tmp_path)) == {"first", "long", "short", "after_short", "alone"}


def test_no_more_run_at_the_same_time_than_there_may_be(tmp_path: Path) -> None:
    running = most = 0

    class Counting(Told):
        def _begin(self, name: str) -> Report:
            nonlocal running, most
            running += 1
            most = max(most, running)
            return super()._begin(name)

        def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
            nonlocal running
            running -= 1

    for limit in (1, 2, 3):
        most = 0
        chain = wide_chain(tmp_path / str(limit), Count(3), Count(2), processes=limit, others=2)
        done = chain.run(0, Counting())
        assert most == limit
        assert list(done) == [stage.name for stage in chain.stages], (
            "in order, whichever ended first"
        )


def test_a_stage_has_the_same_threads_alone_and_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    before = torch.get_num_threads()
    chain = wide_chain(tmp_path, Count(upto=3, threads=True), Count(upto=2, threads=True))
    done = chain.run(0, Told())
    told = {name: manifest.metrics.get("threads") for name, manifest in done.items()}
    assert told == {"first": None, "long": 4, "short": 4, "after_short": 4, "alone": before}
    shutil.rmtree(tmp_path / "after_short")
    assert chain.run(0, Told())["after_short"].metrics["threads"] == 4, "alone this time"
    assert torch.get_num_threads() == before


def test_an_error_is_raised_as_it_was_and_the_other_stage_is_stopped(tmp_path: Path) -> None:
    chain = forked_chain(tmp_path, Count(fails=True), Count(pause=60))
    with pytest.raises(InvalidData, match="Counting is not possible") as raised:
        chain.run(0, EventDisplay())
    assert raised.value.hint == "Count by hand."
    assert not stage_processes()
    assert set(results(tmp_path)) == {"first"}
    assert not list(tmp_path.glob("*/.*"))


def test_a_killed_process_is_told_with_its_stage(tmp_path: Path) -> None:
    def kill(name: str) -> None:
        if name == "right":
            for child in stage_processes():
                child.kill()

    with pytest.raises(RetriktError, match=r"stage (left|right) ended with status -9"):
        forked_chain(tmp_path, Count(pause=0.2), Count(pause=0.2)).run(0, Told(kill))


def test_processes_die_with_the_run_that_is_killed(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, HERE / "toy_stages.py", tmp_path, "forked"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*/.*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        children = psutil.Process(run.pid).children()
        os.kill(run.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
    finally:
        run.kill()
        run.wait()

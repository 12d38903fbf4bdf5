"""Shards on a local Ray: the same results, a killed worker's shards done again, errors told as they are here."""

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from offline.pipeline.engine_kind import EngineKind
from offline.pipeline.engines import EngineConfig, engine_of
from offline.pipeline.ray_engine import RayEngine
from offline.pipeline.shards import IN_PROCESS, run_shards
from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    InvalidConfig,
    StorageFull,
    Unavailable,
)


@pytest.fixture(scope="module")
def toy() -> Iterator[Any]:
    """The module of the toy work, on a path that Ray's processes are given."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        patch.setenv("PYTHONPATH", here, prepend=os.pathsep)
        yield importlib.import_module("toy_work")


@pytest.fixture(scope="module")
def cluster(toy: Any) -> Iterator[None]:
    """One local Ray for all tests: an engine that finds one leaves it alone."""
    with pytest.MonkeyPatch.context() as patch:
        # Its workers would give way to every other process of the machine, the other tests' among them.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
        try:
            yield
        finally:
            ray.shutdown()


# Ray warns of settings that it deprecates itself, and leaves sockets to the end of the process.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ENGINE = RayEngine(threads=1)


def shards_of(toy: Any, count: int = 6) -> list[Any]:
    return [toy.Number(number) for number in range(count)]


def squares(tables: list[pa.Table]) -> list[list[int]]:
    return [table["square"].to_pylist() for table in tables]


@pytest.mark.usefixtures("cluster")
def test_results_are_those_of_this_process_whatever_worker_gave_them(
    toy: Any, tmp_path: Path
) -> None:
    work, shards = toy.Squares(tmp_path / "marker"), shards_of(toy)
    here = run_shards(IN_PROCESS, work, shards, None, lambda _: None)
    there = run_shards(ENGINE, work, shards, None, lambda _: None)
    assert squares(there) == squares(here)
    processes = {process for table in there for process in table["process"].to_pylist()}
    assert processes
    assert os.getpid() not in processes
    assert {value for table in there for value in table["threads"].to_pylist()} == {1}


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_s_shards_are_done_by_another(toy: Any, tmp_path: Path) -> None:
    work, shards = toy.Squares(tmp_path / "marker", killed_at=3), shards_of(toy)
    tables = run_shards(ENGINE, work, shards, None, lambda _: None)
    assert (tmp_path / "marker").exists()
    assert squares(tables) == [[number**2] * number for number in range(6)]


@pytest.mark.usefixtures("cluster")
def test_an_error_of_the_work_is_the_error_that_it_would_be_here(toy: Any, tmp_path: Path) -> None:
    work, shards = toy.Squares(tmp_path / "marker", damaged_at=2), shards_of(toy)
    with pytest.raises(CorruptArtifact, match=r"2 is damaged\. Take another\."):
        run_shards(ENGINE, work, shards, None, lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_an_error_that_nobody_foresaw_is_told(toy: Any, tmp_path: Path) -> None:
    work = toy.Squares(tmp_path / "marker", broken_at=2)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: 2 is broken"):
        run_shards(ENGINE, work, shards_of(toy), None, lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_a_full_disk_there_is_a_full_disk_here(toy: Any, tmp_path: Path) -> None:
    work = toy.Squares(tmp_path / "marker", full_at=1)
    with pytest.raises(StorageFull, match="No space left"):
        run_shards(ENGINE, work, shards_of(toy), None, lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_always_kills_its_worker_ends_the_run(toy: Any, tmp_path: Path) -> None:
    work = toy.Squares(tmp_path / "no directory" / "marker", killed_at=2)
    with pytest.raises(Unavailable, match="number-2 has ended the process of 3 actors"):
        run_shards(ENGINE, work, shards_of(toy, 3), None, lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_other_code_on_a_machine_is_refused(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process of the run has it replaced, those of the cluster do not.
    monkeypatch.setattr("offline.pipeline.ray_engine.code_hash", lambda module: "another")
    with pytest.raises(IncompatibleArtifacts, match="has another RetriKT than"):
        run_shards(ENGINE, toy.Squares(tmp_path), shards_of(toy), None, lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_no_machine_has_room_for_is_told(toy: Any, tmp_path: Path) -> None:
    for engine in (RayEngine(threads=64), RayEngine(threads=1, gpus=1)):
        with pytest.raises(InvalidConfig, match=r"for an actor: 2 CPUs and 0 GPUs"):
            run_shards(engine, toy.Squares(tmp_path), shards_of(toy), None, lambda _: None)


def test_a_cluster_of_its_own_ends_with_the_shards_however_they_end(
    toy: Any, tmp_path: Path
) -> None:
    ray.shutdown()

    def done(shard: Any) -> None:
        assert ray.is_initialized()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_shards(ENGINE, toy.Squares(tmp_path), shards_of(toy), None, done)
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_told_in_seconds(toy: Any, tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    engine = RayEngine(address="127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        run_shards(engine, toy.Squares(tmp_path), shards_of(toy), None, lambda _: None)
    assert time.monotonic() - started < 60, "Ray by itself tries for minutes"


def test_an_address_of_ray_s_client_is_refused(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidConfig, match="Ray's client"):
        engine_of(EngineConfig(kind=EngineKind.RAY, address="ray://head:10001"))
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(InvalidConfig, match="Ray's client"):
        run_shards(ENGINE, toy.Squares(tmp_path), shards_of(toy), None, lambda _: None)


def test_the_configuration_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of(EngineConfig()) is IN_PROCESS
    config = EngineConfig(kind=EngineKind.RAY, address="auto", actors=3, threads=2, gpus=0.5)
    assert engine_of(config) == RayEngine("auto", 3, 2, 0.5)
    monkeypatch.setattr("offline.pipeline.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(InvalidConfig, match=r"retrikt\[ray\]"):
        engine_of(config)

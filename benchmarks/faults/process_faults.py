"""Processes that are killed, and two that want the same: builds, activations, the store service, rebuilds."""

import multiprocessing
import random
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from knowledge_samples import unit_vectors, write_sample
from rich.console import Console
from tiny_release import LABELS, TASK
from tiny_task import Service, build_task, free_port, store, student, until

from faults.tally import Tally
from offline.configs.run import RunConfig
from offline.rebuild import rebuild
from offline.run import TaskRun
from services.platform.errors import AlreadyRunning, RetriktError, StoreUnavailable
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import check_release
from services.store.backends.edge import EdgeBackend
from services.store.backends.sealed import check_sums, remove_leftovers
from services.store.client import HttpStoreClient
from services.store.knowledge_file import iterate_points, version_manifest

_QUERIES = unit_vectors(8, seed=3)


def kill_build(folder: Path, tries: int, rng: random.Random) -> Tally:
    """SIGKILL to the process that builds a version, at any instant of a build."""
    tally = Tally("kill -9 of a build")
    knowledge = write_sample(folder / "k", 3000)
    store_directory = folder / "store"
    # The first process waits until the server that they are forked from has loaded everything.
    _in_process(_build, store_directory, knowledge, "v-live").join()
    began = time.monotonic()
    _in_process(_build, store_directory, knowledge, "v-timed").join()
    usual = time.monotonic() - began
    before = _answers(store_directory, "v-live")
    for number in range(tries):
        with tally.one_try():
            name = f"v-{number}"
            builder = _in_process(_build, store_directory, knowledge, name)
            time.sleep(rng.random() * usual * 1.1)
            builder.kill()
            builder.join()
            tally.saw("killed" if builder.exitcode else "built before the kill")
            backend = EdgeBackend(store_directory)
            for manifest in backend.versions():
                check_sums(store_directory / manifest.version)
            seen = {manifest.version for manifest in backend.versions()}
            assert {"v-live", "v-timed"} <= seen, f"lost one of {seen}"
            assert seen <= {"v-live", "v-timed", name}, f"others in {seen}"
            assert builder.exitcode or name in seen, "a build that came to its end is not there"
            if builder.exitcode and name in seen:
                tally.saw("sealed at the kill")
            assert np.array_equal(_answers(store_directory, "v-live"), before), "live answers else"
            _build(store_directory, knowledge, name)
            assert np.array_equal(_answers(store_directory, name), before), "the next build is else"
            backend.delete(name)
            if any(store_directory.glob(".*")):
                tally.saw("next build done before the killed one's last process")
                until(partial(_swept, store_directory))
            backend.close()
            tally.saw("next build came through")
    return tally


def kill_activation(folder: Path, tries: int, rng: random.Random) -> Tally:
    """SIGKILL to a process that switches between two releases, at any instant."""
    tally = Tally("kill -9 of activations")
    task = build_task(folder / TASK)
    for _ in range(tries):
        with tally.one_try():
            before = task.releases.live()
            switcher = _in_process(_switch_for_ever, task.releases.root, task.one, task.two)
            while task.releases.live() == before:
                assert switcher.is_alive(), "it ended by itself"
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            switcher.kill()
            switcher.join()
            pointer = task.releases.live()
            assert pointer is not None, "nothing is live"
            assert {pointer.release, pointer.previous} == {task.one, task.two}, f"{pointer}"
            check_release(task.releases.path(pointer.release))
            other = {task.one: task.two, task.two: task.one}[pointer.release]
            assert task.releases.activate(other).previous == pointer.release
            tally.saw("pointer whole, next switch came through")
    return tally


def kill_service(folder: Path, tries: int, rng: random.Random) -> Tally:
    """SIGKILL to the store service while it is searched, alone and by a student."""
    tally = Tally("kill -9 of the store service under load")
    task = build_task(folder / TASK)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with student(task, store_url=url, ready=True, store_timeout_seconds=1.0) as served:
        until(lambda: served.process.poll() is None)
        before = None
        for _ in range(tries):
            with tally.one_try(), store(task, port=port) as service:
                client = HttpStoreClient(url, timeout=2.0)
                version = task.releases.get(task.one).store_version
                vectors = np.eye(8, dtype=np.float32)
                until(partial(_finds, client, version, vectors))
                found = client.search(version, vectors, 4).ids
                assert before is None or np.array_equal(found, before), "answers else than before"
                before = found
                _killed_under_load(tally, service, served, client, version, vectors, rng)
                client.close()
                assert task.releases.live() is not None
        private = task.directory / "private"
        with tally.one_try(), store(task, port=port):
            left = [path.name for path in private.iterdir()]
            assert len(left) <= 1, f"copies of the dead are left: {left}"
            tally.saw("no copy of a killed service left")
        tally.tries -= 1
    return tally


def two_rebuilds(folder: Path, tries: int, rng: random.Random) -> Tally:
    """Two rebuilds of one task that start at the same time."""
    tally = Tally("two rebuilds at once")
    task = build_task(folder / TASK)
    for _ in range(tries):
        with tally.one_try():
            before = task.releases.live()
            outcomes = multiprocessing.Queue()
            both = [_in_process(_rebuild, folder, outcomes) for _ in range(2)]
            for each in both:
                each.join()
            said = sorted(outcomes.get() for _ in both)
            assert "activated" in said, f"{said}"
            assert set(said) <= {"activated", AlreadyRunning.code}, f"{said}"
            after = task.releases.live()
            assert after is not None
            assert after != before, "nothing new is live"
            check_release(task.releases.path(after.release))
            version = task.releases.get(after.release).store_version
            check_sums(task.directory / "store" / version)
            tally.saw(" and ".join(said))
    return tally


def _in_process(target: object, *arguments: object) -> multiprocessing.Process:
    process = multiprocessing.Process(target=target, args=arguments)  # type: ignore[arg-type]
    process.start()
    return process


def _build(store_directory: Path, knowledge: Path, name: str) -> None:
    backend = EdgeBackend(store_directory)
    manifest = version_manifest(knowledge).model_copy(update={"version": name})
    backend.build(manifest, iterate_points(knowledge))
    backend.close()


def _swept(store_directory: Path) -> bool:
    """Whether all that a killed build left is gone, once a build has begun with what each begins with."""
    remove_leftovers(store_directory, ".aside-")
    return not any(store_directory.glob(".*"))


def _answers(store_directory: Path, version: str) -> np.ndarray:
    backend = EdgeBackend(store_directory)
    ids = backend.search(version, _QUERIES, 5, exact=True).ids
    backend.close()
    return ids


def _switch_for_ever(root: Path, one: str, two: str) -> None:
    releases = ReleaseDirectory(root)
    while True:
        for release in (two, one):
            releases.activate(release)


def _rebuild(folder: Path, outcomes: object) -> None:
    config = RunConfig.model_validate(
        {
            "task": {
                "name": TASK,
                "labels": list(LABELS),
                "data": {"train": "train.jsonl", "test": "test.jsonl"},
            }
        }
    )
    try:
        rebuilt = rebuild(TaskRun(config, folder, Console(stderr=True)), store_only=True)
        outcomes.put(rebuilt.outcome)  # type: ignore[attr-defined]
    except RetriktError as error:
        outcomes.put(error.code)  # type: ignore[attr-defined]


def _finds(client: HttpStoreClient, version: str, vectors: np.ndarray) -> bool:
    try:
        client.search(version, vectors, 4)
    except StoreUnavailable:
        return False
    return True


def _killed_under_load(
    tally: Tally,
    service: Service,
    served: Service,
    client: HttpStoreClient,
    version: str,
    vectors: np.ndarray,
    rng: random.Random,
) -> None:
    """Four threads search and one asks the student while the service dies; each answer is whole or an error of ours."""
    stop = threading.Event()
    strange: list[str] = []
    counts = {"answers": 0, "refusals": 0}

    def search() -> None:
        while not stop.is_set():
            try:
                hits = client.search(version, vectors, 4)
                if hits.ids.shape != (8, 4) or (hits.ids < 0).any():
                    strange.append("half an answer")
                counts["answers"] += 1
            except StoreUnavailable:
                counts["refusals"] += 1
                time.sleep(0.01)
            except Exception as error:
                strange.append(f"{type(error).__name__}: {error}")

    def predict() -> None:
        while not stop.is_set():
            answer = served.predict("wifi slow")
            if answer.status_code != 200:
                strange.append(f"the student answered {answer.status_code}")

    threads = [threading.Thread(target=search) for _ in range(4)]
    threads.append(threading.Thread(target=predict))
    for thread in threads:
        thread.start()
    time.sleep(0.2 + rng.random() * 0.5)
    service.process.kill()
    service.process.wait()
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not strange, strange[0]
    assert counts["answers"], "there was no load"
    degraded = "x-retrikt-degraded" in served.predict("wifi slow").headers
    assert degraded, "the student does not say that it answers alone"
    tally.saw("searches answered whole or refused, the student answered all")

"""Activations and rollbacks while a student answers without a pause; each answer is compared with its release's own."""

import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import tiny_release
from tiny_release import LABELS, TASK
from tiny_task import Service, TinyTask, store, student, until

from faults.tally import Tally
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import read_release_manifest, write_release_manifest
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import (
    Knowledge,
    fixed_lists,
    iterate_points,
    read_knowledge,
    version_manifest,
    write_knowledge,
)

_TEXTS = [text for text, _ in tiny_release.sentences(12, seed=5)]
_BATCH = [[text] for text in _TEXTS]
_QUESTIONS: tuple[dict[str, object], ...] = (
    *({"inputs": text} for text in _TEXTS),
    {"inputs": _BATCH},
    {"inputs": _BATCH, "explain": True},
)
_RELEASE, _DEGRADED = "x-retrikt-release", "x-retrikt-degraded"
_THREADS = 6


def activations_under_load(folder: Path, tries: int, rng: random.Random) -> Tally:
    """Half of the switches with the store in the student's process, half with a store service, whose routes switch."""
    tally = Tally("activations and rollbacks under constant load through a student")
    task = _two_that_differ(folder / TASK)
    with ExitStack() as stack:
        served = stack.enter_context(student(task))
        _switch_under_load(tally, task, served, _by_file(task), tries - tries // 2, rng)
    with ExitStack() as stack:
        service = stack.enter_context(store(task, releases=task.releases.root))
        url = f"http://127.0.0.1:{service.port}"
        # A late store is answered without, which is no answer of the release that could be compared.
        served = stack.enter_context(student(task, store_url=url, store_timeout_seconds=10))
        _switch_under_load(tally, task, served, _by_route(service), tries // 2, rng)
    return tally


def _two_that_differ(directory: Path) -> TinyTask:
    """Two releases that share nothing: encoder, texts and soft labels of the one are not the other's."""
    releases = ReleaseDirectory(directory / "releases")
    backend = EdgeBackend(directory / "store")
    names = []
    for seed, certainty in ((0, 0.9), (1, 0.7)):
        staged = directory / f"staged-{seed}"
        tiny_release.write_release(staged, seed=seed, lexical=True)
        _mark(staged, f"of release {seed}", certainty)
        knowledge = staged / "knowledge.parquet"
        backend.build(version_manifest(knowledge), iterate_points(knowledge))
        names.append(releases.add(staged).release)
        shutil.rmtree(staged)
    backend.close()
    releases.activate(names[0])
    return TinyTask(directory, names[0], names[1])


def _mark(staged: Path, mark: str, certainty: float) -> None:
    path = staged / "knowledge.parquet"
    knowledge = read_knowledge(path)
    sure = knowledge.soft_labels > 0.5
    soft = np.where(sure, certainty, (1 - certainty) / (len(LABELS) - 1)).astype(np.float32)
    table = knowledge.table
    texts = pa.array([f"{text}, {mark}" for text in table["text"].to_pylist()])
    for name, column in (("text", texts), ("soft_label", fixed_lists(soft))):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    write_knowledge(path, Knowledge(knowledge.metadata, table))
    np.save(staged / "soft_labels.npy", soft.astype(np.float16))
    told = read_release_manifest(staged)
    write_release_manifest(
        staged, task=told.task, labels=told.labels, items=told.items, metrics=told.metrics,
        store_version=version_manifest(path).version, encoder_fingerprint=told.encoder_fingerprint,
    )  # fmt: skip


def _switch_under_load(
    tally: Tally,
    task: TinyTask,
    served: Service,
    switch: Callable[[str | None], str],
    switches: int,
    rng: random.Random,
) -> None:
    """Switch to and fro; an activation and a rollback take turns, and the student follows each of them."""
    others = {task.one: task.two, task.two: task.one}
    own = _answers_of_each(served, switch, task)
    live = task.one
    with _constant_load(served.port, own) as load:
        for number in range(switches):
            with tally.one_try():
                answered = load.answered.total()
                assert switch(others[live] if number % 2 == 0 else None) == others[live]
                live = others[live]
                until(lambda release=live: served.release() == release)
                more = rng.randrange(_THREADS, 6 * _THREADS)
                until(lambda least=answered + more: load.answered.total() >= least)
                strange = load.take_strange()
                assert not strange, f"{len(strange)} answers, as this: {strange[0]}"
                tally.saw("activation" if number % 2 == 0 else "rollback")
    with tally.one_try():
        tally.tries -= 1
        strange = load.take_strange()
        assert not strange, f"{len(strange)} answers at the end, as this: {strange[0]}"
        assert min(load.answered[release] for release in others) > switches, f"{load.answered}"
    tally.outcomes["answer of the release that it names"] += load.answered.total()


def _by_file(task: TinyTask) -> Callable[[str | None], str]:
    """As `retrikt release` does it."""
    releases = task.releases

    def switch(release: str | None) -> str:
        pointer = releases.rollback() if release is None else releases.activate(release)
        return pointer.release

    return switch


def _by_route(service: Service) -> Callable[[str | None], str]:
    def switch(release: str | None) -> str:
        path = "rollback" if release is None else f"{release}/activate"
        answer = service.http.post(f"/v1/releases/{path}")
        assert answer.status_code == 200, f"the switch was answered {answer.status_code}"
        return str(answer.json()["release"])

    return switch


def _answers_of_each(
    served: Service, switch: Callable[[str | None], str], task: TinyTask
) -> dict[str, list[dict[str, object]]]:
    """What each release answers while nothing else happens, by release and question; ends with `one` live."""
    own = {}
    for release in (task.two, task.one):
        switch(release)
        until(lambda release=release: served.release() == release)
        answers = [served.http.post("/predict", json=question) for question in _QUESTIONS]
        for answer in answers:
            assert answer.status_code == 200
            assert answer.headers[_RELEASE] == release
            assert _DEGRADED not in answer.headers
        own[release] = [_flat(answer.json()) for answer in answers]
    for one, two in zip(own[task.one], own[task.two], strict=True):
        assert _difference(one, two) is not None, "the releases cannot be told apart"
    return own


class _Load:
    """What a load has seen so far.

    Attributes:
        answered: answers by the release that they name.
    """

    def __init__(self, own: dict[str, list[dict[str, object]]]) -> None:
        self.answered: Counter[str] = Counter()
        self._own = own
        self._strange: list[str] = []
        self._lock = threading.Lock()

    def take_strange(self) -> list[str]:
        """What should not have been seen since the last call."""
        with self._lock:
            found, self._strange = self._strange, []
        return found

    def ask(self, http: httpx.Client, question: int) -> None:
        release = None
        try:
            answer = http.post("/predict", json=_QUESTIONS[question])
            release = answer.headers.get(_RELEASE)
            fault = self._fault(answer, release, question)
        except httpx.HTTPError as error:
            fault = f"{type(error).__name__}: {error}"
        with self._lock:
            if fault is not None:
                self._strange.append(fault)
            elif release is not None:
                self.answered[release] += 1

    def _fault(self, answer: httpx.Response, release: str | None, question: int) -> str | None:
        if answer.status_code != 200:
            return f"{answer.status_code}: {answer.text[:200]}"
        if (reason := answer.headers.get(_DEGRADED)) is not None:
            return f"answered without the store: {reason}"
        if release not in self._own:
            return f"no release is named {release}"
        difference = _difference(_flat(answer.json()), self._own[release][question])
        return None if difference is None else f"{release} does not answer so: {difference}"


@contextmanager
def _constant_load(port: int, own: dict[str, list[dict[str, object]]]) -> Iterator[_Load]:
    """Threads that ask one question after another until the end of the block."""
    load, stop = _Load(own), threading.Event()

    def keep_asking(first: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            question = first
            while not stop.is_set():
                load.ask(http, question % len(_QUESTIONS))
                question += 1

    threads = [threading.Thread(target=partial(keep_asking, 2 * n)) for n in range(_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _flat(answer: Any, path: str = "") -> dict[str, object]:
    """Every value of an answer by where it stands; scores by their label, and no times."""
    if isinstance(answer, dict):
        if set(answer) == {"label", "score"}:
            return {f"{path}/{answer['label']}": answer["score"]}
        parts = [(key, value) for key, value in answer.items() if key != "seconds"]
    elif isinstance(answer, list):
        scores = bool(answer) and isinstance(answer[0], dict) and "score" in answer[0]
        parts = [("scores" if scores else n, value) for n, value in enumerate(answer)]
    else:
        return {path: answer}
    found: dict[str, object] = {}
    for key, value in parts:
        found |= _flat(value, f"{path}/{key}")
    return found


def _difference(one: dict[str, object], other: dict[str, object]) -> str | None:
    """Where two answers differ; numbers by more than a batch of another size moves them."""
    if one.keys() != other.keys():
        return f"{min(one.keys() ^ other.keys())} is in one of them alone"
    for path, value in one.items():
        wanted = other[path]
        if isinstance(value, float) and isinstance(wanted, float):
            if abs(value - wanted) > 1e-4:
                return f"{path} is {value}, not {wanted}"
        elif value != wanted:
            return f"{path} is {value}, not {wanted}"
    return None

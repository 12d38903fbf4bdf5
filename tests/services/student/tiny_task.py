"""A task directory with two tiny releases, and the services as processes on it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import tiny_release

from services.platform.server import bind
from services.releases.directory import LIVE, ReleaseDirectory
from services.store.backends.edge import EdgeBackend
from services.store.client import EmbeddedStoreClient
from services.store.knowledge_file import iterate_points, version_manifest
from services.student.predictor import Predictor

TEXTS = [text for text, _ in tiny_release.sentences(30, seed=11)]


@dataclass(frozen=True, slots=True)
class TinyTask:
    """`one` is live, `two` is another student's release."""

    directory: Path
    one: str
    two: str

    @property
    def releases(self) -> ReleaseDirectory:
        return ReleaseDirectory(self.directory / "releases")

    def copy(self, directory: Path) -> "TinyTask":
        shutil.copytree(self.directory, directory)
        return TinyTask(directory, self.one, self.two)

    def client(self) -> EmbeddedStoreClient:
        return EmbeddedStoreClient.edge(self.directory / "store")

    def predictor(self, release: str, client: EmbeddedStoreClient) -> Predictor:
        return Predictor.load(self.releases.path(release), client)

    def point_at(self, release: str) -> None:
        """Write the pointer by hand, past the checks of `activate`."""
        aside = self.directory / "pointer"
        aside.write_text(f'{{"release": "{release}", "activated_at": "2026-01-01T00:00:00+00:00"}}')
        aside.replace(self.releases.root / LIVE)


def build_task(
    directory: Path,
    *,
    pair: bool = False,
    distance_threshold: float | None = None,
    lexical: bool = False,
) -> TinyTask:
    releases = ReleaseDirectory(directory / "releases")
    backend = EdgeBackend(directory / "store")
    names = []
    for seed in (0, 1):
        staged = directory / f"staged-{seed}"
        tiny_release.write_release(
            staged,
            seed=seed,
            pair=pair,
            distance_threshold=distance_threshold,
            lexical=lexical,
        )
        knowledge = staged / "knowledge.parquet"
        backend.build(version_manifest(knowledge), iterate_points(knowledge))
        names.append(releases.add(staged).release)
        shutil.rmtree(staged)
    backend.close()
    releases.activate(names[0])
    return TinyTask(directory, names[0], names[1])


def free_port() -> int:
    with bind("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(slots=True)
class Service:
    """A service in a process of its own, as shipped."""

    process: subprocess.Popen[bytes]
    port: int
    http: httpx.Client
    log: Path

    def predict(self, inputs: object, **fields: object) -> httpx.Response:
        return self.http.post("/predict", json={"inputs": inputs, **fields})

    def release(self) -> str:
        return str(self.http.get("/readyz").json()["release"])

    def events(self) -> str:
        """The whole lines of the log so far: the last one may be half written yet."""
        text = self.log.read_text()
        return text[: text.rfind("\n") + 1]

    def answered(self, route: str = "/predict") -> dict[int, int]:
        """How many requests each worker has answered, by its log."""
        lines = [json.loads(line) for line in self.events().splitlines()]
        return Counter(
            line.get("worker", 0)
            for line in lines
            if line["event"] == "request" and line["route"] == route
        )


@contextmanager
def student(
    task: TinyTask, *, ready: bool = True, port: int = 0, **settings: object
) -> Iterator[Service]:
    """`python -m services.student` on a task; killed at the end unless it has ended."""
    given = {"TASK_DIR": task.directory, "POLL_SECONDS": 0.05, **settings}
    with _service("student", task.directory, port, given) as service:
        until(lambda: answers(service, "/readyz" if ready else "/livez"))
        yield service


@contextmanager
def store(task: TinyTask, *, port: int = 0, **settings: object) -> Iterator[Service]:
    """`python -m services.store` on a task's sealed versions."""
    given: dict[str, object] = {
        "DIRECTORY": task.directory / "store",
        "PRIVATE_DIRECTORY": task.directory / "private",
        **settings,
    }
    with _service("store", task.directory, port, given) as service:
        until(lambda: answers(service, "/readyz"))
        yield service


@contextmanager
def _service(
    name: str, directory: Path, port: int, settings: dict[str, object]
) -> Iterator[Service]:
    port = port or free_port()
    prefix = f"RETRIKT_{name.upper()}_"
    environment = {f"{prefix}{key.upper()}": str(value) for key, value in settings.items()}
    log = directory / f"{name}-{port}-{time.monotonic_ns()}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"],
            env=os.environ | environment | {f"{prefix}PORT": str(port)},
            stderr=stderr,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            yield Service(process, port, http, log)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def answers(service: Service, path: str) -> bool:
    assert service.process.poll() is None, service.events()
    try:
        return service.http.get(path).status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def end_of(**settings: object) -> tuple[int, str]:
    """Exit status and log of a service that cannot start."""
    given = {"port": 0, **settings}
    environment = {f"RETRIKT_STUDENT_{name.upper()}": str(v) for name, v in given.items()}
    done = subprocess.run(
        [sys.executable, "-m", "services.student"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@contextmanager
def constant_load(
    service: Service, threads: int = 4
) -> Iterator[list[tuple[str, httpx.Response | Exception]]]:
    """Requests from several threads until the end of the block; what came of each.

    Now and then a thread opens a new connection: of a burst of them one of several workers may take all.
    """
    stop = threading.Event()
    seen: list[tuple[str, httpx.Response | Exception]] = []

    def send(first: int) -> None:
        url = f"http://127.0.0.1:{service.port}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            number = first
            while not stop.is_set():
                text = TEXTS[number % len(TEXTS)]
                number += 1
                headers = {} if number % 50 else {"connection": "close"}
                try:
                    answer = http.post("/predict", json={"inputs": text}, headers=headers)
                    seen.append((text, answer))
                except httpx.TransportError as error:
                    seen.append((text, error))

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(send, first) for first in range(threads)]
        try:
            yield seen
        finally:
            stop.set()
    for future in running:
        future.result()


def metric(service: Service, name: str) -> float:
    for line in service.http.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    return 0.0


@contextmanager
def silent_listener(port: int) -> Iterator[None]:
    """Takes connections on a port and never answers, as a process that hangs does."""
    with socket.create_server(("127.0.0.1", port), backlog=64):
        yield

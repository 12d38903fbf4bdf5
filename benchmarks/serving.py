"""The running server against the same predictor called in a loop, and against a bare FastAPI echo.

    python benchmarks/serving.py runs/helpdesk
    python benchmarks/serving.py runs/helpdesk --rounds 5 --seconds 3 --json serving.json

Everything runs interleaved, round after round on the same cores, and the median counts:

- *loop*: the predictor in this process, one text a call, one ONNX thread;
- *batched*: the same with 32 texts a call;
- *server*: `python -m services.student` as shipped (metrics, request ids, access log), loaded by a
  client in a process of its own, over 1 and 16 connections;
- *two processes*, with `--store-service`: the same, its store in `python -m services.store`;
- *echo*: the least that FastAPI and uvicorn cost for the same bodies: a route that sends them back.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from services.releases.directory import ReleaseDirectory
from services.store.knowledge_file import read_knowledge
from services.student.app import open_store
from services.student.predictor import Predictor, TextInput
from services.student.settings import StudentSettings

HERE = Path(__file__).resolve().parent
ECHO = """
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/predict")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")
@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {}
"""
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--store-service", action="store_true", help="measure two processes too")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        texts = sample_texts(given.task_dir)
        bodies = folder / "bodies.jsonl"
        bodies.write_text("\n".join(json.dumps({"inputs": body(text)}) for text in texts))
        (folder / "echo.py").write_text(ECHO)
        predictor = stack.enter_context(in_process(given.task_dir))
        server = stack.enter_context(student(given.task_dir))
        echo = stack.enter_context(echo_server(folder))
        urls = {"server": server, "echo": echo}
        if given.store_service:
            store = stack.enter_context(store_service(given.task_dir))
            urls["two processes"] = stack.enter_context(student(given.task_dir, store))
        measures: dict[str, Callable[[], Figures]] = {
            "loop": partial(loop, predictor, texts, 1, given.seconds),
            "batched": partial(loop, predictor, texts, 32, given.seconds),
        }
        for count in given.connections:
            for name, url in urls.items():
                measures[f"{name} {count}"] = partial(load, url, bodies, count, given.seconds)
        rounds: dict[str, list[Figures]] = {name: [] for name in measures}
        for _ in range(given.rounds):
            for name, measure in measures.items():
                rounds[name].append(measure())
    report(rounds, given.connections)
    if given.json:
        given.json.write_text(json.dumps(rounds, indent=1))


def sample_texts(task_dir: Path) -> list[TextInput]:
    """Texts like those in the store but not in it: of each, one word is left out."""
    releases = ReleaseDirectory(task_dir / "releases")
    live = releases.live()
    if live is None:
        sys.exit(f"{task_dir} has no live release: run the pipeline first.")
    table = read_knowledge(releases.path(live.release) / "knowledge.parquet").table
    rng = random.Random(0)
    rows = rng.sample(range(table.num_rows), min(2000, table.num_rows))
    texts = []
    for row in rows:
        words = table["text"][row].as_py().split()
        if len(words) > 1:
            words.pop(rng.randrange(len(words)))
        texts.append(TextInput(" ".join(words), table["text_pair"][row].as_py()))
    return texts


def body(text: TextInput) -> object:
    return text.text if text.pair is None else [text.text, text.pair]


@contextmanager
def in_process(task_dir: Path) -> Iterator[Predictor]:
    client = open_store(StudentSettings(task_dir=task_dir))
    releases = ReleaseDirectory(task_dir / "releases")
    live = releases.live()
    assert live is not None
    try:
        yield Predictor.load(releases.path(live.release), client)
    finally:
        client.close()


@contextmanager
def student(task_dir: Path, store_url: str | None = None) -> Iterator[str]:
    port = free_port()
    environment = {
        "RETRIKT_STUDENT_TASK_DIR": str(task_dir),
        "RETRIKT_STUDENT_PORT": str(port),
    }
    if store_url is not None:
        environment["RETRIKT_STUDENT_STORE_URL"] = store_url
    with process([sys.executable, "-m", "services.student"], environment):
        yield ready(port) + "/predict"


@contextmanager
def store_service(task_dir: Path) -> Iterator[str]:
    port = free_port()
    environment = {
        "RETRIKT_STORE_DIRECTORY": str(task_dir / "store"),
        "RETRIKT_STORE_RELEASES": str(task_dir / "releases"),
        "RETRIKT_STORE_PORT": str(port),
    }
    with process([sys.executable, "-m", "services.store"], environment):
        yield ready(port)


@contextmanager
def echo_server(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "echo:app", "--port", str(port)]
    with process([*command, "--app-dir", str(folder), "--no-access-log"], {}):
        yield ready(port) + "/predict"


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    running = subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.DEVNULL, cwd=HERE.parent
    )
    try:
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ready(port: int) -> str:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return f"http://127.0.0.1:{port}"
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"The server on port {port} did not become ready.")
            time.sleep(0.2)


def loop(predictor: Predictor, texts: list[TextInput], size: int, seconds: float) -> Figures:
    times: list[float] = []
    begun = time.perf_counter()
    start = 0
    while (now := time.perf_counter()) - begun < seconds:
        predictor.predict(texts[start : start + size])
        times.append(time.perf_counter() - now)
        start = (start + size) % (len(texts) - size)
    took = time.perf_counter() - begun
    times.sort()
    return {
        "rate": size * len(times) / took,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3,
        "failed": 0,
    }


def load(url: str, bodies: Path, connections: int, seconds: float) -> Figures:
    command = [sys.executable, str(HERE / "load.py"), url, "--body", str(bodies)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def report(rounds: dict[str, list[Figures]], connections: list[int]) -> None:
    middle = {
        name: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for name, figures in rounds.items()
    }
    print(f"{'':16} {'texts/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7}")
    for name, figures in middle.items():
        print(
            f"{name:16} {figures['rate']:9.0f} {figures['p50_ms']:8.2f} "
            f"{figures['p99_ms']:8.2f} {figures['failed']:7.0f}"
        )
    for count in connections:
        rate = middle[f"server {count}"]["rate"]
        print(
            f"server at {count} connections: {rate / middle['loop']['rate']:.2f} of the loop, "
            f"{rate / middle['batched']['rate']:.2f} of the batched loop"
        )
        if f"two processes {count}" in middle:
            share = middle[f"two processes {count}"]["rate"] / rate
            print(f"two processes at {count} connections: {share:.2f} of one")
    if 1 in connections:
        floor = middle["loop"]["p50_ms"] + middle["echo 1"]["p50_ms"]
        print(f"one connection: p50 {middle['server 1']['p50_ms'] / floor:.2f} x (loop + echo)")


if __name__ == "__main__":
    main()

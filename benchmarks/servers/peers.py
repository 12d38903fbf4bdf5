"""Other servers round the very same predictor, and the labeller that taught the student.

Each peer runs in an environment of its own, made once (they pin other versions of FastAPI and OpenTelemetry):

    python3.11 -m venv DIR/litserve && DIR/litserve/bin/pip install -r benchmarks/peers/litserve.txt
    python3.11 -m venv DIR/bentoml  && DIR/bentoml/bin/pip  install -r benchmarks/peers/bentoml.txt
    python3.11 -m venv DIR/mlserver && DIR/mlserver/bin/pip install -r benchmarks/peers/mlserver.txt
"""

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.same_predictor import MAX_BATCH, PORT, TASK_DIR

from servers.processes import ROOT, Server, free_port, server

APPS = ROOT / "benchmarks" / "peers"

Answer = dict[str, float]


@dataclass(frozen=True, slots=True)
class Peer:
    """How another server is started and asked.

    Attributes:
        name: of its environment, too.
        command: that starts it, given the environment's folder of programs and a folder for its files.
        ready: path that is answered with 200 once it can be asked.
        path: that takes texts.
        body: of a request for one text.
        scores: what an answer says, by label.
    """

    name: str
    command: Callable[[Path, Path, int], list[str]]
    ready: str
    path: str
    body: Callable[[str], Any]
    scores: Callable[[Any], Answer]


def ranked(answer: Any) -> Answer:
    return {entry["label"]: entry["score"] for entry in answer}


def _litserve(programs: Path, _folder: Path, _port: int) -> list[str]:
    return [str(programs / "python"), str(APPS / "lit_server.py")]


def _bentoml(programs: Path, _folder: Path, port: int) -> list[str]:
    served = ["serve", "bento_service:Student", "--working-dir", str(APPS)]
    return [str(programs / "bentoml"), *served, "--host", "127.0.0.1", "--port", str(port)]


def _mlserver(programs: Path, folder: Path, port: int) -> list[str]:
    # Computing in the server's own process, with 5 ms to fill a batch: faster than a worker of its own, and than 1 or
    # 20 ms.
    model = {
        "name": "student",
        "implementation": "mlserver_model.Student",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": 0.005,
    }
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "metrics_dir": str(folder),
        "debug": False,
        "parallel_workers": 0,
    }
    folder.mkdir()
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(settings))
    return [str(programs / "mlserver"), "start", str(folder)]


def _labeller(_programs: Path, _folder: Path, port: int) -> list[str]:
    served = ["labeller_app:app", "--app-dir", str(APPS), "--port", str(port), "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", *served]


LABELLER = Peer("labeller", _labeller, "/readyz", "/predict", lambda text: {"inputs": text}, ranked)
PEERS = (
    Peer("litserve", _litserve, "/health", "/predict", lambda text: {"inputs": text}, ranked),
    Peer(
        "bentoml",
        _bentoml,
        "/readyz",
        "/predict",
        lambda text: {"inputs": [text]},
        lambda answer: ranked(answer[0]),
    ),
    Peer(
        "mlserver",
        _mlserver,
        "/v2/models/student/ready",
        "/v2/models/student/infer",
        lambda text: {
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]
        },
        lambda answer: ranked(json.loads(answer["outputs"][0]["data"][0])),
    ),
)


@contextmanager
def serving(peer: Peer, environments: Path, folder: Path, task_dir: Path) -> Iterator[Server]:
    """A peer that answers.

    Args:
        peer: which.
        environments: directory of the peers' environments.
        folder: for its files.
        task_dir: that it serves.
    """
    port = free_port()
    programs = environments / peer.name / "bin"
    command = peer.command(programs, folder / peer.name, port)
    environment = {
        TASK_DIR: str(task_dir.resolve()),
        PORT: str(port),
        "PYTHONPATH": f"{ROOT}:{APPS}",
        "BENTOML_DO_NOT_TRACK": "true",
    }
    with server(command, port, environment, ready=peer.ready) as running:
        yield running


def ask(url: str, body: Any) -> Any:
    """The answer to one body."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)

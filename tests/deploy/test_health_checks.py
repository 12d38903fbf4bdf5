"""The commands by which compose sees whether a service can answer, run against the real services."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import ROOT, services  # noqa: E402

from services.platform.server import bind, url_of  # noqa: E402


def free_port() -> int:
    with bind("127.0.0.1", 0) as listener:
        return int(url_of(listener).rpartition(":")[2])


def check(name: str, port: int) -> int:
    """Exit status of a service's health check, with this port in place of its own."""
    own = {"qdrant": "6333", "store": "8001", "student": "8000"}[name]
    command = [
        part.replace(f"127.0.0.1:{own}", f"127.0.0.1:{port}").replace(f"/{own}", f"/{port}")
        for part in services()[name]["healthcheck"]["test"][1:]
    ]
    command[0] = sys.executable if command[0] == "python" else command[0]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


@contextmanager
def service(name: str, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    prefix = f"RETRIKT_{name.upper()}_"
    environment = {key: value for key, value in os.environ.items() if "RETRIKT_" not in key}
    environment |= {f"{prefix}{key.upper()}": value for key, value in settings.items()}
    environment[f"{prefix}PORT"] = str(port)
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}"],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_store_is_healthy_before_the_first_version_and_not_once_it_was_killed(
    tmp_path: Path,
) -> None:
    port = free_port()
    with service("store", port, directory=str(tmp_path)) as process:
        deadline = time.monotonic() + 60
        while check("store", port) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert check("store", port) == 0
        process.kill()
        process.wait(timeout=30)
        assert check("store", port) != 0


def test_the_student_is_not_healthy_before_a_release_serves(tmp_path: Path) -> None:
    port = free_port()
    with service("student", port, task_dir=str(tmp_path)) as process:
        deadline = time.monotonic() + 60
        while not answers(port) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert process.poll() is None
        assert answers(port)
        assert check("student", port) != 0


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_qdrants_check_reads_the_status_without_an_http_client(status: int, expected: int) -> None:
    class Qdrant(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Qdrant)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert check("qdrant", server.server_port) == expected
    finally:
        server.shutdown()
        server.server_close()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=2):
            return True
    except OSError:  # Whatever is in the way, its time limit among that.
        return False

"""Snapshots of a Qdrant server: their bytes come and go as they are, and what the server says becomes our errors.

The server here is a stand-in that speaks the snapshot part of Qdrant's REST interface, since the
client's in-memory mode has none; `test_congruence.py` asks a real one where there is one.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.platform.errors import (
    CorruptArtifact,
    StorageFull,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.server_snapshot import FILE, QdrantSnapshots

CONTENT = bytes(range(256)) * 9000
COLLECTION = "retrikt-toy-v-1"


class StandIn(ThreadingHTTPServer):
    """What the tests look at and set: requests, uploaded bodies, the checksum that is told, faults."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str | None]] = []
        self.uploaded = b""
        self.checksum = hashlib.sha256(CONTENT).hexdigest()
        self.content = CONTENT
        self.fault: tuple[str, int, str] | None = None
        """Method, status and words of the answer to every request of that method."""


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.refused():
            return
        if "/upload" in self.path:
            self.server.uploaded = body
            self.tell({"result": True, "status": "ok", "time": 0.1})
            return
        self.tell(
            {
                "result": {
                    "name": "made.snapshot",
                    "creation_time": "2026-01-01T00:00:00",
                    "size": len(self.server.content),
                    "checksum": self.server.checksum,
                },
                "status": "ok",
                "time": 0.1,
            }
        )

    def do_GET(self) -> None:
        if not self.refused():
            self.send_response(200)
            self.send_header("content-length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(self.server.content)

    def do_DELETE(self) -> None:
        if not self.refused():
            self.tell({"result": True, "status": "ok", "time": 0.1})

    def refused(self) -> bool:
        self.server.requests.append((self.command, self.path, self.headers.get("api-key")))
        fault = self.server.fault
        if fault is None or fault[0] != self.command:
            return False
        self.tell({"status": {"error": fault[2]}, "time": 0.1}, fault[1])
        return True

    def tell(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def snapshots(server: StandIn) -> Iterator[QdrantSnapshots]:
    made = QdrantSnapshots.connect(f"http://127.0.0.1:{server.server_address[1]}", None)
    yield made
    made.close()


def test_a_snapshot_is_brought_here_whole_and_removed_there(
    server: StandIn, snapshots: QdrantSnapshots, tmp_path: Path
) -> None:
    snapshots.download(COLLECTION, tmp_path / "version")
    assert (tmp_path / "version" / FILE).read_bytes() == CONTENT
    base = f"/collections/{COLLECTION}/snapshots"
    assert [(method, path.partition("?")[0]) for method, path, _ in server.requests] == [
        ("POST", base),
        ("GET", f"{base}/made.snapshot"),
        ("DELETE", f"{base}/made.snapshot"),
    ]


def test_the_same_bytes_are_taken_back(
    server: StandIn, snapshots: QdrantSnapshots, tmp_path: Path
) -> None:
    snapshots.download(COLLECTION, tmp_path)
    snapshots.upload(COLLECTION, tmp_path)
    assert CONTENT in server.uploaded
    assert b'name="snapshot"' in server.uploaded
    path = server.requests[-1][1]
    assert path.startswith(f"/collections/{COLLECTION}/snapshots/upload?")
    assert "wait=true" in path
    assert "priority=snapshot" in path


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_of_qdrant_goes_with_every_call(server: StandIn, tmp_path: Path) -> None:
    made = QdrantSnapshots.connect(f"http://127.0.0.1:{server.server_address[1]}", "a-key")
    made.upload(COLLECTION, snapshot_file(tmp_path))
    made.close()
    assert {key for _, _, key in server.requests} == {"a-key"}


def snapshot_file(directory: Path) -> Path:
    (directory / FILE).write_bytes(CONTENT)
    return directory


@pytest.mark.parametrize(
    ("method", "status", "words", "expected"),
    [
        ("POST", 404, "Collection not found", VersionNotFound),
        ("POST", 403, "forbidden", StoreUnavailable),
        ("POST", 500, "No space left on device", StorageFull),
        ("GET", 404, "Not found: snapshot", VersionNotFound),
        ("GET", 500, "something broke", StoreUnavailable),
    ],
)
def test_what_the_server_refuses_is_an_error_of_ours(
    server: StandIn,
    snapshots: QdrantSnapshots,
    tmp_path: Path,
    method: str,
    status: int,
    words: str,
    expected: type[Exception],
) -> None:
    server.fault = (method, status, words)
    with pytest.raises(expected):
        snapshots.download(COLLECTION, tmp_path / "version")
    if method == "POST":
        with pytest.raises(expected):
            snapshots.upload(COLLECTION, snapshot_file(tmp_path))
    else:
        assert server.requests[-1][0] == "DELETE"


def test_other_bytes_than_the_server_made_are_refused_and_none_is_left_there(
    server: StandIn, snapshots: QdrantSnapshots, tmp_path: Path
) -> None:
    server.content = bytes(len(CONTENT))
    with pytest.raises(CorruptArtifact, match="another checksum"):
        snapshots.download(COLLECTION, tmp_path / "version")
    assert server.requests[-1][0] == "DELETE"
    server.content = CONTENT[:-1]
    with pytest.raises(StoreUnavailable, match="does not answer"):
        snapshots.download(COLLECTION, tmp_path / "version")


def test_a_server_that_is_away_and_a_file_that_is_missing_are_told(tmp_path: Path) -> None:
    away = QdrantSnapshots.connect("http://127.0.0.1:9", None)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        away.download(COLLECTION, tmp_path)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        away.upload(COLLECTION, snapshot_file(tmp_path))
    (tmp_path / FILE).unlink()
    with pytest.raises(CorruptArtifact, match="holds no snapshot of a collection"):
        away.upload(COLLECTION, tmp_path)
    away.close()

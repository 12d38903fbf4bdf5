"""The Qdrant server backend: half-built collections stay unseen, and what a server answers becomes our errors."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from knowledge_samples import unit_vectors, write_sample
from qdrant_client import QdrantClient, models

from services.platform.errors import (
    CorruptArtifact,
    RetriktError,
    StorageFull,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.server import ServerBackend
from services.store.knowledge_file import iterate_points, version_manifest

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


def leave_half_a_version(client: QdrantClient, knowledge: Path, task: str = "toy") -> str:
    """What a killed build leaves: a collection with some points and no manifest."""
    manifest = version_manifest(knowledge)
    name = f"retrikt-{task}-{manifest.version}"
    vectors = models.VectorParams(size=manifest.dimensions, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=vectors)
    batch = next(iter(iterate_points(knowledge, 20)))
    client.upsert(
        name,
        models.Batch(
            ids=batch.ids.tolist(), vectors=batch.vectors.tolist(), payloads=batch.payloads
        ),
    )
    return manifest.version


def test_a_half_built_version_is_unseen_and_the_next_build_replaces_it(
    client: QdrantClient, tmp_path: Path
) -> None:
    knowledge = write_sample(tmp_path / "k")
    version = leave_half_a_version(client, knowledge)
    backend = ServerBackend(client, "toy")
    assert backend.versions() == []
    for call in (
        lambda: backend.manifest(version),
        lambda: backend.search(version, unit_vectors(1), 1),
        lambda: backend.items(version, [0]),
        lambda: backend.delete(version),
    ):
        with pytest.raises(VersionNotFound):
            call()
    backend.build(version_manifest(knowledge), iterate_points(knowledge))
    assert [manifest.count for manifest in backend.versions()] == [200]
    assert client.count(f"retrikt-toy-{version}").count == 200


def test_a_build_that_fails_leaves_no_collection(client: QdrantClient, tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    backend = ServerBackend(client, "toy")
    with pytest.raises(CorruptArtifact):
        backend.build(version_manifest(knowledge), list(iterate_points(knowledge, 70))[:2])
    assert client.get_collections().collections == []


def test_a_task_sees_its_own_collections_alone(client: QdrantClient, tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    manifest = version_manifest(knowledge)
    for task in ("toy", "toy-v"):
        ServerBackend(client, task).build(
            manifest.model_copy(update={"task": task}), iterate_points(knowledge)
        )
    client.create_collection(
        "someone-elses", models.VectorParams(size=4, distance=models.Distance.DOT)
    )
    for task in ("toy", "toy-v"):
        assert [found.task for found in ServerBackend(client, task).versions()] == [task]


def test_a_version_deleted_by_someone_else_is_not_found(
    client: QdrantClient, tmp_path: Path
) -> None:
    knowledge = write_sample(tmp_path / "k")
    backend = ServerBackend(client, "toy")
    version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
    backend.search(version, unit_vectors(1), 1)
    client.delete_collection(f"retrikt-toy-{version}")
    for _ in range(2):
        with pytest.raises(VersionNotFound, match=f"no store version {version}"):
            backend.search(version, unit_vectors(1), 1)


def test_a_manifest_that_cannot_be_read_is_corrupt_and_not_listed(
    client: QdrantClient, tmp_path: Path
) -> None:
    version = leave_half_a_version(client, write_sample(tmp_path / "k"))
    client.update_collection(f"retrikt-toy-{version}", metadata={"retrikt": {"format": 7}})
    backend = ServerBackend(client, "toy")
    assert backend.versions() == []
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        backend.manifest(version)


@contextmanager
def http_server(status: int, body: object) -> Iterator[str]:
    """URL of a server that answers everything alike."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FULL = (
    "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            404,
            {"status": {"error": "Not found: Collection x"}},
            VersionNotFound,
            "no store version",
        ),
        (500, {"status": {"error": FULL}}, StorageFull, "disk is full"),
        (401, {"status": {"error": "Invalid API key"}}, StoreUnavailable, "Check the API key"),
        (503, {"status": {"error": "raft"}}, StoreUnavailable, r"error \(503\)"),
        (200, b"<html>", StoreUnavailable, "Qdrant "),
        (200, {"result": {"no": "collection"}}, StoreUnavailable, "Qdrant "),
    ],
)
def test_what_a_server_answers_becomes_an_error_of_ours(
    status: int, body: object, kind: type[RetriktError], message: str
) -> None:
    with http_server(status, body) as url:
        backend = ServerBackend.connect(url, "toy")
        with pytest.raises(kind, match=message):
            backend.manifest("v-1")
        backend.close()

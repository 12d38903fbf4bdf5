"""The client against a real store service in another process: the same answers, and every fault a StoreUnavailable."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from knowledge_samples import FINGERPRINT, unit_vectors, write_sample

from services.platform.errors import (
    IncompatibleArtifacts,
    InvalidConfig,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    VersionNotFound,
)
from services.platform.server import bind, url_of
from services.store.backends.edge import EdgeBackend
from services.store.client import EmbeddedStoreClient, HttpStoreClient, StoreClient
from services.store.knowledge_file import iterate_points, version_manifest


@contextmanager
def store_process(directory: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service as shipped; yields the process and its URL once it answers."""
    if port == 0:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        listener.close()
    environment = {
        **os.environ,
        "RETRIKT_STORE_DIRECTORY": str(directory / "store"),
        "RETRIKT_STORE_PRIVATE_DIRECTORY": str(directory / "private"),
        "RETRIKT_STORE_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.store"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_port(port)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task")
    knowledge = write_sample(directory / "knowledge.parquet")
    backend = EdgeBackend(directory / "store", private=directory / "private")
    backend.build(version_manifest(knowledge), iterate_points(knowledge))
    return directory


@pytest.fixture(scope="module")
def version(directory: Path) -> str:
    return version_manifest(directory / "knowledge.parquet").version


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    with store_process(directory) as (_, url):
        yield url


@pytest.fixture(params=["embedded", "http"])
def client(request: pytest.FixtureRequest, directory: Path, url: str) -> Iterator[StoreClient]:
    made: StoreClient = (
        EmbeddedStoreClient.edge(directory / "store")
        if request.param == "embedded"
        else HttpStoreClient(url, timeout=20)
    )
    yield made
    made.close()


def test_both_clients_give_what_the_backend_gives(
    client: StoreClient, directory: Path, version: str
) -> None:
    backend = EdgeBackend(directory / "store", private=directory / "private")
    queries = unit_vectors(40, seed=3)
    for k in (1, 16, 203):
        expected, hits = backend.search(version, queries, k), client.search(version, queries, k)
        np.testing.assert_array_equal(hits.ids, expected.ids)
        np.testing.assert_array_equal(hits.scores, expected.scores)
        assert (hits.ids.dtype, hits.scores.dtype) == (np.int64, np.float32)
    assert client.items(version, [9, 4]) == backend.items(version, [9, 4])
    assert client.check(version, FINGERPRINT) == backend.manifest(version)
    backend.close()


def test_both_clients_raise_the_same_errors(client: StoreClient, version: str) -> None:
    with pytest.raises(IncompatibleArtifacts, match="this student's encoder is sha256:other"):
        client.check(version, "sha256:other")
    for missing in ("v-absent", "../etc", "a b?"):
        with pytest.raises(VersionNotFound):
            client.check(missing, FINGERPRINT)
        with pytest.raises(VersionNotFound):
            client.search(missing, unit_vectors(1), 1)
    with pytest.raises(NotFound, match="no item 200"):
        client.items(version, [200])
    with pytest.raises(InvalidRequest, match="16 dimensions"):
        client.search(version, unit_vectors(1, 8), 1)


def test_many_threads_search_at_once(client: StoreClient, version: str) -> None:
    vectors = unit_vectors(200)
    wrong: list[object] = []

    def work(first: int) -> None:
        for start in range(first, 200, 40):
            hits = client.search(version, vectors[start : start + 5], 3)
            if hits.ids[:, 0].tolist() != list(range(start, start + 5)):
                wrong.append(hits)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 40, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_damaged_version_is_unavailable_to_an_embedded_student(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "knowledge.parquet")
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
    (tmp_path / "store" / version / "sums.json").unlink()
    client = EmbeddedStoreClient.edge(tmp_path / "store")
    with pytest.raises(StoreUnavailable, match="damaged"):
        client.search(version, unit_vectors(1), 1)
    client.close()


def test_a_killed_store_is_unavailable_until_it_is_back(directory: Path, version: str) -> None:
    query = unit_vectors(1)
    with store_process(directory) as (process, url):
        client = HttpStoreClient(url, timeout=20)
        expected = client.search(version, query, 5)
        stop = threading.Event()
        answers: list[str] = []

        def keep_searching() -> None:
            while not stop.is_set():
                try:
                    client.search(version, query, 5)
                    answers.append("hits")
                except StoreUnavailable:
                    answers.append("unavailable")
                except BaseException as error:
                    answers.append(repr(error))

        searcher = threading.Thread(target=keep_searching)
        searcher.start()
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            client.search(version, query, 5)
        time.sleep(0.1)
        stop.set()
        searcher.join()
    assert set(answers) == {"hits", "unavailable"}
    with store_process(directory, int(url.rsplit(":", 1)[1])):
        np.testing.assert_array_equal(client.search(version, query, 5).ids, expected.ids)
    client.close()


def test_a_store_that_hangs_is_given_up_in_time(directory: Path, version: str) -> None:
    with store_process(directory) as (process, url):
        client = HttpStoreClient(url, timeout=20)
        client.search(version, unit_vectors(1), 1)
        os.kill(process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="has not answered within 0.2 s"):
            client.search(version, unit_vectors(1), 1, timeout=0.2)
        assert time.monotonic() - started < 2
        os.kill(process.pid, signal.SIGCONT)
        assert client.search(version, unit_vectors(1), 1).ids.shape == (1, 1)
        client.close()


def answer_with(payload: bytes, *, pause: float = 0.0) -> str:
    """URL of a server that gives one client these bytes, with a pause after each if there is one."""
    listener = bind("127.0.0.1", 0)
    listener.setblocking(True)

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                for piece in [payload] if pause == 0.0 else [bytes([b]) for b in payload]:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return  # The client has had enough.
                    time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    return url_of(listener)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "does not answer"),
        (b"SSH-2.0-OpenSSH_9\r\n", "does not answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "is not the store"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", "does not answer"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{"ids":[]}', "is not the store"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "is not the store"),
        (b'HTTP/1.1 404 No\r\ncontent-length: 9\r\n\r\n{"no":"x"}'[:-1], "is not the store"),
        (b'HTTP/1.1 404 No\r\ncontent-length: 10\r\n\r\n{"no":"x"}', "answered 404"),
        (b"HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\n{}", "answered 502"),
    ],
)
def test_whatever_else_answers_there_is_no_store(payload: bytes, message: str) -> None:
    client = HttpStoreClient(answer_with(payload), timeout=5)
    with pytest.raises(StoreUnavailable, match=message):
        client.search("v-1", unit_vectors(1), 1)
    client.close()


def test_an_answer_that_trickles_in_is_given_up_in_time() -> None:
    head = "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"
    client = HttpStoreClient(answer_with(head.encode() + b"[" * 900, pause=0.01), timeout=0.8)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="has not answered within 0.8 s"):
        client.search("v-1", unit_vectors(1), 1)
    assert time.monotonic() - started < 4
    client.close()


def test_a_busy_port_ends_the_service_with_its_own_status(directory: Path) -> None:
    listener = bind("127.0.0.1", 0)
    environment = {
        **os.environ,
        "RETRIKT_STORE_DIRECTORY": str(directory / "store"),
        "RETRIKT_STORE_PORT": str(listener.getsockname()[1]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.store"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    listener.close()
    assert done.returncode == 7
    assert '"code":"address_in_use"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_url_that_is_none_is_refused() -> None:
    for url in ("", "127.0.0.1:8001", "ftp://store", "http://"):
        with pytest.raises(InvalidConfig, match="The store's URL"):
            HttpStoreClient(url)

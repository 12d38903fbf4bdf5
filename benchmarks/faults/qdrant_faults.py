"""A Qdrant server that is away, slow, and back, behind a proxy on this machine that drops and delays.

Where QDRANT_URL names a server, that one stands behind the proxy; else a stand-in for its REST interface.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from fastapi.testclient import TestClient
from knowledge_samples import unit_vectors, write_sample
from qdrant_stand_in import StandIn

from faults.tally import Tally
from services.platform.errors import StoreUnavailable
from services.store.app import create_app
from services.store.backends.server import ServerBackend
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.settings import StoreSettings

TASK = "toy"
LIMIT = 1
"""Seconds that Qdrant may take for an answer."""


class Proxy:
    """Passes bytes on between a port of its own and a server.

    Attributes:
        mode: `pass`; `drop`, which ends connections; `delay`, which holds every answer for longer than is waited.
        url: of the port.
    """

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6333)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.mode: Literal["pass", "drop", "delay"] = "pass"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: Literal["pass", "drop", "delay"]) -> None:
        """Change the mode; connections that are open are ended where they are to be dropped."""
        self.mode = mode
        if mode == "drop":
            while self._open:
                _end(self._open.pop())

    def close(self) -> None:
        self._listener.close()
        self.set("drop")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "drop":
                _end(client)
                continue
            server = socket.create_connection(self._target)
            self._open += [client, server]
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, answers), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if answers and self.mode == "delay":
                    time.sleep(LIMIT * 3)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            _end(source)
            _end(sink)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def away_slow_and_back(folder: Path, tries: int, rng: random.Random) -> Tally:
    """Searches, and a build, while Qdrant is there, gone, slow, gone in the middle, and there again."""
    real = os.environ.get("QDRANT_URL")
    tally = Tally(f"Qdrant away, slow, back ({'a server' if real else 'a stand-in'})")
    knowledge = write_sample(folder / "k", 500)
    with _server(real) as url:
        proxy = Proxy(url)
        backend = ServerBackend.connect(proxy.url, TASK, timeout=LIMIT)
        version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
        settings = StoreSettings(
            backend="server", qdrant_url=proxy.url, task=TASK, access_log=False,
            qdrant_timeout_seconds=LIMIT,
        )  # fmt: skip
        body = {"vectors": unit_vectors(4, seed=3).tolist(), "k": 5}
        with TestClient(create_app(settings)) as client:
            path = f"/v1/versions/{version}/search"
            before = client.post(path, json=body).json()["ids"]
            for number in range(tries):
                with tally.one_try():
                    for mode in rng.sample(["drop", "delay"], 2):
                        proxy.set(mode)  # type: ignore[arg-type]
                        began = time.monotonic()
                        answer = client.post(path, json=body)
                        told = (answer.status_code, answer.json().get("code"))
                        assert told == (503, "store_unavailable"), f"{mode}: {told}"
                        assert time.monotonic() - began < LIMIT * 10, f"{mode}: it took too long"
                        tally.saw(f"503 while {'away' if mode == 'drop' else 'slow'}")
                        proxy.set("drop")
                        proxy.set("pass")
                        assert client.post(path, json=body).json()["ids"] == before, "answers else"
                    _build_through(backend, proxy, knowledge, f"v-{number}", rng)
                    tally.saw("searches and builds as before once it is back")
        for manifest in backend.versions():
            backend.delete(manifest.version)
        backend.close()
        proxy.close()
    return tally


def _build_through(
    backend: ServerBackend, proxy: Proxy, knowledge: Path, name: str, rng: random.Random
) -> None:
    """A build whose server goes away after some of its points; nothing of it is to be seen, and the next is whole."""
    manifest = version_manifest(knowledge).model_copy(update={"version": name})
    last = rng.randrange(1, 5)

    def points() -> Iterator[object]:
        for number, batch in enumerate(iterate_points(knowledge, 100)):
            if number == last:
                proxy.set("drop")
            yield batch

    try:
        backend.build(manifest, points())  # type: ignore[arg-type]
        raise AssertionError("a build came through without its server")
    except StoreUnavailable:
        proxy.set("pass")
    assert name not in {found.version for found in backend.versions()}, "half a version is there"
    backend.build(manifest, iterate_points(knowledge))
    queries = unit_vectors(4, seed=3)
    found = backend.search(name, queries, 5, exact=True).scores
    truth = np.sort(queries @ unit_vectors(500).T, axis=1)[:, :-6:-1]
    assert np.allclose(found, truth, atol=1e-5), "the next build answers else"
    backend.delete(name)


@contextmanager
def _server(real: str | None) -> Iterator[str]:
    if real is not None:
        yield real
        return
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()

"""Texts are for explanations: a store that is slow to give them costs its time limit once, and is still searched."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import orjson
import pytest

from services.store.backends.base import VersionManifest
from services.store.client import HttpStoreClient
from services.store.settings import StoreSettings
from services.student.guarded_store import LOOKED_UP_AT_ONCE, SEARCHED_AT_ONCE, GuardedStore

MANIFEST = VersionManifest(
    task="toy", version="v-1", encoder_fingerprint="sha256:1", labels=("a", "b"), dimensions=2,
    count=3, knowledge_sha256="0" * 64,
)  # fmt: skip
ITEM = {"id": 1, "text": "one", "text_pair": None, "label": "a", "origin": "train"}


class HalfStore(BaseHTTPRequestHandler):
    """A store service that searches at once and gives texts only when it is let."""

    protocol_version = "HTTP/1.1"
    gives_texts = threading.Event()
    looked_up: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self._answer(MANIFEST.model_dump_json().encode())

    def do_POST(self) -> None:
        asked = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/items"):
            self.looked_up.append(len(asked["ids"]))
            self.gives_texts.wait(20)
            self._answer(orjson.dumps({"items": [ITEM]}))
        else:
            self._answer(orjson.dumps({"ids": [[1]], "scores": [[0.5]]}))

    def _answer(self, body: bytes) -> None:
        with suppress(BrokenPipeError):  # The client has had enough.
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    HalfStore.gives_texts.clear()
    HalfStore.looked_up.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfStore) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        HalfStore.gives_texts.set()
        server.shutdown()
        thread.join()


def test_texts_that_do_not_come_cost_a_search_s_time_limit_once_and_no_search(url: str) -> None:
    client = HttpStoreClient(url, timeout=20.0)
    guarded = GuardedStore(
        client, "v-1", "sha256:1", labels=("a", "b"), items=3, timeout=0.3,
        longest_retry_seconds=0.5,
    )  # fmt: skip
    guarded.open(must_hold_version=True)
    query = np.array([[0.6, 0.8]], np.float32)
    seconds = []
    for _ in range(5):
        answer = guarded.search(query, 1)
        assert answer.degraded is None
        started = time.monotonic()
        assert guarded.texts([1]) == {}
        seconds.append(time.monotonic() - started)
    assert 0.25 < seconds[0] < 3
    assert sum(seconds[1:]) < 0.25
    HalfStore.gives_texts.set()
    time.sleep(0.5)
    assert guarded.texts([1])[1].text == "one"
    guarded.close()
    client.close()


def test_no_more_texts_are_asked_for_at_once_than_the_store_gives(url: str) -> None:
    """As for a large batch that is to be explained."""
    limits = {name: StoreSettings.model_fields[name].default for name in ("max_batch", "max_ids")}
    assert limits == {"max_batch": SEARCHED_AT_ONCE, "max_ids": LOOKED_UP_AT_ONCE}
    HalfStore.gives_texts.set()
    client = HttpStoreClient(url)
    guarded = GuardedStore(client, "v-1", "sha256:1", labels=("a", "b"), items=3, timeout=20.0)
    assert guarded.texts(range(LOOKED_UP_AT_ONCE + 9))[1].text == "one"
    assert HalfStore.looked_up == [LOOKED_UP_AT_ONCE, 9]
    guarded.close()
    client.close()

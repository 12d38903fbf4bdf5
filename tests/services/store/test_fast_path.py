"""The quick way into a search answers exactly as the documented route does."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from key_table import KEYS, bearer
from served_task import settings, write_task

from services.store.app import create_app
from services.store.backends.edge import EdgeBackend
from services.store.fast_path import FastPathMiddleware
from services.store.settings import StoreSettings

VECTOR = [0.5] * 8
BODIES: list[bytes] = [
    *(
        orjson.dumps(query)
        for query in (
            {"vectors": [VECTOR], "k": 2},
            {"vectors": [VECTOR] * 3, "k": 2, "exact": True},
            {"vectors": [VECTOR], "k": 2, "with_items": True},
            {"vectors": [VECTOR], "k": 500},
            {"vectors": [VECTOR], "k": 0},
            {"vectors": [VECTOR] * 300},
            {"vectors": [VECTOR, VECTOR[1:]]},
            {"vectors": [VECTOR[1:]]},
            {"vectors": [], "k": 2},
            {"vectors": [["a"] * 8]},
            {"vectors": [VECTOR], "unknown": 1},
            dict.fromkeys("abcdefgh", 1),
        )
    ),
    b"{",
    b"",
    b'{"vectors": [[' + b"0.5, " * 20_000 + b"0.5]]}",
]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task")
    write_task(directory)
    return directory


def slow_app(given: StoreSettings) -> FastAPI:
    app = create_app(given)
    quick = [each for each in app.user_middleware if each.cls is FastPathMiddleware]
    assert len(quick) == 1
    app.user_middleware.remove(quick[0])
    return app


OF_BOTH = {f"{name}_keys": KEYS[name] for name in ("read", "text")}


@pytest.mark.parametrize(
    ("version", "caller", "keys"),
    [
        *((version, "nobody", {}) for version in ("live", "v-of-none", "a%2Fb", "%20")),
        *(("live", caller, OF_BOTH) for caller in ("nobody", "read", "text")),
    ],
)
def test_both_ways_give_the_same_answers_headers_and_counts(
    task: Path, version: str, caller: str, keys: dict[str, Any]
) -> None:
    given = settings(task, max_body_bytes=65_536, **keys)
    headers = bearer(caller)
    with TestClient(create_app(given)) as quick, TestClient(slow_app(given)) as slow:
        for body in BODIES:
            one, two = (
                client.post(f"/v1/versions/{version}/search", content=body, headers=headers)
                for client in (quick, slow)
            )
            assert one.status_code == two.status_code
            assert one.json() == two.json()
            changing = {"x-request-id"}
            assert {key: value for key, value in one.headers.items() if key not in changing} == {
                key: value for key, value in two.headers.items() if key not in changing
            }
        counts = [
            sorted(
                line
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("retrikt_store_requests_total{")
            )
            for client in (quick, slow)
        ]
        assert counts[0] == counts[1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_other_methods_are_left_to_the_documented_route(task: Path, method: str) -> None:
    with TestClient(create_app(settings(task))) as client:
        assert client.request(method, "/v1/versions/live/search").status_code == 405


def test_a_small_search_that_is_alone_takes_no_thread(task: Path) -> None:
    one, two = (manifest.version for manifest in EdgeBackend(task / "store").versions())
    calls = []

    async def counted(call: Any) -> Any:
        calls.append(call)
        return call()

    app = create_app(settings(task))
    (quick,) = (each for each in app.user_middleware if each.cls is FastPathMiddleware)
    quick.kwargs["searches"]._workers.run = counted
    with TestClient(app) as client:

        def threads_of(version: str, **query: object) -> int:
            before = len(calls)
            body = {"vectors": [VECTOR], "k": 2, **query}
            assert client.post(f"/v1/versions/{version}/search", json=body).status_code == 200
            return len(calls) - before

        assert threads_of(one) == 1, "the version was not open yet"
        assert threads_of(one) == 0
        assert threads_of(one, vectors=[VECTOR] * 17) == 1
        assert threads_of(one, exact=True) == 1
        assert threads_of(one, with_items=True) == 1
        assert threads_of("live") == 1, "the live pointer is a file"
        assert threads_of(two) == 1, "another version is opened"
        assert threads_of(two) == 0
        assert client.get(f"/v1/versions/{one}/items/0").status_code == 200
        assert threads_of(two) == 1, "another version was opened meanwhile"

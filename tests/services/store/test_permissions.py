"""Every route with every set of keys and every caller: who is served, who is refused, and how."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from key_table import KEYS, MAY, WRONG, bearer, routes_of
from served_task import settings, write_task

from services.platform.errors import InvalidConfig
from services.store.app import create_app
from services.store.client import HttpStoreClient
from services.store.settings import StoreSettings

SEARCH = {"vectors": [[0.5] * 8], "k": 2}
STAMP = "20260101t000000000000z"
"""Of a snapshot that is not there: a caller who is let in is answered 404."""

# What each route takes. A caller who may is answered with the last column.
ROUTES = [
    ("GET", "/v1/versions", None, "read", 200),
    ("GET", "/v1/versions/{version}", None, "read", 200),
    ("GET", "/v1/versions/{version}/statistics", None, "read", 200),
    ("POST", "/v1/versions/{version}/search", SEARCH, "read", 200),
    ("POST", "/v1/versions/{version}/search", SEARCH | {"with_items": True}, "text", 200),
    ("GET", "/v1/versions/{version}/items/{identifier}", None, "text", 200),
    ("POST", "/v1/versions/{version}/items", {"ids": [0]}, "text", 200),
    ("GET", "/v1/releases", None, "read", 200),
    ("POST", "/v1/releases/{release}/activate", None, "write", 200),
    ("POST", "/v1/releases/rollback", None, "write", 404),
    ("POST", "/v1/versions/{version}/snapshots", None, "write", 404),
    ("GET", "/v1/snapshots", None, "read", 200),
    ("POST", "/v1/snapshots/{snapshot}/restore", None, "write", 404),
    ("DELETE", "/v1/snapshots/{snapshot}", None, "write", 404),
]

# What anybody may ask: health, figures without texts, and the description of the interface.
OPEN = ["/livez", "/readyz", "/info", "/metrics", "/docs", "/openapi.json"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task")
    write_task(directory)
    return directory


@pytest.fixture(scope="module", params=MAY, ids=lambda names: "+".join(names) or "none")
def served(
    request: pytest.FixtureRequest, task: Path
) -> Iterator[tuple[TestClient, dict[str, set[str]]]]:
    keys = {f"{name}_keys": KEYS[name] for name in request.param}
    with TestClient(create_app(settings(task, **keys))) as client:
        yield client, MAY[request.param]


def test_the_table_has_every_route_of_the_service(task: Path) -> None:
    told = {(method, path) for method, path, *_ in ROUTES} | {("GET", path) for path in OPEN}
    assert told == routes_of(create_app(settings(task)))


@pytest.mark.parametrize(("method", "path", "body", "permission", "status"), ROUTES)
def test_each_caller_is_served_or_refused_as_the_keys_say(
    served: tuple[TestClient, dict[str, set[str]]],
    method: str,
    path: str,
    body: object,
    permission: str,
    status: int,
) -> None:
    client, may = served
    live = client.get("/v1/releases", headers=bearer("read" if "read" in may else "write"))
    release = live.json()["live"]["release"] if live.status_code == 200 else "r-000000000000"
    # A snapshot of a version that is not there is refused after the key has been looked at.
    version = "v-absent" if path.endswith("/snapshots") else "live"
    url = path.format(version=version, identifier=0, release=release, snapshot=f"v-absent.{STAMP}")
    for caller, allowed in may.items():
        answer = client.request(method, url, json=body, headers=bearer(caller))
        refused = 401 if caller == "nobody" else 403
        expected = status if permission in allowed else refused
        assert answer.status_code == expected, (caller, answer.text)
        if expected in (401, 403):
            assert (
                answer.json()["code"]
                == {401: "not_authenticated", 403: "permission_denied"}[expected]
            )
            assert "text 0" not in answer.text
    stranger = client.request(method, url, json=body, headers=WRONG)
    assert stranger.status_code == (status if permission in may["nobody"] else 401)


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, "127.0.0.1:8001", 404),
        ("http://127.0.0.1:8001", "127.0.0.1:8001", 404),
        ("http://[::1]:8001", "[::1]:8001", 404),
        ("https://named.example", "127.0.0.1:8001", 404),
        ("https://elsewhere.example", "127.0.0.1:8001", 403),
        ("http://127.0.0.1:3000", "127.0.0.1:8001", 403),
        ("null", "127.0.0.1:8001", 403),
        ("http://[", "127.0.0.1:8001", 403),
        # A name of somebody else's that leads to this machine.
        ("http://rebound.example:8001", "rebound.example:8001", 403),
    ],
)
def test_without_a_key_a_page_of_another_origin_writes_nothing(
    task: Path, origin: str | None, host: str, status: int
) -> None:
    open_to_all = settings(task, cors_origins="https://named.example")
    headers = {"host": host} | ({"origin": origin} if origin else {})
    with TestClient(create_app(open_to_all)) as client:
        # There is no release before the live one: whoever may write is told so.
        answer = client.post("/v1/releases/rollback", headers=headers)
        assert answer.status_code == status
    with TestClient(create_app(settings(task, write_keys=KEYS["write"]))) as client:
        answer = client.post("/v1/releases/rollback", headers=headers | bearer("write"))
        assert answer.status_code == 404


def test_a_read_only_service_refuses_every_write_whatever_the_key(task: Path) -> None:
    closed = settings(task, read_only=True, **{f"{name}_keys": key for name, key in KEYS.items()})
    with TestClient(create_app(closed)) as client:
        for method, path, _, permission, _ in ROUTES:
            if permission != "write":
                continue
            url = path.format(version="live", release="r-0", snapshot=f"v-absent.{STAMP}")
            answer = client.request(method, url, headers=bearer("write"))
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
            assert client.request(method, url).status_code == 401
        assert client.get("/info").json()["read_only"] is True


@pytest.mark.parametrize("more", list(itertools.product([False, True], repeat=3)))
def test_a_service_that_others_reach_starts_with_a_write_key_or_read_only_alone(
    task: Path, more: tuple[bool, bool, bool]
) -> None:
    with_write, with_read, read_only = more
    given = {
        "host": "0.0.0.0",
        "read_only": read_only,
        **({"write_keys": KEYS["write"]} if with_write else {}),
        **({"read_keys": KEYS["read"]} if with_read else {}),
    }
    if with_write or read_only:
        create_app(settings(task, **given))
    else:
        with pytest.raises(InvalidConfig, match=r"RETRIKT_STORE_WRITE_KEYS"):
            create_app(settings(task, **given))


def test_the_process_itself_refuses_to_start_and_says_how_to_mend_it(task: Path) -> None:
    environment = {
        **os.environ,
        "RETRIKT_STORE_DIRECTORY": str(task / "store"),
        "RETRIKT_STORE_HOST": "0.0.0.0",
        "RETRIKT_STORE_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.store"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "RETRIKT_STORE_WRITE_KEYS_FILE" in done.stderr


def test_keys_come_from_a_file_and_are_in_no_answer(task: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the operator\n{KEYS['write']}\n")
    with TestClient(create_app(settings(task, write_keys_file=file))) as client:
        assert client.post("/v1/releases/rollback").status_code == 401
        assert client.post("/v1/releases/rollback", headers=bearer("write")).status_code == 404
        for path in ("/info", "/openapi.json", "/metrics", "/readyz"):
            assert KEYS["write"] not in client.get(path).text


def test_health_and_the_document_take_no_key(task: Path) -> None:
    with TestClient(create_app(settings(task, read_keys=KEYS["read"]))) as client:
        for path in OPEN:
            for headers in ({}, bearer("read"), WRONG):
                assert client.get(path, headers=headers).status_code == 200
        document = client.get("/openapi.json").json()
        for methods in (document["paths"][path] for path in document["paths"] if "/v1/" in path):
            assert all(operation["security"] == [{"key": []}] for operation in methods.values())


def test_a_key_that_no_header_can_hold_is_refused_by_the_client() -> None:
    for key in ("", "two words", "ümlaut", "line\nbreak"):
        with pytest.raises(InvalidConfig, match="The store's key"):
            HttpStoreClient("http://127.0.0.1:1", key=key)


def test_settings_do_not_show_keys() -> None:
    assert KEYS["write"] not in repr(StoreSettings(directory=Path(), write_keys=KEYS["write"]))

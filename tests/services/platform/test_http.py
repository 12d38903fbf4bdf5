"""Errors reach a client in one shape, with request ids, limits and metrics, from a real application."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Request
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from services.platform.application import create_service
from services.platform.errors import NotReady, Overloaded, VersionNotFound
from services.platform.metrics import Metrics
from services.platform.settings import ServiceSettings


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Body(ge=1)]


def toy_router() -> APIRouter:
    router = APIRouter()

    @router.post("/v1/things/{thing}")
    async def things(thing: str, query: Query) -> dict[str, Any]:
        if thing == "absent":
            raise VersionNotFound("There is no version absent.", hint="See GET /v1/versions.")
        if thing == "busy":
            raise Overloaded("The queue is full.")
        if thing == "bug":
            raise ZeroDivisionError("secret text")
        return {"thing": thing, "k": query.k}

    @router.post("/v1/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    return router


@pytest.fixture
def client() -> Iterator[TestClient]:
    async def ready() -> dict[str, Any]:
        raise NotReady("The model is being loaded.")

    async def info() -> dict[str, Any]:
        return {"name": "toy"}

    app = create_service(
        title="Toy",
        version="1",
        description="A service to test the shell with.",
        settings=ServiceSettings(max_body_bytes=1024),
        metrics=Metrics("toy"),
        routers=[toy_router()],
        ready=ready,
        info=info,
    )
    with TestClient(app) as client:
        yield client


def test_an_error_of_ours_keeps_status_code_and_hint(client: TestClient) -> None:
    answer = client.post("/v1/things/absent", json={"k": 1})
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "There is no version absent. See GET /v1/versions.",
        "error_type": "Validation",
        "code": "version_not_found",
    }


def test_an_overloaded_service_says_when_to_come_back(client: TestClient) -> None:
    answer = client.post("/v1/things/busy", json={"k": 1})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", "The request's body is not JSON: "),
        (b'{"k": 0}', "k: Input should be greater than or equal to 1."),
        (b'{"k": 1, "q": 2}', "q: Extra inputs are not permitted."),
        (b"", "The request's body: Field required."),
        (b"[]", "The request's body: Input should be"),
    ],
)
def test_a_request_that_does_not_fit_is_told_where(
    client: TestClient, body: bytes, expected: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/things/x", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(expected)
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["error_type"] == "Validation"


def test_unknown_paths_and_methods_have_the_same_body(client: TestClient) -> None:
    assert client.get("/nowhere").json()["code"] == "no_such_path"
    answer = client.get("/v1/things/x")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_bug_gives_an_answer_with_an_id_and_without_its_message(client: TestClient) -> None:
    answer = client.post("/v1/things/bug", json={"k": 1})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert answer.headers["x-request-id"] in answer.json()["error"]
    assert "secret" not in answer.text


def test_a_request_id_is_kept_when_plain_and_replaced_when_not(client: TestClient) -> None:
    kept = client.get("/livez", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    for bad in ('a"b', "x" * 200):
        answer = client.get("/livez", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] != bad
        assert len(answer.headers["x-request-id"]) == 32


def test_a_body_beyond_the_limit_is_refused_announced_or_streamed(client: TestClient) -> None:
    large = b'{"k": ' + b"1" * 2000 + b"}"
    headers = {"content-type": "application/json"}
    for content in (large, (large[start : start + 100] for start in range(0, 2000, 100))):
        answer = client.post("/v1/things/x", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "body_too_large"
        assert "1024 bytes" in answer.json()["error"]
    small = client.post("/v1/things/x", content=iter([b'{"k"', b": 3}"]), headers=headers)
    assert small.json() == {"thing": "x", "k": 3}


@pytest.mark.parametrize("header", [(b"content-length", b"9"), (b"transfer-encoding", b"chunked")])
def test_a_client_that_goes_away_within_its_body_is_counted_as_such_and_no_bug(
    client: TestClient, header: tuple[bytes, bytes]
) -> None:
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/raw",
        "query_string": b"",
        "headers": [header],
    }
    asyncio.run(client.app(scope, receive, send))
    assert sent == []
    assert 'requests_total{outcome="client_gone",' in client.get("/metrics").text


def test_a_body_in_chunks_is_counted_whatever_length_is_announced(client: TestClient) -> None:
    """As a server may let through that leaves the length aside."""
    headers = {"transfer-encoding": "chunked", "content-length": "3"}
    answer = client.post("/v1/raw", content=iter([b"1" * 2000]), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_live_but_not_ready_is_503_with_a_reason(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "live"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "error": "The model is being loaded.",
        "error_type": "Unhealthy",
        "code": "not_ready",
    }
    assert client.get("/info").json() == {"name": "toy"}


def test_routes_have_metrics_before_their_first_request(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert 'retrikt_toy_requests_total{outcome="ok",route="/v1/things/{thing}"} 0.0' in text
    assert 'retrikt_toy_request_seconds_count{route="/readyz"} 0.0' in text


def test_requests_are_counted_once_by_template_and_code(client: TestClient) -> None:
    client.post("/v1/things/x", json={"k": 1})
    client.post("/v1/things/absent", json={"k": 1})
    client.post("/v1/things/bug", json={"k": 1})
    client.post("/v1/things/x", json={"k": 0})
    client.post("/v1/things/x", content=b"1" * 2000)
    client.get("/private/person@example.org")
    text = client.get("/metrics").text
    route = 'route="/v1/things/{thing}"'
    for outcome in ("ok", "version_not_found", "internal", "invalid_request"):
        assert f'retrikt_toy_requests_total{{outcome="{outcome}",{route}}} 1.0' in text
    assert 'outcome="body_too_large",route="unmatched"} 1.0' in text
    assert 'outcome="no_such_path",route="unmatched"} 1.0' in text
    assert f"retrikt_toy_request_seconds_count{{{route}}} 4.0" in text
    assert "person@example.org" not in text

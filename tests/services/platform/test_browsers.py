"""Browsers: other origins are let in when they are named, and answers say that they are data."""

import pytest
from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.testclient import TestClient

from services.platform.application import create_service
from services.platform.auth import Keys, requires
from services.platform.errors import InvalidConfig
from services.platform.metrics import Metrics
from services.platform.settings import ServiceSettings, load_settings

KEY = "a-key-of-the-service"
HERE, THERE = "https://app.example.org", "https://elsewhere.example.org"


def toy(**settings: object) -> TestClient:
    router = APIRouter()

    @router.post("/answer", dependencies=[Depends(requires(Keys({"read": [KEY]}), "read"))])
    async def answer() -> dict[str, str]:
        return {}

    @router.get("/page")
    async def page() -> Response:
        headers = {"content-security-policy": "default-src 'self'", "cache-control": "no-cache"}
        return Response("<p>", media_type="text/html", headers=headers)

    @router.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    async def nothing() -> dict[str, object]:
        return {}

    app: FastAPI = create_service(
        title="Toy",
        version="1",
        description="A service to test the shell with.",
        settings=ServiceSettings(**settings),  # type: ignore[arg-type]
        metrics=Metrics("toy"),
        routers=[router],
        ready=nothing,
        info=nothing,
        exposed_headers=("x-toy",),
    )
    return TestClient(app)


def preflight(client: TestClient, origin: str) -> dict[str, str]:
    answer = client.options(
        "/answer",
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    return {"status": str(answer.status_code), **answer.headers}


def test_other_origins_are_not_let_in_unless_they_are_named() -> None:
    client = toy()
    assert "access-control-allow-origin" not in preflight(client, HERE)
    answer = client.post("/answer", headers={"origin": HERE, "authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_a_named_origin_may_send_its_key_and_read_the_answer() -> None:
    client = toy(cors_origins=HERE)
    allowed = preflight(client, HERE)
    assert allowed["status"] == "200"
    assert allowed["access-control-allow-origin"] == HERE
    assert "authorization" in allowed["access-control-allow-headers"].lower()
    assert "POST" in allowed["access-control-allow-methods"]
    headers = {"origin": HERE, "authorization": f"Bearer {KEY}"}
    answer = client.post("/answer", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == HERE
    assert answer.headers["vary"] == "Origin"
    exposed = answer.headers["access-control-expose-headers"]
    assert {"x-request-id", "retry-after", "x-toy"} == set(exposed.split(", "))
    assert "access-control-allow-credentials" not in answer.headers


def test_a_named_origin_can_read_refusals_and_crashes_too() -> None:
    client = toy(cors_origins=HERE)
    for method, path, status in [
        ("POST", "/answer", 401),
        ("GET", "/bug", 500),
        ("GET", "/nowhere", 404),
    ]:
        answer = client.request(method, path, headers={"origin": HERE})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == HERE


def test_another_origin_is_refused() -> None:
    client = toy(cors_origins=f"{HERE},https://second.example.org:8443")
    refused = preflight(client, THERE)
    assert refused["status"] == "400"
    assert "access-control-allow-origin" not in refused
    answer = client.get("/livez", headers={"origin": THERE})
    assert "access-control-allow-origin" not in answer.headers
    assert preflight(client, "https://second.example.org:8443")["status"] == "200"


def test_all_origins_can_be_let_in() -> None:
    client = toy(cors_origins="*")
    allowed = preflight(client, THERE)
    assert allowed["access-control-allow-origin"] == "*"
    assert "authorization" in allowed["access-control-allow-headers"].lower()


@pytest.mark.parametrize("value", ["app.example.org", "https://a.org/path", "ftp://a.org"])
def test_what_is_no_origin_ends_the_start(value: str) -> None:
    with pytest.raises(InvalidConfig, match="CORS_ORIGINS"):
        load_settings(ServiceSettings, cors_origins=value)


def test_every_answer_says_that_it_is_data_and_not_to_be_kept() -> None:
    client = toy()
    with client:
        answers = [client.get(path) for path in ("/livez", "/nowhere", "/bug")]
        answers.append(client.post("/answer"))
        answers.append(client.post("/answer", headers={"content-length": "999999999"}))
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_a_page_keeps_its_own_policy() -> None:
    answer = toy().get("/page")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_documents_page_may_load_what_it_is_made_of() -> None:
    answer = toy().get("/docs")
    assert "swagger-ui" in answer.text
    assert "https://cdn.jsdelivr.net" in answer.headers["content-security-policy"]

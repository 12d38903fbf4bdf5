"""Every route of the prediction service with every set of keys and every caller: who is served, who is refused."""

from collections.abc import Iterator

import pytest
import tiny_release
from fastapi.testclient import TestClient
from key_table import KEYS, MAY, WRONG, bearer, routes_of
from tiny_task import TinyTask

from services.student.app import create_app
from services.student.settings import StudentSettings

MODEL = "/v2/models/{model}"
VERSION = "/v2/models/{model}/versions/{version}"
PREDICT = {"inputs": "wifi slow", "explain": True}
INFER = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["wifi"]}]}

# What takes the permission `read`: whatever looks at a text that is sent.
TAKE_A_KEY = [
    ("/predict", PREDICT),
    ("/", PREDICT),
    (f"{MODEL}/infer", INFER),
    (f"{VERSION}/infer", INFER),
]
# What anybody may ask.
OPEN = [
    "/", "/page/{name}", "/livez", "/readyz", "/health", "/info", "/metrics", "/docs", "/openapi.json",
    "/v2", "/v2/health/live", "/v2/health/ready", MODEL, f"{MODEL}/ready", VERSION, f"{VERSION}/ready",
]  # fmt: skip


def app_of(task: TinyTask, *with_keys: str) -> TestClient:
    keys = {f"{name}_keys": KEYS[name] for name in with_keys}
    return TestClient(
        create_app(StudentSettings(task_dir=task.directory, access_log=False, **keys))
    )


def test_the_tables_have_every_route_of_the_service(built_task: TinyTask) -> None:
    told = {("POST", path) for path, _ in TAKE_A_KEY} | {("GET", path) for path in OPEN}
    assert told == routes_of(app_of(built_task).app)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=MAY, ids=lambda names: "+".join(names) or "none")
def served(
    request: pytest.FixtureRequest, built_task: TinyTask
) -> Iterator[tuple[TestClient, dict[str, set[str]]]]:
    with app_of(built_task, *request.param) as client:
        yield client, MAY[request.param]


def test_each_caller_is_served_or_refused_as_the_keys_say(
    served: tuple[TestClient, dict[str, set[str]]], built_task: TinyTask
) -> None:
    client, may = served
    names = {"model": tiny_release.TASK, "version": built_task.one, "name": "main.js"}
    callers = {name: (bearer(name), allowed) for name, allowed in may.items()}
    for caller, (headers, allowed) in (callers | {"wrong": (WRONG, may["nobody"])}).items():
        for path, body in TAKE_A_KEY:
            answer = client.post(path.format(**names), json=body, headers=headers)
            if "read" in allowed:
                assert answer.status_code == 200, (caller, path, answer.text)
            else:
                # A key that a service knows may always read: who may not has shown none that it knows.
                assert answer.status_code == 401, (caller, path, answer.text)
                assert "error" in answer.json()
            if body is PREDICT and answer.status_code == 200:
                shown = answer.json()["predictions"][0]["neighbours"]
                assert shown, (caller, path)
                assert all((each["text"] is not None) == ("text" in allowed) for each in shown)
        for path in OPEN:
            answer = client.get(path.format(**names), headers=headers)
            assert answer.status_code == 200, (caller, path, answer.text)

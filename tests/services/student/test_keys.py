"""Keys of the prediction service: what takes one, what does not, and what a key without `text` hides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_release
from tiny_task import Service, TinyTask, student

READ, TEXT = "the-key-of-readers", "the-key-that-sees-texts"
INFER = f"/v2/models/{tiny_release.TASK}/infer"
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["wifi"]}

TAKE_A_KEY = [
    ("POST", "/predict", {"inputs": "wifi"}),
    ("POST", "/", {"inputs": "wifi"}),
    ("POST", INFER, {"inputs": [TENSOR]}),
]
TAKE_NONE = [
    "/livez", "/readyz", "/health", "/info", "/metrics", "/v2", "/v2/health/live",
    "/v2/health/ready", f"/v2/models/{tiny_release.TASK}", f"/v2/models/{tiny_release.TASK}/ready",
]  # fmt: skip


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def service(built_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file: Path = tmp_path_factory.mktemp("keys") / "text"
    file.write_text(f"# people who may read tickets\n{TEXT}\n")
    with student(built_task, read_keys=READ, text_keys_file=file) as service:
        yield service


@pytest.mark.parametrize(("method", "path", "body"), TAKE_A_KEY)
def test_predictions_take_a_key(service: Service, method: str, path: str, body: object) -> None:
    for headers in ({}, bearer("not-the-key-of-readers")):
        refused = service.http.request(method, path, json=body, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "error" in refused.json()
        assert refused.headers["x-request-id"]
    for key in (READ, TEXT):
        assert service.http.request(method, path, json=body, headers=bearer(key)).is_success


@pytest.mark.parametrize("path", TAKE_NONE)
def test_health_metrics_and_descriptions_take_none(service: Service, path: str) -> None:
    assert service.http.get(path).is_success


def test_without_the_text_permission_neighbours_come_without_their_texts(service: Service) -> None:
    body = {"inputs": "wifi slow", "explain": True}
    answers = {
        key: service.http.post("/predict", json=body, headers=bearer(key)).json()["predictions"][0]
        for key in (READ, TEXT)
    }
    assert all(neighbour["text"] for neighbour in answers[TEXT]["neighbours"])
    assert answers[READ]["neighbours"]
    for hidden, shown in zip(answers[READ]["neighbours"], answers[TEXT]["neighbours"], strict=True):
        assert hidden == shown | {"text": None, "text_pair": None}
    assert service.http.get("/info").json()["keys"] == {"read": True, "text": True}


def test_no_key_reaches_the_log_or_the_metrics(service: Service) -> None:
    service.http.post("/predict", json={"inputs": "wifi"}, headers=bearer("a-mistyped-secret-key"))
    seen = service.events() + service.http.get("/metrics").text + service.http.get("/info").text
    for key in (READ, TEXT, "a-mistyped-secret-key"):
        assert key not in seen
    assert 'outcome="not_authenticated",route="/predict"' in seen

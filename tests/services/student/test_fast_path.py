"""The quick way into POST /predict answers exactly as the documented route does."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from tiny_task import TinyTask

from services.student.app import create_app
from services.student.fast_path import FastPathMiddleware
from services.student.settings import StudentSettings

BODIES = [
    b'{"inputs": "wifi slow"}',
    b'{"inputs": [["wifi slow"], ["my printer"]], "raw_scores": true}',
    b'{"inputs": "' + b"printer " * 30 + b'", "truncate": true}',
    b'{"inputs": "' + b"printer " * 30 + b'"}',
    b'{"inputs": ["a", "b"]}',
    b'{"inputs": ""}',
    b'{"inputs": "wifi slow", "parameters": {"top_k": 1}}',
    b'{"inputs": [["wifi"], [""]], "partial": true}',
    b"{",
    b"",
    b'{"inputs": "' + b"a" * 3_000_000 + b'"}',
]


def slow_app(settings: StudentSettings) -> FastAPI:
    app = create_app(settings)
    quick = [
        middleware for middleware in app.user_middleware if middleware.cls is FastPathMiddleware
    ]
    assert len(quick) == 1
    app.user_middleware.remove(quick[0])
    return app


def test_both_ways_give_the_same_answers_headers_and_counts(task: TinyTask) -> None:
    settings = StudentSettings(task_dir=task.directory)
    with TestClient(create_app(settings)) as quick, TestClient(slow_app(settings)) as slow:
        for body in BODIES:
            one, two = (client.post("/predict", content=body) for client in (quick, slow))
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
                if line.startswith("retrikt_student_requests_total{") and "predict" in line
            )
            for client in (quick, slow)
        ]
        assert counts[0] == counts[1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_other_methods_are_left_to_the_documented_route(task: TinyTask, method: str) -> None:
    with TestClient(create_app(StudentSettings(task_dir=task.directory))) as client:
        assert client.request(method, "/predict").status_code == 405

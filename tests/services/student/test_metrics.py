"""Metrics of both services: each thing is counted once, and what serves is told apart from what should."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tiny_release
from fastapi.testclient import TestClient
from tiny_task import TinyTask, until

from services.releases.directory import LIVE
from services.store.app import create_app as create_store
from services.store.settings import StoreSettings
from services.student.app import create_app as create_student
from services.student.settings import StudentSettings


@contextmanager
def student(task: TinyTask, **settings: Any) -> Iterator[TestClient]:
    given = StudentSettings(
        task_dir=task.directory, access_log=False, poll_seconds=0.05, **settings
    )
    with TestClient(create_student(given)) as client:
        yield client


def samples(client: TestClient) -> dict[str, float]:
    """By name and labels, as Prometheus' text format writes them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_batch_is_counted_once_by_every_stage(built_task: TinyTask) -> None:
    with student(built_task, max_waiting_texts=77) as client:
        assert client.post("/predict", json={"inputs": [["wifi"], ["toner"]]}).status_code == 200
        assert client.post("/predict", json={"inputs": ""}).status_code == 422
        found = samples(client)
    assert found["retrikt_student_texts_total"] == 2
    assert found["retrikt_student_batch_texts_count"] == 1
    for stage in ("wait", "tokenize", "encode", "search", "mix"):
        assert found[f'retrikt_student_stage_seconds_count{{stage="{stage}"}}'] == 1, stage
    requests = 'retrikt_student_requests_total{outcome="%s",route="/predict"}'
    assert found[requests % "ok"] == 1
    assert found[requests % "invalid_request"] == 1
    assert found["retrikt_student_waiting_texts_limit"] == 77
    assert found["retrikt_student_waiting_texts"] == 0
    assert found["retrikt_student_store_asked"] == 1


def test_a_search_is_counted_once_by_the_store_with_its_vectors(
    built_task: TinyTask, tmp_path: Path
) -> None:
    settings = StoreSettings(
        directory=built_task.directory / "store",
        releases=built_task.directory / "releases",
        private_directory=tmp_path,
        max_waiting=55,
        access_log=False,
    )
    vectors = np.eye(tiny_release.DIMENSIONS)[:3].tolist()
    with TestClient(create_store(settings)) as client:
        asked = client.post("/v1/versions/live/search", json={"vectors": vectors, "k": 2})
        assert asked.status_code == 200
        away = client.post("/v1/versions/v-away/search", json={"vectors": vectors, "k": 2})
        assert away.status_code == 404
        found = samples(client)
    assert found["retrikt_store_search_vectors_sum"] == 3
    for stage in ("wait", "search"):
        assert found[f'retrikt_store_stage_seconds_count{{stage="{stage}"}}'] == 1
    assert found["retrikt_store_waiting_limit"] == 55
    assert found[f'retrikt_store_live_release_info{{release="{built_task.one}"}}'] == 1


def test_a_student_that_does_not_follow_the_pointer_shows_both_releases(task: TinyTask) -> None:
    with student(task) as client:
        (task.releases.path(task.two) / "bundle" / "model.onnx").write_bytes(b"broken")
        task.point_at(task.two)
        until(lambda: samples(client)["retrikt_student_release_refused"])
        found = samples(client)
        version = task.releases.get(task.one).store_version
        serves = f'retrikt_student_release_info{{release="{task.one}",store_version="{version}"}}'
        assert found[serves] == 1
        assert found[f'retrikt_student_live_release_info{{release="{task.two}"}}'] == 1
        (task.releases.root / LIVE).write_bytes(b"no pointer")
        assert not [name for name in samples(client) if "live_release_info" in name]


def test_a_store_that_was_given_up_is_not_asked(built_task: TinyTask) -> None:
    with student(built_task, store_url="http://127.0.0.1:1") as client:
        found = samples(client)
        assert found["retrikt_student_store_asked"] == 0
        assert client.post("/predict", json={"inputs": "wifi"}).status_code == 200
        found = samples(client)
    degraded = 'retrikt_student_degraded_texts_total{reason="store_unavailable"}'
    # The text that warmed the release up is nobody's.
    assert found[degraded] == found["retrikt_student_texts_total"] == 1
    assert found['retrikt_student_agreement_total{agree="no"}'] == 0

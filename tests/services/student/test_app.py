"""The service as shipped, through what happens to it: stores that die, releases that change, signals."""

import json
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import tiny_release
from tiny_task import (
    TEXTS,
    TinyTask,
    answers,
    constant_load,
    end_of,
    free_port,
    metric,
    store,
    student,
    until,
)

from services.platform.errors import AddressInUse, InvalidConfig
from services.platform.server import bind
from services.student.predictor import TextInput


def test_a_store_that_is_killed_degrades_the_answers_until_it_is_back(task: TinyTask) -> None:
    port = free_port()
    with (
        store(task, port=port) as running,
        student(task, store_url=f"http://127.0.0.1:{port}", store_timeout_seconds=1.0) as service,
    ):
        whole = service.predict("wifi slow")
        assert "x-retrikt-degraded" not in whole.headers
        running.process.kill()
        running.process.wait()
        alone = service.predict("wifi slow")
        assert alone.status_code == 200
        assert alone.headers["x-retrikt-degraded"] == "store_unavailable"
        assert alone.json() != whole.json()
        assert alone.json()[0]["label"] == "network"
        for _ in range(3):
            explained = service.predict("wifi slow", explain=True).json()
        assert explained["degraded"] == "store_unavailable"
        assert explained["predictions"][0]["store"] is None
        assert explained["predictions"][0]["neighbours"] == []
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["degraded"] == "store_unavailable"
        assert (
            'retrikt_student_degraded_texts_total{reason="store_unavailable"} 4.0'
            in service.http.get("/metrics").text
        )
        with store(task, port=port):
            until(lambda: "x-retrikt-degraded" not in service.predict("wifi slow").headers)
            assert service.predict("wifi slow").json() == whole.json()


def test_two_processes_give_the_answers_that_one_gives(task: TinyTask) -> None:
    bodies = [[[text]] for text in TEXTS]
    with (
        store(task) as running,
        student(
            task, store_url=f"http://127.0.0.1:{running.port}", store_timeout_seconds=5.0
        ) as service,
    ):
        two = [service.predict(body).json() for body in bodies]
    client = task.client()
    try:
        predictor = task.predictor(task.one, client)
        for text, (answer,) in zip(TEXTS, two, strict=True):
            found = predictor.predict([TextInput(text)])
            expected = dict(zip(found.labels, found.probabilities[0].tolist(), strict=True))
            assert {entry["label"]: entry["score"] for entry in answer} == pytest.approx(
                expected, abs=1e-5
            )
    finally:
        client.close()


def test_without_a_release_the_service_lives_but_is_not_ready_until_there_is_one(
    task: TinyTask,
) -> None:
    live = task.releases.root / "live.json"
    live.unlink()
    with student(task, ready=False) as service:
        for response in (service.http.get("/readyz"), service.predict("wifi")):
            assert response.status_code == 503
            assert response.json()["code"] == "not_ready"
            assert response.json()["error_type"] == "Unhealthy"
        assert service.http.get("/info").json()["release"] is None
        until(lambda: "no_release_is_live" in service.events())
        task.releases.activate(task.two)
        until(lambda: answers(service, "/readyz"))
        assert service.predict("wifi").headers["x-retrikt-release"] == task.two


def test_a_task_directory_that_is_not_there_yet_is_waited_for(task: TinyTask) -> None:
    away = TinyTask(task.directory.with_name("away"), task.one, task.two)
    task.directory.rename(away.directory)
    moved = away.directory
    task.directory.mkdir()
    with student(task, ready=False) as service:
        assert service.http.get("/readyz").status_code == 503
        (moved / "store").rename(task.directory / "store")
        (moved / "releases").rename(task.directory / "releases")
        until(lambda: answers(service, "/readyz"))


def test_a_broken_new_release_leaves_the_old_one_serving_and_says_so(task: TinyTask) -> None:
    with student(task) as service:
        (task.releases.path(task.two) / "bundle" / "model.onnx").write_bytes(b"broken")
        task.point_at(task.two)
        until(lambda: service.http.get("/readyz").json()["refused"])
        ready = service.http.get("/readyz").json()
        assert ready["release"] == task.one
        assert ready["refused"]["release"] == task.two
        assert ready["refused"]["code"] == "corrupt_artifact"
        metrics = service.http.get("/metrics").text
        assert "retrikt_student_release_refused 1.0" in metrics
        assert "retrikt_student_releases_refused_total 0.0" not in metrics
        assert service.predict("wifi").headers["x-retrikt-release"] == task.one
        task.point_at(task.one)
        until(lambda: service.http.get("/readyz").json()["refused"] is None)


def test_a_release_whose_version_is_another_encoder_s_is_refused(task: TinyTask) -> None:
    """The store's own word counts, whatever the release says."""
    version = task.releases.get(task.two).store_version
    manifest = task.directory / "store" / version / "version.json"
    content = json.loads(manifest.read_text())
    content["encoder_fingerprint"] = "sha256:" + "0" * 64
    with student(task) as service:
        manifest.write_text(json.dumps(content))
        task.point_at(task.two)
        until(lambda: service.http.get("/readyz").json()["refused"])
        assert service.http.get("/readyz").json()["refused"]["code"] == "incompatible_artifacts"
        assert service.release() == task.one


def test_switching_and_rolling_back_under_load_loses_and_mixes_no_answer(task: TinyTask) -> None:
    expected: dict[str, dict[str, list[float]]] = {}
    client = task.client()
    for release in (task.one, task.two):
        found = task.predictor(release, client).predict([TextInput(text) for text in TEXTS])
        expected[release] = dict(zip(TEXTS, found.probabilities.tolist(), strict=True))
    client.close()
    assert expected[task.one] != expected[task.two]

    with student(task) as service, constant_load(service) as seen:
        for number in range(12):
            release = (task.two, task.one)[number % 2]
            if number < 6:
                task.releases.activate(release)
            else:
                assert task.releases.rollback().release == release
            until(lambda release=release: service.release() == release)
            time.sleep(0.05)
    assert len(seen) > 100
    served = Counter()
    for text, response in seen:
        assert isinstance(response, httpx.Response), response
        assert response.status_code == 200, response.text
        assert "x-retrikt-degraded" not in response.headers
        release = response.headers["x-retrikt-release"]
        served[release] += 1
        scores = {entry["label"]: entry["score"] for entry in response.json()}
        assert [scores[label] for label in tiny_release.LABELS] == pytest.approx(
            expected[release][text], abs=1e-4
        ), "the answer is not the one of the release that it names"
    assert min(served.values()) > 10
    assert 'level":"error' not in service.events()


def test_sigterm_finishes_the_requests_under_way_and_ends_with_0(task: TinyTask) -> None:
    body = {"inputs": [[text] for text in TEXTS * 8]}
    # None of these may be refused, however slow the machine is.
    with student(task, max_waiting_texts=100_000, request_timeout_seconds=300) as service:
        url = f"http://127.0.0.1:{service.port}/predict"

        def send(_: int) -> httpx.Response:
            return httpx.post(url, json=body, timeout=60, trust_env=False)

        def done() -> float:
            return metric(service, 'retrikt_student_requests_total{outcome="ok",route="/predict"}')

        def under_way() -> float:
            # The request for the metrics is under way too.
            return metric(service, "retrikt_student_requests_in_flight") - 1

        with ThreadPoolExecutor(24) as pool:
            running = [pool.submit(send, number) for number in range(24)]
            until(lambda: under_way() + done() >= 24)
            left = under_way()
            service.process.send_signal(signal.SIGTERM)
            responses = [future.result() for future in running]
        assert left > 0, "there was nothing to finish"
        assert [response.status_code for response in responses] == [200] * 24
        assert {len(response.json()) for response in responses} == {240}
        assert service.process.wait(30) == 0


def test_more_than_the_queue_takes_is_answered_with_429_and_when_to_come_back(
    task: TinyTask,
) -> None:
    body = {"inputs": [[text] for text in TEXTS * 8]}
    with student(task, max_waiting_texts=300) as service:
        url = f"http://127.0.0.1:{service.port}/predict"

        def send(_: int) -> httpx.Response:
            return httpx.post(url, json=body, timeout=60, trust_env=False)

        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(send, range(48)))
        statuses = Counter(response.status_code for response in responses)
        assert set(statuses) == {200, 429}, statuses
        refused = next(response for response in responses if response.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "overloaded"
        assert refused.json()["error_type"] == "Overloaded"
        assert service.predict("wifi").status_code == 200


@pytest.mark.parametrize("length", [b"content-length: 30", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_come_is_not_waited_for_longer_than_a_request_may_take(
    built_task: TinyTask, length: bytes
) -> None:
    with (
        student(built_task, request_timeout_seconds=0.5, max_body_seconds=0.5) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection,
    ):
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\n" + length + b"\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            received = connection.recv(65_536)
            assert received, "the connection was closed without an answer"
            answer += received
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"timed_out"' in answer
        # Others are answered meanwhile and afterwards.
        assert service.predict("wifi").status_code == 200


def test_a_store_that_stops_within_a_search_leaves_the_student_time_to_answer_alone(
    task: TinyTask,
) -> None:
    """The search may take longer than the request: what is left of the request's time bounds it."""
    with (
        store(task) as running,
        student(
            task,
            store_url=f"http://127.0.0.1:{running.port}",
            store_timeout_seconds=30,
            request_timeout_seconds=2.0,
        ) as service,
    ):
        assert "x-retrikt-degraded" not in service.predict("wifi slow").headers
        running.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        alone = service.predict("wifi slow")
        assert time.monotonic() - started < 10
        assert alone.status_code == 200
        assert alone.headers["x-retrikt-degraded"] == "store_timeout"


def test_a_busy_port_ends_the_service_with_a_clear_error(task: TinyTask) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        status, log = end_of(task_dir=task.directory, port=port)
    assert status == AddressInUse.exit_code
    assert f"Port {port}" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "RETRIKT_STUDENT_TASK_DIR"),
        ({"task_dir": "/", "threads": "0"}, "RETRIKT_STUDENT_THREADS"),
        ({"task_dir": "/", "store_url": "localhost"}, "'localhost'"),
    ],
)
def test_settings_that_cannot_be_meant_end_the_service_and_are_named(
    settings: dict[str, object], told: str
) -> None:
    status, log = end_of(**settings)
    assert status == InvalidConfig.exit_code
    assert told in log
    assert "Traceback" not in log

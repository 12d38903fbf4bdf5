"""The prediction service by two workers, as shipped: what clients, releases and whoever watches see of it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from tiny_task import TEXTS, Service, TinyTask, constant_load, end_of, metric, student, until

from services.platform.errors import InvalidConfig
from services.releases.in_use import served_by_nobody

GAPS = {"gap_far_share": 0.5, "gap_log_bytes": 64 * 1024, "gap_log_files": 100}


def ask(service: Service, text: str = "wifi slow") -> httpx.Response:
    """Over a connection of its own, which any worker may take."""
    url = f"http://127.0.0.1:{service.port}/predict"
    return httpx.post(url, json={"inputs": text}, timeout=30, trust_env=False)


def samples(service: Service) -> dict[str, float]:
    url = f"http://127.0.0.1:{service.port}/metrics"
    text = httpx.get(url, timeout=30, trust_env=False).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def both_serve(service: Service) -> bool:
    return samples(service)["retrikt_student_workers"] == 2 and (
        service.events().count('"event":"worker_serves"') >= 2
    )


def processes(service: Service) -> dict[int, int]:
    lines = [json.loads(line) for line in service.events().splitlines()]
    return {line["worker"]: line["pid"] for line in lines if line["event"] == "worker_serves"}


def nobody_serves(task: TinyTask, release: str) -> bool:
    with served_by_nobody(task.releases.path(release)) as alone:
        return alone


def test_a_release_is_switched_and_rolled_back_under_load_without_a_failed_request(
    task: TinyTask,
) -> None:
    with student(task, workers=2) as service:
        until(lambda: both_serve(service))
        assert not nobody_serves(task, task.one)
        with constant_load(service, threads=8) as seen:
            until(lambda: len(service.answered()) == 2)
            for number in range(6):
                release = (task.two, task.one)[number % 2]
                if number < 3:
                    task.releases.activate(release)
                else:
                    assert task.releases.rollback().release == release
                before = (task.one, task.two)[number % 2]
                # The lock on the one before is gone once the last worker has let it go.
                until(lambda before=before: nobody_serves(task, before))
                assert not nobody_serves(task, release)
                done = len(seen)
                until(lambda done=done: len(seen) > done + 50)
        served: Counter[str] = Counter()
        for _, response in seen:
            assert isinstance(response, httpx.Response), response
            assert response.status_code == 200, response.text
            assert "x-retrikt-degraded" not in response.headers
            served[response.headers["x-retrikt-release"]] += 1
        assert set(served) == {task.one, task.two}
        assert min(served.values()) > 100
        assert set(service.answered()) == {0, 1}
        found = samples(service)
        shown = [name for name in found if "release_info{" in name]
        assert len(shown) == 2
        assert all(task.one in name for name in shown), "the release before left a sign"
        until(lambda: sum(service.answered().values()) >= len(seen))
        assert sum(service.answered().values()) == len(seen)
        assert found["retrikt_student_texts_total"] == len(seen)
        assert '"level":"error"' not in service.events()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    assert nobody_serves(task, task.one)


def test_what_is_shown_of_two_workers_has_the_names_of_what_is_shown_of_one(
    task: TinyTask, tmp_path: Path
) -> None:
    settings = {"gap_log": tmp_path / "gaps.jsonl", "max_waiting_texts": 70}
    with student(task, **settings) as service:
        alone = samples(service)
        assert service.http.get("/info").json()["workers"] == 1
    with student(task, workers=2, **settings) as service:
        until(lambda: both_serve(service))
        fresh = samples(service)
        names = {name for name in alone if "_created" not in name}
        assert set(fresh) == names
        assert service.http.get("/info").json()["workers"] == 2
        assert service.http.get("/info").json()["max_concurrent_requests"] == 70
        version = task.releases.get(task.one).store_version
        serves = f'retrikt_student_release_info{{release="{task.one}",store_version="{version}"}}'
        expected = {
            "retrikt_student_workers": 2,
            "retrikt_student_workers_wanted": 2,
            "retrikt_student_waiting_texts_limit": 140,
            "retrikt_student_waiting_texts": 0,
            "retrikt_student_release_refused": 0,
            "retrikt_student_texts_total": 0,
            "retrikt_student_gap_texts_lost": 0,
            f'retrikt_student_live_release_info{{release="{task.one}"}}': 1,
            serves: 1,
        }
        assert {name: fresh[name] for name in expected} == expected
        until(lambda: samples(service)["retrikt_student_store_asked"] == 1)
        # A release that cannot be loaded is refused by each of them; one of them is enough to be told.
        (task.releases.path(task.two) / "bundle" / "model.onnx").write_bytes(b"broken")
        task.point_at(task.two)
        until(lambda: samples(service)["retrikt_student_releases_refused_total"] >= 2)
        until(lambda: samples(service)["retrikt_student_release_refused"] == 1)
        found = samples(service)
        assert found[serves] == 1
        assert f'retrikt_student_live_release_info{{release="{task.one}"}}' not in found


def test_a_killed_worker_is_replaced_by_one_that_serves_the_live_release(task: TinyTask) -> None:
    with student(task, workers=2) as service:
        until(lambda: both_serve(service))
        for text in TEXTS[:10]:
            assert ask(service, text).status_code == 200
        # A request is logged after its answer has left: a killed worker would not log its last one.
        until(lambda: sum(service.answered().values()) == 10)
        killed = processes(service)[0]
        os.kill(killed, signal.SIGKILL)
        # The one that is left takes every connection.
        for text in TEXTS[:10]:
            assert ask(service, text).status_code == 200
        task.releases.activate(task.two)
        until(lambda: processes(service)[0] != killed)
        until(lambda: nobody_serves(task, task.one))
        before = service.answered()[0]
        while service.answered()[0] == before:
            answer = ask(service)
            assert answer.headers["x-retrikt-release"] == task.two
        # A request is logged after its answer has left.
        counted = metric(service, "retrikt_student_texts_total")
        until(lambda: sum(service.answered().values()) >= counted)
        assert sum(service.answered().values()) == counted
        assert samples(service)["retrikt_student_workers"] == 2


def test_both_keep_knowledge_gaps_in_one_file_and_samples_of_texts_in_one_log(
    task: TinyTask, tmp_path: Path
) -> None:
    log = tmp_path / "gaps" / "gaps.jsonl"
    with student(task, workers=2, gap_log=log, log_text_share=1.0, **GAPS) as service:
        until(lambda: both_serve(service))
        with constant_load(service, threads=8) as seen:
            until(lambda: min(map(service.answered().get, (0, 1), (0, 0))) > 300)
        counted = samples(service)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        events = [json.loads(line) for line in service.events().splitlines()]
    files = [path for path in log.parent.iterdir() if path.name != "gaps.jsonl.lock"]
    kept = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert kept
    signs = Counter(sign for line in kept for sign in line["signs"])
    for sign, count in signs.items():
        assert counted[f'retrikt_student_gap_texts_total{{sign="{sign}"}}'] == count
    assert counted["retrikt_student_gap_texts_lost"] == 0
    sampled = [event for event in events if event["event"] == "text_sample"]
    assert len(sampled) == len(seen)
    assert {event["worker"] for event in sampled} == {0, 1}


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"store_url": "localhost"}, "'localhost'"), ({"workers": 0}, "RETRIKT_STUDENT_WORKERS")],
)
def test_settings_that_cannot_be_meant_are_the_same_error_as_with_one_worker(
    task: TinyTask, settings: dict[str, object], told: str
) -> None:
    given = {"task_dir": task.directory, "workers": 2, **settings}
    status, log = end_of(**given)
    assert status == InvalidConfig.exit_code
    assert told in log
    assert log.count('"event":"service_stopped"') == 1
    assert "Traceback" not in log
    assert "worker_died" not in log


def test_the_command_serves_by_workers_and_ends_with_0(task: TinyTask) -> None:
    command = [Path(sys.executable).with_name("retrikt"), "serve", "--workers", "2", "--port", "0"]
    with subprocess.Popen(
        [*command, "--task-dir", task.directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if "http" in word)
            # Who connects while the workers load waits for the first of them.
            answer = httpx.post(
                f"{url}/predict", json={"inputs": "wifi"}, timeout=60, trust_env=False
            )
            assert answer.status_code == 200
            assert httpx.get(f"{url}/info", trust_env=False).json()["workers"] == 2
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_broken_release_at_the_start_leaves_workers_that_live_and_say_what_is_wrong(
    task: TinyTask,
) -> None:
    (task.releases.path(task.one) / "bundle" / "model.onnx").write_bytes(b"broken")
    with student(task, ready=False, workers=2) as service:
        for response in (service.http.get("/readyz"), ask(service)):
            assert response.status_code == 503
            assert response.json()["code"] == "not_ready"
            assert task.one in response.text
        task.releases.activate(task.two)
        until(lambda: not nobody_serves(task, task.two))
        # The one that asks /readyz may not be the one that answers: both have to have come to it.
        until(lambda: service.events().count('"event":"release_serves"') == 2)
        assert ask(service).headers["x-retrikt-release"] == task.two
        assert "worker_died" not in service.events()

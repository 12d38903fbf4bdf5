"""The log of knowledge gaps and samples of texts: off unless asked for, redacted, bounded, in no answer's way."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import tiny_release
from fastapi.testclient import TestClient
from tiny_task import TinyTask, until

from services.student.app import create_app
from services.student.gap_log import LEAST_REMEMBERED, GapLog, Nearness
from services.student.line_log import LineLog, rotated
from services.student.metrics import StudentMetrics
from services.student.predictor import Prediction, TextInput
from services.student.settings import StudentSettings

MAIL = "wifi offline for jane@mail.example"


@contextmanager
def serving(task: TinyTask, **settings: Any) -> Iterator[TestClient]:
    given = StudentSettings(task_dir=task.directory, access_log=False, **settings)
    with TestClient(create_app(given)) as client:
        yield client


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(client: TestClient, *texts: str) -> list[Any]:
    answer = client.post("/predict", json={"inputs": [[text] for text in texts]})
    assert answer.status_code == 200
    found: list[Any] = answer.json()
    return found


def test_texts_that_are_far_or_on_which_student_and_store_differ_are_kept_and_counted(
    built_task: TinyTask, tmp_path: Path
) -> None:
    log = tmp_path / "made" / "gaps.jsonl"
    near = [text for text, _ in tiny_release.sentences(LEAST_REMEMBERED)]
    # Words of other labels, and words that nobody knows.
    odd = ["wifi printer password", "toner vpn", "locked paper cable", "please help again not"]
    with serving(built_task, gap_log=log, gap_far_share=0.02) as client:
        ask(client, *near)
        answers = ask(client, *odd, MAIL)
        metrics = client.get("/metrics").text
    kept = [
        line
        for line in lines(log)
        if line["text"] in (*odd, MAIL.replace("jane@mail.example", "[email]"))
    ]
    assert kept
    for line in lines(log):
        assert set(line["signs"]) <= {"far", "differ"}
        assert line["signs"]
        assert line["release"] == built_task.one
        assert ("differ" in line["signs"]) == (line["student"] != line["store"])
    asked = {text: answer[0]["label"] for text, answer in zip(odd, answers, strict=False)}
    assert all(line["label"] == asked[line["text"]] for line in kept if line["text"] in asked)
    assert "jane" not in log.read_text()
    signs = [sign for line in lines(log) for sign in line["signs"]]
    for sign in ("far", "differ"):
        assert (
            f'retrikt_student_gap_texts_total{{sign="{sign}"}} {float(signs.count(sign))}'
            in metrics
        )
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_nothing_is_kept_or_logged_unless_somebody_asks_for_it(
    built_task: TinyTask, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as events, serving(built_task) as client:
        ask(client, *[text for text, _ in tiny_release.sentences(30)], MAIL)
    assert not [event for event in events if "jane" in str(event) or "wifi" in str(event)]
    assert list(tmp_path.iterdir()) == []


def test_a_share_of_the_texts_is_logged_redacted_with_what_was_answered(
    built_task: TinyTask,
) -> None:
    texts = [*([MAIL] * 64), *[f"wifi slow {'again ' * (n % 3)}" for n in range(192)]]
    with (
        structlog.testing.capture_logs() as events,
        serving(built_task, log_text_share=0.5) as client,
    ):
        for _ in range(4):
            ask(client, *texts)
    samples = [event for event in events if event["event"] == "text_sample"]
    assert 400 < len(samples) < 624
    assert all(sample["release"] == built_task.one and sample["label"] for sample in samples)
    assert "jane" not in str(samples)
    assert any(sample["text"] == MAIL.replace("jane@mail.example", "[email]") for sample in samples)


def test_a_log_that_cannot_be_written_costs_no_answer_and_is_counted(
    built_task: TinyTask, tmp_path: Path
) -> None:
    texts = [text for text, _ in tiny_release.sentences(LEAST_REMEMBERED)]
    (tmp_path / "file").write_text("")
    for path in (Path("/dev/full"), tmp_path / "file" / "gaps.jsonl"):
        with serving(built_task, gap_log=path, gap_far_share=1.0) as client:
            ask(client, *texts)
            ask(client, *texts)
            until(
                lambda c=client: "retrikt_student_gap_texts_lost 0.0" not in c.get("/metrics").text
            )  # type: ignore[misc]


def prediction(similarities: list[float], student: list[int], store: list[int]) -> Prediction:
    labels = ("one", "two", "new")
    rows = np.eye(3, dtype=np.float32)
    return Prediction(
        "r-000000000001",
        labels,
        rows[student],
        rows[student],
        rows[store],
        np.ones(len(student), np.float32),
        np.zeros((len(student), 1), np.int64),
        np.array(similarities, np.float32)[:, None],
        None,
    )


def test_what_the_store_says_of_labels_that_the_head_does_not_know_is_no_disagreement(
    tmp_path: Path,
) -> None:
    log = tmp_path / "gaps.jsonl"
    kept = GapLog(
        LineLog(log, max_bytes=10_000, files=1),
        far_share=0.05,
        redacted=False,
        metrics=StudentMetrics(8),
    )
    texts = [TextInput("knows"), TextInput("differs", "pair"), TextInput("new")]
    kept.look(texts, prediction([0.9, 0.9, 0.9], [0, 0, 0], [0, 1, 2]), known=2)
    kept.close()
    assert [(line["text"], line["text_pair"]) for line in lines(log)] == [("differs", "pair")]


def test_far_is_a_share_of_the_latest_texts_and_nothing_before_enough_were_seen() -> None:
    nearness = Nearness(0.1)
    rng = np.random.default_rng(0)
    nearness.observe(rng.uniform(0.5, 1.0, LEAST_REMEMBERED - 1).astype(np.float32))
    assert nearness.threshold == -np.inf
    for _ in range(40):
        nearness.observe(rng.uniform(0.5, 1.0, 128).astype(np.float32))
    assert nearness.threshold == pytest.approx(0.55, abs=0.01)
    for _ in range(40):
        nearness.observe(rng.uniform(0.0, 0.5, 128).astype(np.float32))
    assert nearness.threshold == pytest.approx(0.05, abs=0.01)


def test_a_batch_larger_than_what_is_remembered_is_no_trouble() -> None:
    nearness = Nearness(0.5)
    nearness.observe(np.linspace(0, 1, 10_000, dtype=np.float32))
    assert 0.5 < nearness.threshold < 1.0
    empty = Nearness(0.5)
    empty.observe(np.full(LEAST_REMEMBERED, -np.inf, np.float32))
    assert empty.threshold == -np.inf


def test_a_full_file_becomes_the_next_number_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    log = LineLog(path, max_bytes=2_000, files=3)
    for number in range(200):
        log.write({"text": "x" * 80, "number": number})
    log.close()
    files = [path, rotated(path, 1), rotated(path, 2)]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(0 < file.stat().st_size <= 2_000 for file in files)
    kept = [line["number"] for file in reversed(files) for line in lines(file)]
    assert kept == list(range(kept[0], 200))
    assert log.lost == 0
    again = LineLog(path, max_bytes=2_000, files=3)
    again.write({"text": "more", "number": 200})
    again.close()
    assert lines(path)[-1]["number"] == 200


def test_a_line_that_the_disk_takes_in_part_is_taken_back_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    # A limit of the process stands for the disk: the write that crosses it is short.
    program = """
import resource, sys, time
from pathlib import Path
from services.student.line_log import LineLog
path = Path(sys.argv[1])
log = LineLog(path, max_bytes=10_000, files=1)
log.write({"number": 0, "text": "x" * 60})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log.write({"number": 1, "text": "x" * 60})
while not log.lost:
    time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write({"number": 2, "text": "x" * 60})
log.close()
print(log.lost)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "1"
    assert [line["number"] for line in lines(path)] == [0, 2]


WRITER = """
import sys
from pathlib import Path
from services.student.line_log import LineLog
path, writer = Path(sys.argv[1]), int(sys.argv[2])
log = LineLog(path, max_bytes=20_000, files=100, shared=True)
print("ready", flush=True)
sys.stdin.read(1)
for number in range(500):
    log.write({"writer": writer, "number": number, "text": "x" * (number * 7 % 900)})
log.close()
print(log.lost)
"""


def test_several_processes_write_whole_lines_and_lose_none_while_files_are_renamed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gaps.jsonl"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    # All at once: each waits for its line, or its end.
    assert [writer.communicate("x", timeout=60)[0] for writer in writers] == ["0\n"] * 3
    files = [path, *(rotated(path, number) for number in range(1, 100))]
    there = [file for file in files if file.exists()]
    assert there == files[: len(there)]
    assert len(there) > 20
    assert all(file.stat().st_size <= 20_000 for file in there)
    kept = [line for file in reversed(there) for line in lines(file)]
    for number in range(3):
        own = [line["number"] for line in kept if line["writer"] == number]
        assert own == list(range(500))


def test_a_line_that_a_killed_process_has_left_half_written_spoils_no_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_bytes(b'{"number":0}\n{"numb')
    log = LineLog(path, max_bytes=10_000, files=1, shared=True)
    log.write({"number": 1})
    log.close()
    assert path.read_bytes().splitlines() == [b'{"number":0}', b'{"numb', b'{"number":1}']

"""`retrikt knowledge` beside running services: edits are served without a restart, new labels on every route."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "services" / "student"))

from tiny_release import LABELS, TASK
from tiny_task import Service, TinyTask, build_task, store, student, until

TEXTS = (
    "mobile handset please",
    "ringing handset",
    "smartphone sim",
    "dialling tone",
    "roaming abroad",
)
UNSEEN = "charger cradle"


def retrikt(task: TinyTask, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "offline", "knowledge", *arguments, "--task-dir", str(task.directory)],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def scores(service: Service, text: str) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in service.predict(text).json()}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return build_task(tmp_path_factory.mktemp("life") / "tiny")


@pytest.fixture(scope="module")
def served(task: TinyTask) -> Iterator[tuple[Service, Service]]:
    """The store service, and a student that asks it."""
    with store(task) as found:
        url = f"http://127.0.0.1:{found.port}"
        with student(task, store_url=url, store_timeout_seconds=5) as service:
            yield found, service


def test_added_texts_are_served_without_a_restart_and_score_0_without_the_store(
    task: TinyTask, served: tuple[Service, Service], tmp_path: Path
) -> None:
    found, service = served
    assert set(scores(service, UNSEEN)) == set(LABELS)
    rows = tmp_path / "new.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": "phone"}) + "\n" for text in TEXTS))

    refused = retrikt(task, "add", str(rows), "--no-labeller")
    assert refused.returncode == 2
    assert "--new-labels" in refused.stderr
    done = retrikt(task, "add", str(rows), "--no-labeller", "--new-labels")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["new_labels"]) == ("activated", ["phone"])
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    for event in ("stage_started", "stage_finished"):
        steps = [line["stage"] for line in events if line["event"] == event]
        assert steps == ["edit", "gate", "release"]

    until(lambda: service.release() == told["release"])
    answer = service.predict(UNSEEN, explain=True).json()
    assert answer["degraded"] is None
    explained = answer["predictions"][0]
    assert explained["scores"][0]["label"] == "phone"
    assert explained["student"]["phone"] == 0.0
    assert explained["neighbours"][0]["text"] in TEXTS
    assert explained["neighbours"][0]["origin"] == "manual"
    assert scores(service, "printer paper")["phone"] < 0.5
    assert service.http.get("/info").json()["labels"] == [*LABELS, "phone"]
    infer = service.http.post(
        f"/v2/models/{TASK}/infer",
        json={"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [UNSEEN]}]},
    ).json()
    outputs = {output["name"]: output["data"] for output in infer["outputs"]}
    assert outputs["label"][0] == "phone"
    assert len(outputs["score"]) == len(LABELS) + 1

    shown = retrikt(task, "list", "--label", "phone", "--json")
    listed = json.loads(shown.stdout)["shown"]
    assert [item["text"] for item in listed] == list(TEXTS)

    # Without the store the student knows nothing of the label, and still lists it.
    found.process.kill()
    found.process.wait()
    until(lambda: service.predict(UNSEEN).headers.get("x-retrikt-degraded"))
    alone = scores(service, UNSEEN)
    assert alone["phone"] == 0.0
    assert sum(alone.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_purged_text_is_answered_without_and_its_release_is_refused_by_the_command(
    tmp_path: Path,
) -> None:
    task = build_task(tmp_path / "tiny")
    added = retrikt(task, "add", "--text", TEXTS[0], "--label", LABELS[0], "--no-labeller")
    assert added.returncode == 0, added.stderr
    held = task.releases.live()
    assert held is not None
    assert held.release == json.loads(added.stdout)["release"]
    done = retrikt(task, "remove", "--text", TEXTS[0].upper(), "--purge")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["purged"]["releases"] == [held.release]
    with student(task) as service:
        assert service.release() == told["release"]
        neighbours = service.predict(UNSEEN, explain=True).json()["predictions"][0]["neighbours"]
        assert TEXTS[0] not in [item["text"] for item in neighbours]
    back = subprocess.run(
        [sys.executable, "-m", "offline", "release", "rollback", "--task-dir", str(task.directory)],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert back.returncode == 3
    assert "release_purged" in back.stderr
    assert "was purged" in back.stderr

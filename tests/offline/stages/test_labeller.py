"""The stage `labeller` on real sentences: what it writes, and what labeller and judge may see."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import offline.tasks
from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.report.metrics import accuracy
from offline.stages import labeller as stage
from offline.stages import prepare
from offline.tasks.config import TaskConfig
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import (
    LabellerConfig,
    load_cross_fitted,
    load_judge,
    load_labeller,
)

LABELS = ("printer_problem", "phishing_report", "vpn_connection", "file_recovery")
CONFIG = LabellerConfig(strengths=(1.0, 10.0))
HELPDESK = Path(offline.tasks.__file__).parent / "helpdesk"


def sentences(split: str, each: int) -> list[str]:
    """The first lines of each label, as they are in the file."""
    lines: dict[str, list[str]] = defaultdict(list)
    for line in (HELPDESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        lines[json.loads(line)["label"]].append(line)
    return [line for label in LABELS for line in lines[label][:each]]


def finished(directory: Path, shots: int | None, seed: int = 0) -> tuple[Path, Path]:
    """Directories of the stages `prepare` and `labeller`."""
    data = directory / "data"
    data.mkdir(exist_ok=True, parents=True)
    rows = sentences("train", 16)
    (data / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    held_out = "\n".join(sentences("validation", 8))
    (data / "test.jsonl").write_text(held_out, encoding="utf-8")
    config = TaskConfig.model_validate(
        {
            "name": "helpdesk",
            "labels": list(LABELS),
            "data": {"directory": data, "train": "train.jsonl", "test": "test.jsonl"},
            "shots": shots,
        }
    )
    prepared, result = directory / "prepare", directory / "labeller"
    prepared.mkdir(exist_ok=True)
    result.mkdir(exist_ok=True)
    prepare.run({}, config, StageContext(prepared, seed, lambda *_: None))
    metrics = stage.run({"prepare": prepared}, CONFIG, StageContext(result, seed, lambda *_: None))
    assert metrics["accuracy"] > 0.5
    return prepared, result


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return finished(tmp_path_factory.mktemp("few_shot"), shots=8)


def test_the_labeller_comes_back_and_knows_other_sentences(few_shot: tuple[Path, Path]) -> None:
    prepared, directory = few_shot
    task, labeller = PreparedTask.load(prepared), load_labeller(directory)
    others = task.test_examples()
    probabilities = labeller.soft_labels(others.texts)
    assert labeller.labels == task.labels
    assert probabilities.shape == (32, 4)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert accuracy(probabilities, task.label_ids(others)) > 0.6


def test_the_description_reports_cross_fitted_figures(few_shot: tuple[Path, Path]) -> None:
    prepared, directory = few_shot
    task, found = (
        PreparedTask.load(prepared),
        json.loads((directory / "labeller.json").read_text(encoding="utf-8")),
    )
    train = task.examples("train")
    probabilities = load_cross_fitted(directory)
    assert probabilities.shape == (len(train), 4)
    assert found["cross_fitted"]["accuracy"] == pytest.approx(
        accuracy(probabilities, task.label_ids(train)), abs=1e-6
    )
    assert set(found["cross_fitted"]) == {"accuracy", "macro_f1", "nll", "ece"}
    labeller = load_labeller(directory)
    assert found["identity"] == labeller.identity
    assert found["parameters"] == labeller.parameters > 22_000_000


def test_the_judge_has_all_labelled_rows_and_is_another_model(few_shot: tuple[Path, Path]) -> None:
    prepared, directory = few_shot
    task, labeller, judge = (
        PreparedTask.load(prepared),
        load_labeller(directory),
        load_judge(directory),
    )
    assert json.loads((directory / "judge.json").read_text())["rows"] == 64
    assert json.loads((directory / "labeller.json").read_text())["rows"] == 32
    assert judge.identity != labeller.identity
    texts = task.test_examples().texts
    by_judge = judge.soft_labels(texts)
    assert accuracy(by_judge, task.label_ids(task.test_examples())) > 0.6
    assert np.abs(by_judge - labeller.soft_labels(texts)).max() > 0.05


def test_the_judge_is_another_model_on_the_labeller_s_own_rows(tmp_path: Path) -> None:
    prepared, directory = finished(tmp_path, shots=None)
    task, labeller, judge = (
        PreparedTask.load(prepared),
        load_labeller(directory),
        load_judge(directory),
    )
    assert len(task.examples("train")) == len(task.examples("judge"))
    texts = task.test_examples().texts
    by_judge = judge.soft_labels(texts)
    assert np.abs(by_judge - labeller.soft_labels(texts)).max() > 0.05


def test_the_stage_writes_the_same_bytes_again_and_nothing_pickled(
    few_shot: tuple[Path, Path], tmp_path: Path
) -> None:
    first = hash_files(few_shot[1])
    _, again = finished(tmp_path, shots=8)
    assert hash_files(again) == first
    assert {Path(name).suffix for name in first} == {".json", ".safetensors"}


def test_labels_of_the_test_split_touch_neither_head(
    few_shot: tuple[Path, Path], tmp_path: Path
) -> None:
    prepared, directory = few_shot
    without = tmp_path / "prepare"
    without.mkdir()
    for path in prepared.iterdir():
        if path.name != "test.parquet":
            (without / path.name).write_bytes(path.read_bytes())
    again = tmp_path / "labeller"
    again.mkdir()
    stage.run({"prepare": without}, CONFIG, StageContext(again, 0, lambda *_: None))
    assert hash_files(again) == hash_files(directory)

"""What `prepare` refuses, and that the test split stays apart from everything that is fitted."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.stages import prepare
from offline.tasks.config import TaskConfig
from offline.tasks.prepared import PreparedTask
from services.platform.errors import InvalidData

Rows = list[tuple[str, str]]
TRAIN: Rows = [
    (f"{word} {number}", label)
    for label, word in (("loss", "lost"), ("fee", "charged"))
    for number in range(6)
]
TEST: Rows = [("my card is gone", "loss"), ("why this fee", "fee")]


def write(path: Path, rows: Rows) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


def prepared(tmp_path: Path, seed: int = 0, **further: Any) -> PreparedTask:
    data = {
        "directory": tmp_path,
        "train": "train.jsonl",
        "test": "test.jsonl",
        **further.pop("data", {}),
    }
    config = TaskConfig.model_validate(
        {"name": "bank", "labels": ["loss", "fee"], "data": data, **further}
    )
    directory = tmp_path / "out"
    directory.mkdir(exist_ok=True)
    prepare.run({}, config, StageContext(directory, seed, lambda *_: None))
    return PreparedTask.load(directory)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", TRAIN)
    write(tmp_path / "test.jsonl", TEST)
    write(tmp_path / "validation.jsonl", [("card was stolen", "loss"), ("hidden fee", "fee")])
    return tmp_path


def test_task_json_tells_later_stages_the_task_and_its_rows(files: Path) -> None:
    task = prepared(files, data={"validation": "validation.jsonl"}, shots=3)
    assert task.labels == ("loss", "fee")
    found = json.loads((task.directory / "task.json").read_text(encoding="utf-8"))
    assert found["shots"] == 3
    assert found["rows"] == {
        "train": 6,
        "validation": 2,
        "test": 2,
        "unlabelled": 0,
        "judge": 14,
    }


def test_a_validation_split_that_is_the_test_split_is_refused(files: Path) -> None:
    with pytest.raises(InvalidData, match=r"validation split and the test split are the same"):
        prepared(files, data={"validation": "test.jsonl"})


def test_no_row_of_the_test_split_reaches_what_may_be_fitted(files: Path) -> None:
    write(
        files / "unlabelled.jsonl",
        [("My card is GONE!", ""), ("a new text", ""), ("a new text.", ""), ("Lost 3", "")],
    )
    task = prepared(files, data={"unlabelled": "unlabelled.jsonl"})
    assert task.examples("unlabelled").texts == ["a new text"]
    assert len(task.examples("validation")) == 0
    held_out = set(task.test_examples().texts)
    for split in ("train", "judge", "unlabelled", "validation"):
        assert not held_out & set(task.examples(split).texts)


def link(directory: Path, to: str) -> str:
    (directory / "link.jsonl").symlink_to(to)
    return "link.jsonl"


def hard_link(directory: Path, to: str) -> str:
    (directory / "hard.jsonl").hardlink_to(directory / to)
    return "hard.jsonl"


def copied(directory: Path, to: str) -> str:
    (directory / "copy.jsonl").write_bytes((directory / to).read_bytes())
    return "copy.jsonl"


def roundabout(directory: Path, to: str) -> str:
    (directory / "sub").mkdir()
    return f"sub/../{to}"


@pytest.mark.parametrize("split", ["train", "validation", "unlabelled"])
@pytest.mark.parametrize("disguise", [link, hard_link, copied, roundabout])
def test_the_test_split_is_recognised_under_another_name(
    files: Path, split: str, disguise: Callable[[Path, str], str]
) -> None:
    with pytest.raises(InvalidData, match=rf"The {split} split and the test split are the same"):
        prepared(files, data={split: disguise(files, "test.jsonl")})


def test_a_validation_split_of_test_rows_in_another_order_and_spelling_is_refused(
    files: Path,
) -> None:
    write(files / "validation.jsonl", [(f"{text.upper()}!", label) for text, label in TEST[::-1]])
    with pytest.raises(InvalidData, match="Every text of the validation split is in the test"):
        prepared(files, data={"validation": "validation.jsonl"})


def test_labelled_rows_that_are_in_the_test_split_are_left_out_and_counted(files: Path) -> None:
    write(files / "train.jsonl", [*TRAIN, ("My card is gone.", "loss")])
    write(files / "validation.jsonl", [("Why this fee?", "fee"), ("hidden fee", "fee")])
    task = prepared(files, data={"validation": "validation.jsonl"})
    found = json.loads((task.directory / "task.json").read_text(encoding="utf-8"))
    assert found["in_test"] == {"train": 1, "validation": 1}
    assert task.examples("validation").texts == ["hidden fee"]
    assert task.examples("train").texts == [text for text, _ in TRAIN]
    assert task.examples("judge").texts == [text for text, _ in TRAIN] + ["hidden fee"]


def test_the_same_words_composed_in_another_way_are_the_same_text(files: Path) -> None:
    write(files / "test.jsonl", [*TEST, (unicodedata.normalize("NFC", "gebühr für café"), "fee")])
    seen = unicodedata.normalize("NFD", "gebühr für café")
    write(files / "validation.jsonl", [(seen, "fee"), ("hidden fee", "fee")])
    task = prepared(files, data={"validation": "validation.jsonl"})
    assert task.examples("validation").texts == ["hidden fee"]


def test_texts_without_letters_are_the_same_only_where_they_are_alike(files: Path) -> None:
    write(files / "test.jsonl", [*TEST, (":(", "loss")])
    write(files / "validation.jsonl", [(":)", "fee"), (":(", "loss")])
    task = prepared(files, data={"validation": "validation.jsonl"})
    assert task.examples("validation").texts == [":)"]


def test_a_few_shot_subset_draws_the_next_row_in_place_of_one_that_is_in_the_test_split(
    files: Path,
) -> None:
    usual = prepared(files, shots=3).examples("train").texts
    taken = usual[0]
    write(files / "test.jsonl", [*TEST, (taken, "loss")])
    task = prepared(files, shots=3, leftover="unlabelled")
    drawn = task.examples("train").texts
    assert len(drawn) == len(usual)
    assert set(usual) - set(drawn) == {taken}
    assert taken not in [*task.examples("unlabelled").texts, *task.examples("judge").texts]


def test_a_label_whose_examples_are_all_in_the_test_split_is_told(files: Path) -> None:
    write(files / "test.jsonl", [row for row in TRAIN if row[1] == "loss"][:5])
    with pytest.raises(InvalidData, match=r"Without the texts of the test split.*than two.*'loss'"):
        prepared(files)


def test_leftover_rows_of_a_few_shot_subset_lose_their_labels(files: Path) -> None:
    task = prepared(files, shots=2, leftover="unlabelled")
    unlabelled = task.examples("unlabelled")
    assert unlabelled.labels is None
    assert len(unlabelled) == 8
    assert not set(unlabelled.texts) & set(task.examples("train").texts)
    assert len(task.examples("judge")) == 12


def test_the_subset_follows_the_seed_and_the_same_seed_gives_the_same_bytes(files: Path) -> None:
    def hashes(seed: int) -> dict[str, str]:
        return hash_files(prepared(files, seed, shots=2).directory)

    first = hashes(0)
    assert first == hashes(0)
    assert first["train.parquet"] != hashes(1)["train.parquet"]
    assert first["judge.parquet"] == hashes(1)["judge.parquet"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_label_that_the_config_does_not_name_is_told_with_file_and_row(
    files: Path, split: str
) -> None:
    write(files / f"{split}.jsonl", [*TRAIN, ("what is this", "other")])
    with pytest.raises(
        InvalidData, match=rf"{split} split, {split}.jsonl line 13.*'other'"
    ) as told:
        prepared(files, data={"validation": "validation.jsonl"})
    assert told.value.code == "invalid_data"
    assert "loss, fee" in str(told.value)


@pytest.mark.parametrize("split", ["train", "validation", "test", "unlabelled"])
def test_an_empty_split_is_told_with_its_file(files: Path, split: str) -> None:
    write(files / "unlabelled.jsonl", [("x", "")])
    (files / f"{split}.jsonl").write_text("\n")
    data = {"validation": "validation.jsonl", "unlabelled": "unlabelled.jsonl"}
    with pytest.raises(InvalidData, match=rf"The {split} split \({split}.jsonl\) is empty"):
        prepared(files, data=data)


def test_one_label_only_is_told_with_file_and_label(files: Path) -> None:
    write(files / "train.jsonl", [("lost", "loss"), ("gone", "loss")])
    with pytest.raises(InvalidData, match=r"train split \(train.jsonl\) holds one label only"):
        prepared(files)


def test_a_label_with_one_example_is_told(files: Path) -> None:
    write(files / "train.jsonl", [*TRAIN[:6], ("charged", "fee")])
    with pytest.raises(InvalidData, match="fewer than two examples of 'fee'"):
        prepared(files)


def test_nothing_is_written_when_a_split_is_refused(files: Path) -> None:
    write(files / "test.jsonl", [("what is this", "other")])
    with pytest.raises(InvalidData):
        prepared(files)
    assert list((files / "out").iterdir()) == []

"""What a cell's run reads: the right test split, no validation split, and only the texts of its regime."""

import json
from pathlib import Path
from typing import Any

import pytest

from offline.bench.cells import Cell, cell_task
from services.platform.errors import InvalidConfig, InvalidData


def folder(root: Path, splits: dict[str, list[dict[str, Any]]], name: str = "toy") -> Path:
    (root / name).mkdir()
    for split, rows in splits.items():
        lines = "\n".join(map(json.dumps, rows)) + "\n"
        (root / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return root


def task_section(cell: Cell, data: Path | None) -> dict[str, Any]:
    return cell_task(cell, data, Path("nowhere")).section


ROWS = [{"text": "a", "label": "yes_sir"}, {"text": "b", "label": "no"}]


def test_without_a_test_file_the_validation_file_is_the_test_split_and_nothing_else(
    tmp_path: Path,
) -> None:
    data = folder(tmp_path, {"train": ROWS, "validation": ROWS})
    section = task_section(Cell("toy", "labels", 4, 0), data)
    assert section["data"]["test"] == "validation.jsonl"
    assert "validation" not in section["data"]


def test_beside_a_test_file_the_validation_file_is_not_read(tmp_path: Path) -> None:
    data = folder(tmp_path, {"train": ROWS, "validation": ROWS, "test": ROWS})
    section = task_section(Cell("toy", "labels", 4, 0), data)
    assert section["data"]["test"] == "test.jsonl"
    assert "validation" not in section["data"]


def test_the_regime_says_what_becomes_of_left_over_rows(tmp_path: Path) -> None:
    data = folder(tmp_path, {"train": ROWS, "test": ROWS})
    assert task_section(Cell("toy", "labels", 4, 0), data)["leftover"] == "drop"
    assert task_section(Cell("toy", "unlabelled", 4, 0), data)["leftover"] == "unlabelled"
    assert "shots" not in task_section(Cell("toy", "labels", None, 0), data)


def test_labels_are_named_in_words_and_truth_values_by_their_names(tmp_path: Path) -> None:
    data = folder(tmp_path, {"train": ROWS, "test": ROWS})
    section = task_section(Cell("toy", "labels", 4, 0), data)
    assert section["labels"] == {"no": "no", "yes_sir": "yes sir"}
    pairs = [{"text": "a", "text_pair": "b", "label": value} for value in (True, False)]
    folder(tmp_path, {"train": pairs, "test": pairs}, "pairs")
    section = task_section(Cell("pairs", "labels", 4, 0), data)
    assert section["labels"] == {"false": "false", "true": "true"}
    assert section["fields"]["text_pair"] == "text_pair"


def test_helpdesk_has_its_unlabelled_texts_in_the_regime_unlabelled_alone() -> None:
    assert task_section(Cell("helpdesk", "labels", None, 0), None)["data"]["unlabelled"] is None
    kept = task_section(Cell("helpdesk", "unlabelled", None, 0), None)
    assert kept["data"]["unlabelled"] == "unlabelled.jsonl"


def test_a_folder_without_a_test_split_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path, {"train": ROWS})
    with pytest.raises(InvalidData, match="lacks a test split"):
        task_section(Cell("toy", "labels", 4, 0), data)


def test_a_task_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no task 'nothing'"):
        task_section(Cell("nothing", "labels", 4, 0), tmp_path)

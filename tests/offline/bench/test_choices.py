"""Choices as pairs: drawn row by row, asked two by two, and the likelier one is the answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline.bench.cells import Cell, cell_task
from offline.bench.choices import Compared, right_choices
from services.platform.errors import InvalidData


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "text": f"premise {row}",
            "question": "cause" if row % 2 else "effect",
            "choice1": f"first {row}",
            "choice2": f"second {row}",
            "label": row % 2,
        }
        for row in range(count)
    ]


def folder(root: Path, train: list[dict[str, Any]]) -> Path:
    (root / "copa").mkdir()
    for split, found in (("train", train), ("validation", rows(3))):
        lines = "\n".join(map(json.dumps, found)) + "\n"
        (root / "copa" / f"{split}.jsonl").write_text(lines)
    return root


def read(work: Path, cell: Cell, split: str) -> list[dict[str, str]]:
    lines = (work / cell.name / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_both_pairs_of_a_row_go_the_same_way(tmp_path: Path) -> None:
    cell = Cell("copa", "unlabelled", 3, 0)
    task = cell_task(cell, folder(tmp_path, rows(20)), tmp_path / "work")
    assert task.choices
    assert "shots" not in task.section, "the rows are drawn already"
    train, rest = (read(tmp_path / "work", cell, split) for split in ("train", "unlabelled"))
    assert len(train) == 2 * 2 * 3
    assert len(rest) == 2 * (20 - 6)
    assert not {row["text"] for row in train} & {row["text"] for row in rest}
    for one, other in zip(train[::2], train[1::2], strict=True):
        assert one["text"] == other["text"]
        assert {one["label"], other["label"]} == {"right", "wrong"}
    test = read(tmp_path / "work", cell, "test")
    assert test[0] == {
        "text": "premise 0 What happened as a result?",
        "text_pair": "first 0",
        "label": "right",
    }
    assert task.section["data"]["test"] == "test.jsonl"


def test_in_the_regime_labels_the_other_rows_are_dropped(tmp_path: Path) -> None:
    cell = Cell("copa", "labels", 3, 0)
    task = cell_task(cell, folder(tmp_path, rows(20)), tmp_path / "work")
    assert "unlabelled" not in task.section["data"]


def test_a_row_without_a_question_is_refused(tmp_path: Path) -> None:
    broken = [{**row, "question": "why"} for row in rows(4)]
    with pytest.raises(InvalidData, match="line 1 is no row of choices"):
        cell_task(Cell("copa", "labels", None, 0), folder(tmp_path, broken), tmp_path / "work")


class Length:
    """Takes longer second texts for right."""

    parameters = model_bytes = store_bytes = 1

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        right = np.array([len(pair) / 100 for pair in pairs or []], dtype=np.float32)
        return np.stack([right, 1 - right], axis=1)


def test_the_likelier_choice_is_the_answer() -> None:
    compared = Compared(Length(), right=0)
    found = compared.probabilities(["p"] * 4, ["long", "a", "b", "longer"])
    np.testing.assert_allclose(found, [[0.8, 0.2], [1 / 7, 6 / 7]], atol=1e-5)
    gold = right_choices(np.array([True, False, False, True]))
    np.testing.assert_array_equal(found.argmax(1), gold)

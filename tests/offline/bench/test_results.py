"""Rows on disk: kept one by one, finished only by their recipe, quick ones apart from real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline.bench.cells import Cell
from offline.bench.results import Results, Row
from services.platform.errors import CorruptArtifact, InvalidConfig

CELL = Cell("toy", "unlabelled", 8, 1)


def row(system: str = "retrikt", **changes: Any) -> Row:
    values: dict[str, Any] = {
        "task": "toy",
        "regime": "unlabelled",
        "shots": 8,
        "seed": 1,
        "system": system,
        "accuracy": 0.5,
        "macro_f1": 0.5,
        "nll": 1.0,
        "ece": 0.1,
        "parameters": 1000,
        "model_bytes": 4000,
        "store_bytes": 100,
        "latency_ms": 1.0,
        "test_rows": 11,
        "recipe": "one",
        "system_hash": "a",
        "content": {"prepare": "x"},
        "git_revision": None,
    }
    return Row.model_validate({**values, **changes})


RIGHT = np.arange(11) % 3 == 0


def test_a_row_is_there_after_opening_again_with_what_it_got_right(tmp_path: Path) -> None:
    Results.open(tmp_path, quick=False).add(row(), RIGHT)
    again = Results.open(tmp_path, quick=False)
    assert list(again) == [row()]
    found = again.right(row())
    assert found is not None
    np.testing.assert_array_equal(found, RIGHT)
    assert again.finished(CELL, "retrikt", "one")


def test_a_row_of_another_recipe_is_not_finished(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    results.add(row(), RIGHT)
    assert not results.finished(CELL, "retrikt", "two")
    assert not results.finished(CELL, "teacher", "one")


def test_a_row_without_its_outcomes_is_not_finished(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    results.add(row(), RIGHT)
    (tmp_path / "outcomes" / f"{CELL.name}.json").unlink()
    assert not results.finished(CELL, "retrikt", "one")


def test_a_new_measurement_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    results.add(row(), RIGHT)
    results.add(row("teacher"), ~RIGHT)
    results.add(row(recipe="two", accuracy=0.25), ~RIGHT)
    assert [(found.system, found.recipe) for found in results] == [
        ("retrikt", "two"),
        ("teacher", "one"),
    ]
    assert results.right(row()) is None
    np.testing.assert_array_equal(results.right(row(recipe="two")), ~RIGHT)


def test_the_order_of_measuring_does_not_show_in_the_file(tmp_path: Path) -> None:
    for name, order in (("a", ("teacher", "retrikt")), ("b", ("retrikt", "teacher"))):
        (tmp_path / name).mkdir()
        results = Results.open(tmp_path / name, quick=False)
        for system in order:
            results.add(row(system), RIGHT)
    files = [(tmp_path / name / "results.json").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_quick_rows_do_not_come_among_real_ones(tmp_path: Path) -> None:
    Results.open(tmp_path, quick=True).add(row(), RIGHT)
    with pytest.raises(InvalidConfig, match="quick"):
        Results.open(tmp_path, quick=False)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"rows": [')
    with pytest.raises(CorruptArtifact, match=r"results\.json"):
        Results.open(tmp_path, quick=False)

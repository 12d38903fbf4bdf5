"""The whole benchmark on two labels: a row a system, and what is finished is not done again.

The systems that the stage `baselines` makes are measured in tests/integration, where that stage has run, and static
embeddings have tests of their own.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from offline.bench.accuracy import Request, current_rows, run_accuracy
from offline.bench.results import Results, Row
from offline.bench.systems import SYSTEMS
from offline.bench.variants import BASE, variant_of
from services.platform.errors import InvalidConfig

REQUEST: dict[str, Any] = {
    "tasks": ["small"],
    "regime": "unlabelled",
    "shots": 4,
    "seeds": [0],
    "quick": True,
}
EXPECTED = [
    system.name for system in SYSTEMS if not (system.static or "baselines" in system.stages)
]


def measure(data: Path, out: Path, **changes: Any) -> str:
    told = io.StringIO()
    request = Request(**{"data": data, "systems": EXPECTED, **REQUEST, **changes})
    run_accuracy(request, out, out / "stages", Console(file=told, width=120))
    return told.getvalue()


@pytest.fixture(scope="module")
def out(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    measure(small_data, directory, variants=[variant_of("store=6")])
    return directory


def rows(out: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((out / "results.json").read_text())
    assert found["quick"] is True
    return {row["system"]: row for row in found["rows"]}


def test_every_system_has_a_row_with_its_figures(out: Path) -> None:
    found = rows(out)
    assert set(found) == {*EXPECTED, "retrikt/store=6"}
    for system, row in found.items():
        assert 0 <= row["accuracy"] <= 1, system
        assert row["nll"] > 0
        assert row["parameters"] > 0
        assert row["model_bytes"] > 0
        assert row["latency_ms"] > 0
        assert row["test_rows"] == 12
        assert row["content"]["prepare"]
        assert row["precision"] in ("float32", "bfloat16")
    searching = {"retrikt", "knn", "retrikt/store=6"}
    assert {system for system, row in found.items() if row["store_bytes"]} == searching
    assert found["retrikt"]["parameters"] == found["retrieval_train_only"]["parameters"]
    assert found["retrikt"]["parameters"] == found["distilled_on_unlabelled"]["parameters"]
    assert found["teacher"]["parameters"] > 50 * found["retrikt"]["parameters"]


def test_the_table_and_the_picture_name_every_system(out: Path) -> None:
    table, picture = (out / "table.md").read_text(), (out / "pareto.svg").read_text()
    for system in EXPECTED:
        assert f"| {system} |" in table or f"| **{system}** |" in table
    assert "Quick runs" in table
    assert picture.startswith("<svg")


def test_the_prompts_of_a_cell_are_kept_and_in_the_table(out: Path) -> None:
    found = json.loads((out / "prompts.json").read_text())["rows"]
    assert [row["prompt"] for row in found] == ["name_prefix", "tuned_prompt", "ppo"]
    stage = next((out / "stages" / "comparison").iterdir())
    compared = json.loads((stage / "comparison.json").read_text())
    for row in found:
        assert row["self_bleu"] == compared[row["prompt"]]["self_bleu"]
        assert row["samples"] == 8
        assert row["recipe"]
    assert "| small, unlabelled | ppo |" in (out / "table.md").read_text()


def test_finished_rows_are_not_measured_again_even_without_their_stages(
    small_data: Path, out: Path
) -> None:
    before = (out / "results.json").read_bytes()
    kept = (out / "stages").rename(out / "kept")
    told = measure(small_data, out)
    assert "nothing to do" in told
    assert (out / "results.json").read_bytes() == before
    assert not list((out / "stages").glob("*/*"))
    shutil.rmtree(out / "stages")
    kept.rename(out / "stages")


def test_a_row_that_is_missing_is_measured_from_the_stages_that_are_there(
    small_data: Path, out: Path
) -> None:
    found = json.loads((out / "results.json").read_text())
    found["rows"] = [row for row in found["rows"] if row["system"] != "knn"]
    (out / "results.json").write_text(json.dumps(found))
    stages = sorted(path for path in (out / "stages").glob("*/*"))
    measure(small_data, out)
    assert "knn" in rows(out)
    assert sorted(path for path in (out / "stages").glob("*/*")) == stages


def test_prompts_that_are_missing_or_of_other_code_are_compared_again(
    small_data: Path, out: Path
) -> None:
    before = (out / "results.json").read_bytes()
    prompts = json.loads((out / "prompts.json").read_text())
    stale = {**prompts, "rows": [{**row, "recipe": "another"} for row in prompts["rows"]]}
    for found in (None, stale):
        if found is None:
            (out / "prompts.json").unlink()
        else:
            (out / "prompts.json").write_text(json.dumps(found))
            with pytest.raises(InvalidConfig, match=", the prompts of 1 cells are of other code"):
                measure(small_data, out)
            assert json.loads((out / "prompts.json").read_text()) == stale
        assert "nothing to do" not in measure(small_data, out, replace=found is not None)
        assert json.loads((out / "prompts.json").read_text()) == prompts
    assert (out / "results.json").read_bytes() == before
    # Systems that PPO does not lead to ask for no comparison.
    (out / "prompts.json").unlink()
    assert "nothing to do" in measure(small_data, out, systems=["teacher"])
    (out / "prompts.json").write_text(json.dumps(prompts))


def test_rows_of_other_code_are_not_replaced_nor_left_out_unasked(
    small_data: Path, out: Path
) -> None:
    kept = {name: (out / name).read_bytes() for name in ("results.json", "table.md", "pareto.svg")}
    # Of another setting, so that the row would be another.
    changed: dict[str, Any] = {"systems": ["teacher"], "overrides": ["labeller.folds=2"]}
    with pytest.raises(InvalidConfig, match=", 1 finished rows are of other code") as refused:
        measure(small_data, out, **changed)
    assert "--replace" in str(refused.value.hint)
    # None of its own would go, but the table would be one without any of the rows.
    with pytest.raises(InvalidConfig, match="The rows of small .* table would be written without"):
        measure(small_data, out, seeds=[1], **changed)
    assert {name: (out / name).read_bytes() for name in kept} == kept


def test_a_row_s_content_tells_the_static_embeddings(
    small_data: Path, out: Path, tmp_path: Path
) -> None:
    pytest.importorskip("model2vec", reason="it comes with retrikt[dev]")
    told = io.StringIO()
    request = Request(**{"data": small_data, "systems": ["teacher", "static"], **REQUEST})
    run_accuracy(request, tmp_path, out / "stages", Console(file=told, width=120))
    found = rows(tmp_path)
    assert found["static"]["content"].keys() - found["teacher"]["content"].keys() == {
        "static_embeddings"
    }


def test_rows_of_other_test_data_or_unknown_ablations_are_not_of_today_s_table(
    small_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    results = Results.open(tmp_path, quick=True)
    request = Request(**{"data": data, **REQUEST, "seeds": [0, 1]})
    stages = tmp_path / "stages"

    def add(seed: int, system: str | None = None) -> None:
        cell = request.cells[seed]
        plan = request.plan(cell, BASE, stages)
        told = {
            "recipe": plan.recipe(plan.systems[0]),
            "system": system or plan.systems[0].name,
            "seed": seed,
        }
        figures = dict.fromkeys(("accuracy", "macro_f1", "nll", "ece", "latency_ms"), 0.5)
        sizes = dict.fromkeys(("parameters", "model_bytes", "store_bytes", "test_rows"), 1)
        row = {
            **told, **figures, **sizes, "task": cell.task, "regime": cell.regime, "shots": 4,
            "system_hash": "same", "content": {}, "git_revision": None,
        }  # fmt: skip
        results.add(Row.model_validate(row), np.ones(1, bool))

    add(0)
    add(1)
    add(1, "retrikt/an_ablation_of_before")
    found = current_rows(request, results, stages)
    assert {cell.seed for cell, _ in found} == {0, 1}
    assert {system for _, system in found} == {"teacher"}
    test = data / "small" / "validation.jsonl"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[1:]))
    add(1)
    assert {cell.seed for cell, _ in current_rows(request, results, stages)} == {1}
    test.unlink()
    assert not current_rows(request, results, stages)

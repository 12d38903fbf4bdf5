"""Recipes tell rows apart before anything runs; system hashes tell systems apart, not tasks or seeds."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from offline.bench.cells import Cell
from offline.bench.plan import CellPlan, plan_cell
from offline.bench.variants import variant_of
from services.platform.errors import InvalidConfig

CELL = Cell("small", "unlabelled", 4, 0)


def planned(data: Path, cell: Cell = CELL, **settings: Any) -> CellPlan:
    return plan_cell(cell, data, Path("nowhere"), quick=True, **settings)


def recipes(plan: CellPlan) -> dict[str, str]:
    return {system.name: plan.recipe(system) for system in plan.systems}


def hashes(plan: CellPlan) -> dict[str, str]:
    return {system.name: plan.system_hash(system) for system in plan.systems}


def changed(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def test_nothing_is_written_by_planning(small_data: Path) -> None:
    plan = planned(small_data)
    assert recipes(plan) == recipes(planned(small_data))
    assert not Path("nowhere").exists()


def test_other_data_seed_or_shots_are_other_rows_of_the_same_systems(
    small_data: Path, tmp_path: Path
) -> None:
    plan = planned(small_data)
    copied = shutil.copytree(small_data, tmp_path / "data")
    with (copied / "small" / "train.jsonl").open("a") as file:
        file.write('{"text": "the printer eats paper", "label": "printer_problem"}\n')
    for other in (
        planned(copied),
        planned(small_data, Cell("small", "unlabelled", 4, 1)),
        planned(small_data, Cell("small", "unlabelled", 5, 0)),
    ):
        assert changed(recipes(plan), recipes(other)) == set(recipes(plan))
        assert hashes(other) == hashes(plan)


def test_where_the_data_lie_does_not_count(small_data: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(small_data, tmp_path / "elsewhere")
    assert recipes(planned(copied)) == recipes(planned(small_data))


def test_a_setting_changes_the_systems_that_hang_on_it_alone(small_data: Path) -> None:
    plan = planned(small_data)
    other = planned(small_data, overrides=["student.retrieval.answer_weight=0.25"])
    expected = {"retrikt", "knn", "retrieval_train_only"} | {
        # The baselines' section holds the student's.
        *("fine_tuned", "distilled", "distilled_on_unlabelled", "distilled_on_knowledge", "tfidf"),
    }
    assert changed(recipes(plan), recipes(other)) == expected
    assert changed(hashes(plan), hashes(other)) == expected


def test_an_ablation_is_a_system_of_its_own(small_data: Path) -> None:
    ours = next(iter(planned(small_data, variant=variant_of("no_ppo")).systems))
    assert ours.name == "retrikt/no_ppo"
    smaller = planned(small_data, variant=variant_of("store=10"))
    assert [system.name for system in smaller.systems] == ["retrikt/store=10"]
    assert smaller.candidate_stage == "smaller_store"
    found = set()
    names = ("no_ppo", "no_retrieval_loss", "no_gate", "no_lexical", "no_neighbours")
    for name in (*names, "without_generated", "k=2"):
        plan = planned(small_data, variant=variant_of(name))
        found.add(plan.system_hash(plan.systems[0]))
    assert len(found) == 7
    assert not found & set(hashes(planned(small_data)).values())


def test_what_the_benchmark_sets_cannot_be_overridden(small_data: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"task\.shots"):
        planned(small_data, overrides=["task.shots=3"])

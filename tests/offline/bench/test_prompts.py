"""Prompts are averaged over seeds, then over tasks, and put beside the students of their samples."""

import json
from pathlib import Path

import pytest

from offline.bench.cells import Cell
from offline.bench.prompts import PromptResults, prompt_table
from services.platform.errors import CorruptArtifact

FIGURES = {
    "samples": 5000,
    "reward": 2.0,
    "reward_parts": {"accuracy": 1.0},
    "label_agreement": 0.5,
    "self_bleu": 0.3,
    "distinct": 1.0,
    "copies": 0.0,
    "copies_unlabelled": 0.0,
    "length": 9.0,
    "complete": 1.0,
}


def kept(directory: Path, agreement: dict[tuple[str, int], tuple[float, float]]) -> PromptResults:
    """Rows of each task and seed, by the judge's agreement before and after PPO."""
    results = PromptResults.open(directory)
    for (task, seed), (before, after) in agreement.items():
        comparison = directory / "comparison.json"
        comparison.write_text(
            json.dumps(
                {
                    prompt: {**FIGURES, "label_agreement_judge": value}
                    for prompt, value in (("tuned_prompt", before), ("ppo", after))
                }
            )
        )
        results.add(
            Cell(task, "labels", 8, seed), comparison, recipe="r", content="c", git_revision=None
        )
    return results


def test_tasks_count_the_same_however_many_seeds_they_have(tmp_path: Path) -> None:
    results = kept(
        tmp_path, {("one", 0): (0.2, 0.4), ("one", 1): (0.4, 0.6), ("two", 0): (0.5, 0.9)}
    )
    accuracy = {
        (Cell("one", "labels", 8, 0), "retrikt"): 0.7,
        (Cell("one", "labels", 8, 1), "retrikt"): 0.8,
        (Cell("one", "labels", 8, 0), "retrikt/no_ppo"): 0.5,
    }
    lines = prompt_table(list(results), accuracy).splitlines()
    assert "## Prompts: 5000 fresh samples each" in lines
    improved = next(line for line in lines if line.startswith("| one, labels | ppo |"))
    assert "| 0.500 ± 0.141 |" in improved
    assert improved.endswith("| 0.750 |")
    tuned = next(line for line in lines if line.startswith("| one, labels | tuned_prompt |"))
    assert tuned.endswith("|  |"), "one of the two seeds has no such student"
    change = next(line for line in lines if line.startswith("| mean of tasks |"))
    assert "| +0.300 |" in change
    assert change.endswith("| +0.200 |")
    assert "Seeds: one (labels) 0, 1; two (labels) 0." in lines


def test_rows_are_read_again_and_measured_anew_in_their_place(tmp_path: Path) -> None:
    kept(tmp_path, {("one", 0): (0.2, 0.4)})
    found = list(kept(tmp_path, {("one", 0): (0.2, 0.5), ("one", 1): (0.2, 0.3)}))
    assert found == list(PromptResults.open(tmp_path))
    agreement = [(row.seed, row.prompt, row.label_agreement_judge) for row in found]
    assert agreement == [
        (0, "tuned_prompt", 0.2),
        (0, "ppo", 0.5),
        (1, "tuned_prompt", 0.2),
        (1, "ppo", 0.3),
    ]


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text("{")
    with pytest.raises(CorruptArtifact, match=r"prompts\.json"):
        PromptResults.open(tmp_path)

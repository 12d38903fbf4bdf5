"""The table averages rows of one system hash alone, and compares systems row by row."""

from pathlib import Path

import numpy as np

from offline.bench.pareto import front
from offline.bench.results import Results, Row
from offline.bench.tables import write_tables

ROWS = 200


def measured(results: Results, system: str, wrong: int, **changes: object) -> None:
    right = np.arange(ROWS) >= wrong
    values: dict[str, object] = {
        "task": "toy",
        "regime": "labels",
        "shots": 8,
        "seed": 0,
        "system": system,
        "accuracy": 1 - wrong / ROWS,
        "macro_f1": 0.5,
        "nll": 1.0,
        "ece": 0.1,
        "parameters": 1_000_000,
        "model_bytes": 4_000_000,
        "store_bytes": 1_000_000,
        "latency_ms": 1.5,
        "test_rows": ROWS,
        "recipe": f"{system}{changes}",
        "system_hash": "new",
        "content": {},
        "git_revision": "c0ffee",
    }
    results.add(Row.model_validate({**values, **changes}), right)


def table(directory: Path, results: Results, **of_today: str) -> str:
    """`of_today`: the hash of each system whose rows count, in place of `current_rows`."""
    rows = {(row.cell, row.system) for row in results if row.system_hash == of_today[row.system]}
    write_tables(directory, results, rows)
    return (directory / "table.md").read_text(encoding="utf-8")


def line(text: str, system: str) -> str:
    return next(
        row for row in text.splitlines() if row.startswith((f"| {system} |", f"| **{system}"))
    )


def test_seeds_are_averaged_and_differences_have_intervals(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    for seed in (0, 1):
        measured(results, "retrikt", 20 + 20 * seed, seed=seed)
        measured(results, "tfidf", 60 + 20 * seed, seed=seed)
    text = table(tmp_path, results, retrikt="new", tfidf="new")
    assert "| **retrikt** | **0.850 ± 0.071** |" in text
    assert "+20.0 (+" in line(text, "tfidf")
    assert "5 MB" in line(text, "tfidf")
    assert "c0ffee" in text
    assert (tmp_path / "pareto.svg").read_text().startswith("<svg")


def test_rows_that_are_not_of_today_are_told_and_not_averaged(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    measured(results, "retrikt", 20)
    measured(results, "tfidf", 60, system_hash="old")
    measured(results, "tfidf", 80, seed=1)
    text = table(tmp_path, results, retrikt="new", tfidf="new")
    assert "| tfidf | 0.600 |" in text
    assert "Not in these tables: 1 rows of earlier versions" in text
    assert "tfidf: seeds 1 alone." in text
    assert line(text, "tfidf").endswith("|  |"), "no seed is shared, so nothing is compared"


def test_a_mean_over_tasks_leaves_out_a_system_that_lacks_one(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    for task, wrong in (("one", 20), ("two", 40)):
        measured(results, "retrikt", wrong, task=task)
        measured(results, "tfidf", 2 * wrong, task=task)
    measured(results, "knn", 10, task="one")
    text = table(tmp_path, results, retrikt="new", tfidf="new", knn="new")
    mean = text[text.index("mean of") : text.index("## one")]
    assert "| **retrikt** | **0.850** |" in mean
    assert "+15.0 (+" in line(mean, "tfidf")
    assert "knn" not in mean
    overview = text[text.index("## labels: accuracy by task") : text.index("mean of")]
    assert "| system | one | two | retrikt minus it, mean, points (95 %) | parameters |" in overview
    assert "| **retrikt** | **0.900** | **0.800** |  | 1 M |" in overview
    assert line(overview, "tfidf").startswith("| tfidf | 0.800 | 0.600 | +15.0 (+")
    assert "knn" not in overview


def test_every_hash_and_number_format_of_the_rows_is_told(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    measured(results, "retrikt", 20, system_hash="one", precision="float32")
    measured(results, "retrikt", 20, seed=1, system_hash="other")
    write_tables(tmp_path, results, {(row.cell, row.system) for row in results})
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "retrikt `one` and `other`" in text
    assert "float32 (1 rows), not recorded (1 rows)" in text


def test_the_mean_of_tasks_tells_which_seeds_a_system_lacks(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    for task in ("one", "two"):
        for seed in (0, 1):
            measured(results, "retrikt", 20, task=task, seed=seed)
        measured(results, "tfidf", 40, task=task)
    measured(results, "tfidf", 40, task="two", seed=1)
    text = table(tmp_path, results, retrikt="new", tfidf="new")
    overview, mean, one = (text.index(found) for found in ("accuracy by", "mean of", "## one"))
    told = "tfidf: seeds 0 of one alone."
    assert told in text[overview:mean]
    assert told in text[mean:one]
    assert "tfidf: seeds 0 alone." in text[one:]
    assert text.count("alone.") == 3


def test_the_picture_leaves_out_a_system_that_lacks_seeds_which_ours_has(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    for seed in (0, 1):
        measured(results, "retrikt", 5, seed=seed)
        measured(results, "tfidf", 8, seed=seed)
    measured(results, "knn", 4, seed=0)
    table(tmp_path, results, retrikt="new", tfidf="new", knn="new")
    picture = (tmp_path / "pareto.svg").read_text()
    assert "tfidf" in picture
    assert "knn" not in picture


def test_what_generation_adds_and_how_near_the_teacher_is_are_said(tmp_path: Path) -> None:
    results = Results.open(tmp_path, quick=False)
    measured(results, "teacher", 10, parameters=50_000_000)
    measured(results, "retrikt", 20)
    measured(results, "distilled_on_knowledge", 30)
    measured(results, "distilled_on_unlabelled", 50)
    systems = ("teacher", "retrikt", "distilled_on_knowledge", "distilled_on_unlabelled")
    text = table(tmp_path, results, **dict.fromkeys(systems, "new"))
    assert "retrikt reaches 94.7% of the teacher's accuracy with 2.0% of its parameters." in text
    # A seed that only the teacher has is no measure of ours.
    measured(results, "teacher", 100, seed=1, parameters=50_000_000)
    assert "retrikt reaches 94.7%" in table(tmp_path, results, **dict.fromkeys(systems, "new"))
    assert "Generated samples add +10.0 (+" in text


def test_the_front_holds_what_nothing_beats() -> None:
    costs = {"small": 1.0, "dear": 3.0, "worse": 2.0, "same": 1.0}
    accuracies = {"small": 0.5, "dear": 0.9, "worse": 0.4, "same": 0.45}
    assert front(costs, accuracies) == ["small", "dear"]

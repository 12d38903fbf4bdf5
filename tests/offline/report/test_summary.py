"""The report's figures over seeds, also where one of them kept nothing that was generated."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from offline.pipeline.manifest import StageManifest
from offline.pipeline.release_stages import STAGES
from offline.report.evaluation import OURS, SYSTEMS, write_predictions
from offline.report.summary import FinishedRun, size_of, summarise

GENERATED = {"distinct": 0.9, "copies": 0.1, "label_agreement": 0.5, "self_bleu": 0.3}
COMPARED = {"reward": 1.0, "label_agreement_judge": 0.4, "self_bleu": 0.2, "parts": {"length": 1.0}}


def finished(root: Path, seed: int, *, right: int, generated: dict[str, float]) -> FinishedRun:
    """A run whose stages hold what the report reads; ours is right on `right` of ten rows, others on five."""

    def write(stage: str, name: str, content: Any) -> None:
        path = root / stage / f"key{seed}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    gold = np.zeros(10, np.int64)

    def answers(hits: int) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[[0] * hits + [1] * (10 - hits)]

    hits = {system: right if system == OURS else 5 for system in SYSTEMS}
    systems = {
        system: {"accuracy": n / 10, "macro_f1": 0.5, "nll": 1.0, "ece": 0.1, "parameters": 100}
        for system, n in hits.items()
    }
    write("evaluate", "metrics.json", {"rows": 10, "systems": systems})
    predictions = root / "evaluate" / f"key{seed}" / "predictions.parquet"
    write_predictions(predictions, {system: answers(n) for system, n in hits.items()}, gold)
    prompts = ("name_prefix", "tuned_prompt", "ppo")
    write("comparison", "comparison.json", dict.fromkeys(prompts, COMPARED))
    write("knowledge", "figures.json", {"items": 20, "written": 8, **generated})
    manifests = {
        stage.name: StageManifest(
            stage=stage.name,
            key=f"key{seed}",
            seed=seed,
            inputs={},
            config={},
            code="",
            files={},
            content="",
            metrics={"items": 20},
            seconds=1.0 + seed,
            peak_memory_bytes=1000 + seed,
            created_at="",
            versions={},
        )
        for stage in STAGES
    }
    return FinishedRun(seed, root, manifests)


def summary(*runs: FinishedRun) -> dict[str, Any]:
    return summarise("toy", runs, store_bytes=5, release_seconds=None)


def test_a_size_is_what_was_written_and_not_the_holes_of_sparse_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "small").write_bytes(b"x" * 100)
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"x" * 50_000)
        file.truncate(32 * 2**20)
    assert 50_000 <= size_of(tmp_path) < 2**20
    assert size_of(tmp_path / "deep") == 100
    assert size_of(tmp_path / "none") == 0


def test_figures_are_means_over_the_seeds_with_their_spread(tmp_path: Path) -> None:
    report = summary(
        finished(tmp_path, 0, right=8, generated=GENERATED),
        finished(tmp_path, 1, right=6, generated={**GENERATED, "copies": 0.3}),
    )
    assert report["systems"][OURS]["accuracy"] == {"mean": 0.7, "std": 0.141421}
    assert report["knowledge"]["copies"] == 0.2
    assert report["differences"]["tfidf"]["mean"] == 0.2
    assert report["ppo"]["label_agreement_before"] == 0.4
    assert report["seconds"]["ppo"] == 1.5
    assert report["peak_memory_bytes"] == 1001


def test_a_seed_that_kept_no_generated_item_is_no_part_of_their_figures(tmp_path: Path) -> None:
    for order in ((GENERATED, {}), ({}, GENERATED)):
        runs = [
            finished(tmp_path / str(len(order[0])), seed, right=8, generated=dict(generated))
            for seed, generated in enumerate(order)
        ]
        report = summary(*runs)
        assert {name: report["knowledge"][name] for name in GENERATED} == GENERATED
        assert report["knowledge"]["items"] == 20


def test_figures_that_no_seed_has_are_null(tmp_path: Path) -> None:
    report = summary(finished(tmp_path, 0, right=8, generated={}))
    assert {name: report["knowledge"][name] for name in GENERATED} == dict.fromkeys(GENERATED)

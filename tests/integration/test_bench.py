"""The benchmark's systems on the stages of a whole run: those of the stage `baselines`, and ours without a gate."""

import json
from typing import Any

import numpy as np
import pytest

from offline.bench.finished_cell import FinishedCell
from offline.bench.measuring import measure
from offline.bench.systems import SYSTEMS, ours_in
from offline.bench.variants import variant_of
from offline.configs.run import load_run_config
from offline.pipeline.manifest import read_manifest
from offline.report.evaluation import read_outcomes
from offline.report.summary import FinishedRun
from services.student.predictor import TextInput


@pytest.fixture(scope="module")
def cell(quick_run: Any) -> Any:
    root = quick_run.directory / "stages"
    # Other tests may have run stages anew there; those of the first seed's report belong together.
    content = json.loads((quick_run.directory / "report.json").read_text())["content"]["0"]
    found = [read_manifest(path.parent) for path in root.glob("*/*/manifest.json")]
    manifests = {
        manifest.stage: manifest
        for manifest in found
        if manifest.content == content[manifest.stage]
    }
    config = load_run_config(str(quick_run.home / "small.yaml"))
    run = FinishedRun(0, root, manifests)
    with FinishedCell(config, run, static=None, candidate_stage="index") as opened:
        yield opened


@pytest.mark.parametrize("name", ["fine_tuned", "distilled", "distilled_on_knowledge", "tfidf"])
def test_baselines_answer_as_in_the_evaluation_of_the_run(cell: FinishedCell, name: str) -> None:
    system = next(system for system in SYSTEMS if system.name == name)
    test = cell.task.test_examples()
    answering = system.open(cell)
    measured = measure(answering, test, cell.task.label_ids(test))
    expected = read_outcomes(cell.path("evaluate", "predictions.parquet"))[name]
    np.testing.assert_array_equal(measured.right, expected)
    assert answering.model_bytes > 0
    assert answering.store_bytes == 0


def test_without_a_gate_every_text_gets_the_same_share(cell: FinishedCell) -> None:
    texts = [TextInput(text) for text in cell.task.examples("train").texts]
    weights = cell.predictor_with(gate=False).predict(texts).weight
    assert np.ptp(weights) < 1e-6
    assert cell.predictor_with(k=3).predict(texts).neighbour_ids.shape == (len(texts), 3)
    asked = ours_in(variant_of("no_gate")).open(cell).probabilities(["the printer eats paper"])
    assert asked.shape == (1, len(cell.task.labels))


def test_without_lexical_index_or_neighbours_the_answer_is_what_is_left(cell: FinishedCell) -> None:
    texts = cell.task.examples("train").texts
    inputs = [TextInput(text) for text in texts]
    whole = cell.predictor.predict(inputs)
    without = ours_in(variant_of("no_neighbours")).open(cell).probabilities(texts)
    # What the student and the lexical index say, at the temperature that was fitted with the neighbours.
    np.testing.assert_allclose(without, whole.student, atol=1e-6)
    head = cell.predictor_with(lexical=False).predict(inputs)
    asked = ours_in(variant_of("no_lexical")).open(cell).probabilities(texts)
    np.testing.assert_array_equal(asked, head.probabilities)
    assert np.abs(head.student - whole.student).max() > 1e-3, "the index has its say in the whole"
    np.testing.assert_allclose(head.store, whole.store, atol=1e-6)

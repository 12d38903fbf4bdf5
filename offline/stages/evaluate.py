"""Stage `evaluate`: every system on the test split, which nothing before it has opened."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.report.evaluation import (
    OURS,
    TEACHER,
    EvaluateConfig,
    Probabilities,
    measure,
    write_predictions,
)
from offline.stages.index import CANDIDATE
from offline.store.publish import open_predictor, probabilities
from offline.student.baselines import load_baselines
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import load_labeller


def run(
    inputs: Mapping[str, Path], config: EvaluateConfig, context: StageContext
) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.parquet`.

    Ours is measured as it serves: the ONNX student, a store version of Qdrant Edge made from the
    candidate's knowledge file, and the server's own predictor.

    Raises:
        StoreUnavailable: the store did not answer; a degraded answer is no measurement.
    """
    task = PreparedTask.load(inputs["prepare"])
    test = task.test_examples()
    gold = task.label_ids(test)
    labeller = load_labeller(inputs["labeller"])
    answers: dict[str, Probabilities] = {
        TEACHER: labeller.soft_labels(
            test.texts,
            test.pairs,
            progress=lambda done, total: context.report(done, total, {}),
        )
    }
    parameters = {TEACHER: labeller.parameters}
    for name, baseline in load_baselines(inputs["baselines"]).items():
        answers[name] = baseline.probabilities(test.texts, test.pairs)
        parameters[name] = baseline.parameters
    with open_predictor(inputs["index"] / CANDIDATE) as predictor:
        answers[OURS] = probabilities(predictor, test)
        parameters[OURS] = predictor.bundle.parameters
    systems = measure(answers, gold, parameters)
    measured = {"rows": len(test), "systems": systems}
    (context.directory / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n")
    write_predictions(context.directory / "predictions.parquet", answers, gold)
    return {system: figures["accuracy"] for system, figures in systems.items()}

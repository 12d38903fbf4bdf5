"""Stage `student`: train the student on the knowledge, export it, fit its mixing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.student.beginning import begin
from offline.student.build import Recipe, build_bundle, honest_rows
from offline.student.config import StudentConfig
from offline.student.items import all_texts, knowledge_items, labelled_items
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import load_labeller
from services.store.knowledge_file import read_knowledge

BUNDLE = "bundle"
SUMMARY = (
    "Distilled from the labeller on the knowledge items, trained to retrieve from them, and served "
    "with them: its answer is mixed with the labeller's soft labels on the nearest items, and with what "
    "the words of the knowledge say."
)


def run(inputs: Mapping[str, Path], config: StudentConfig, context: StageContext) -> dict[str, Any]:
    """Write `bundle/` and `log.jsonl` (mean losses of every 50 steps).

    Raises:
        InvalidConfig: the parameter limit does not allow for such a student, its encoder does not suit, or its
            training came apart.
        ModelNotFound: the encoder that it starts from is not to be had.
        CorruptArtifact: an input is damaged, or the export differs from torch.
    """
    task = PreparedTask.load(inputs["prepare"])
    labeller = load_labeller(inputs["labeller"])
    knowledge = read_knowledge(inputs["knowledge"] / "knowledge.parquet")
    items = knowledge_items(knowledge, labeller, inputs["knowledge"])
    validation, gold = labelled_items(task, labeller, "validation")
    honest = honest_rows(validation, gold, len(task.labels), config.mixing.folds)
    beginning = begin(labeller, all_texts(task, items), len(task.labels), config)
    directory = context.directory / BUNDLE
    directory.mkdir()
    manifest, log = build_bundle(
        directory,
        task,
        labeller,
        beginning,
        items,
        items,
        honest,
        Recipe("retrikt", config.training, config.retrieval, SUMMARY),
        config,
        seed=context.seed,
        report=context.report,
        unseen=validation,
    )
    with (context.directory / "log.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in log)
    return {
        "parameters": manifest.parameters,
        "share": round(manifest.parameters / labeller.parameters, 6),
        "tokens": len(beginning.vocabulary),
        "own_tokens": beginning.vocabulary.own,
        "items": len(items),
        "gate": manifest.trained_with["gate"],
        "k": manifest.mixing.k,
        "distance_threshold": manifest.distance_threshold,
        **manifest.trained_with["mixing_figures"],
    }

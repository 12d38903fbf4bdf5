"""Stage `baselines`: the systems that the student is compared with, from the same inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.student.baselines import (
    DISTILLED,
    DISTILLED_ON_KNOWLEDGE,
    FINE_TUNED,
    NETWORKS,
    TFIDF,
    BaselinesConfig,
    save_tfidf,
)
from offline.student.beginning import begin
from offline.student.build import Recipe, build_bundle, honest_rows
from offline.student.items import (
    TrainingItems,
    all_texts,
    knowledge_items,
    labelled_items,
    one_hot,
    soft_labels_of_training_rows,
)
from offline.student.training import TrainingConfig
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import load_labeller
from services.store.knowledge_file import read_knowledge

SUMMARIES = {
    FINE_TUNED: "Trained on the gold labels of the labelled rows.",
    DISTILLED: "Distilled from the labeller on the labelled rows.",
    DISTILLED_ON_KNOWLEDGE: "Distilled from the labeller on the knowledge items; asks no store.",
}


def run(
    inputs: Mapping[str, Path],
    config: BaselinesConfig,
    context: StageContext,
    *,
    networks: Sequence[str] = NETWORKS,
) -> dict[str, Any]:
    """Write `fine_tuned/`, `distilled/`, `distilled_on_knowledge/` (bundles; those of `networks`) and `tfidf/`.

    Raises:
        InvalidConfig: the parameter limit does not allow for such a student, or its encoder does not suit.
        ModelNotFound: the encoder that it starts from is not to be had.
        CorruptArtifact: an input is damaged, or an export differs from torch.
    """
    task = PreparedTask.load(inputs["prepare"])
    labeller = load_labeller(inputs["labeller"])
    knowledge = read_knowledge(inputs["knowledge"] / "knowledge.parquet")
    items = knowledge_items(knowledge, labeller, inputs["knowledge"])
    train, train_gold = labelled_items(task, labeller, "train")
    validation, gold = labelled_items(task, labeller, "validation")
    settings = config.student
    labels = len(task.labels)
    honest = honest_rows(validation, gold, labels, settings.mixing.folds)
    beginning = begin(labeller, all_texts(task, items), labels, settings)

    rows: dict[str, tuple[TrainingItems, TrainingConfig]] = {
        FINE_TUNED: (
            train.with_soft_labels(one_hot(train_gold, labels)),
            settings.training.model_copy(
                update={"steps": config.fine_tuned_steps, "embedding_weight": 0.0}
            ),
        ),
        DISTILLED: (
            train.with_soft_labels(soft_labels_of_training_rows(knowledge, train)),
            settings.training.model_copy(update={"steps": config.distilled_steps}),
        ),
        DISTILLED_ON_KNOWLEDGE: (items, settings.training),
    }
    total = sum(rows[name][1].steps for name in networks)
    metrics: dict[str, Any] = {}
    done = 0
    for name in networks:
        trained_on, training = rows[name]
        directory = context.directory / name
        directory.mkdir()

        def report(step: int, _: int, figures: Mapping[str, float], before: int = done) -> None:
            context.report(before + step, total, figures)

        manifest, _ = build_bundle(
            directory,
            task,
            labeller,
            beginning,
            trained_on,
            None,
            honest,
            Recipe(name, training, None, SUMMARIES[name]),
            settings,
            seed=context.seed,
            report=report,
        )
        done += training.steps
        metrics[f"{name}_parameters"] = manifest.parameters
        if honest is not None:
            metrics[f"{name}_nll"] = manifest.trained_with["mixing_figures"]["nll"]
    directory = context.directory / TFIDF
    directory.mkdir()
    classifier = save_tfidf(
        directory,
        train.texts,
        train.pairs,
        train_gold,
        labels,
        config.tfidf,
        seed=context.seed,
    )
    metrics["tfidf_parameters"] = classifier.parameters
    metrics["tfidf_strength"] = classifier.fitted.strength
    return metrics

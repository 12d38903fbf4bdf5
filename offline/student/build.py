"""From items to a bundle: training, export, mixing, model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.store.lexical_fit import fit_lexical
from offline.student.beginning import Beginning
from offline.student.card import write_model_card
from offline.student.config import StudentConfig
from offline.student.distance_fit import fit_distance_threshold
from offline.student.export import export_onnx
from offline.student.items import TrainingItems, one_hot
from offline.student.mixing_fit import (
    FittedMixing,
    FittingRows,
    fit_mixing,
    nearest_items,
    unfitted_mixing,
)
from offline.student.network import parameter_count
from offline.student.quantisation import Rounding, quantise_file
from offline.student.retrieval_loss import RetrievalConfig
from offline.student.training import Report, TrainingConfig, train_student
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import Labeller
from services.platform.errors import InvalidConfig
from services.student.bundle import MODEL, TOKENIZER, BundleManifest, write_bundle_manifest
from services.student.encoder import OnnxEncoder
from services.student.lexical import LexicalIndex
from services.student.mixing import blend

CALIBRATION_TEXTS = 256
"""Items that the ranges of an int8 student are taken from, at most; as many others say what rounding changes."""


@dataclass(frozen=True, slots=True)
class HonestRows:
    """Rows to fit the mixing on; see `offline.student.mixing_fit`.

    Attributes:
        rows: their texts.
        targets: (n, L) one-hot gold labels.
    """

    rows: TrainingItems
    targets: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one student differs from the others of a run.

    Attributes:
        name: of the system.
        training: steps, rates, weights.
        retrieval: None for a student that never asks a store.
        summary: what it was trained on and how, for the model card.
    """

    name: str
    training: TrainingConfig
    retrieval: RetrievalConfig | None
    summary: str


def honest_rows(
    validation: TrainingItems, gold: NDArray[np.int64], labels: int, folds: int
) -> HonestRows | None:
    """The validation split, where it is large enough to fit on; else there are none.

    Args:
        validation: of the task; may be empty.
        gold: (v,) positions of the validation rows' labels.
        labels: number of labels; twice as many rows are the least.
        folds: of the mixing's cross-validation; as many rows are the least.
    """
    if len(validation) < max(2 * labels, folds):
        return None
    return HonestRows(validation, one_hot(gold, labels))


def build_bundle(
    directory: Path,
    task: PreparedTask,
    labeller: Labeller,
    beginning: Beginning,
    trained_on: TrainingItems,
    store: TrainingItems | None,
    honest: HonestRows | None,
    recipe: Recipe,
    config: StudentConfig,
    *,
    seed: int,
    report: Report,
    unseen: TrainingItems | None = None,
) -> tuple[BundleManifest, list[dict[str, float]]]:
    """Train one student and write its bundle.

    Args:
        directory: an existing, empty directory.
        task: labels and whether texts are pairs.
        labeller: for the model card.
        beginning: vocabulary and weights.
        trained_on: items to learn from.
        store: items of the knowledge file; None for a student that never asks a store.
        honest: rows to fit temperature and mixing on; None where the task has none.
        recipe: losses and steps.
        config: sizes and mixing.
        seed: of initialisation, batches and folds.
        report: called after every step.
        unseen: validation rows, however few, for the distance beyond which a text is unlike the task's.

    Returns:
        The bundle's manifest and the log of the training.

    Raises:
        InvalidConfig: the student has more parameters than the limit, or its training came apart.
        CorruptArtifact: the export differs from torch.
    """
    sizes, vocabulary = config.shape, beginning.vocabulary
    model = beginning.make(dropout=recipe.training.dropout, seed=seed)
    parameters = parameter_count(model)
    if parameters > beginning.limit:
        raise InvalidConfig(
            f"The student has {parameters:,} parameters, {beginning.limit:,} is the limit.",
            hint=f"{config.raised(parameters, labeller.parameters)}, or take smaller student.shape sizes.",
        )
    ids = vocabulary.encode(trained_on.texts, trained_on.pairs, sizes.max_tokens)
    log = train_student(
        model, ids, trained_on, recipe.training, recipe.retrieval, seed=seed, report=report
    )
    difference = export_onnx(model, directory / MODEL)
    rounding = (
        round_student(directory / MODEL, ids, seed=seed) if config.precision == "int8" else None
    )
    vocabulary.save(directory / TOKENIZER)
    encoder = OnnxEncoder(
        directory / MODEL, directory / TOKENIZER, max_tokens=sizes.max_tokens, pair=task.pair
    )
    mixing = _fit(encoder, store, honest, config, seed)
    threshold = None
    if store is not None:
        share = config.mixing.lexical_share
        mixing = replace(mixing, parameters=replace(mixing.parameters, lexical_share=share))
        threshold = fit_distance_threshold(encoder, store, unseen, mixing.parameters.k)
    manifest = write_bundle_manifest(
        directory,
        task=task.name,
        pair=task.pair,
        labels=task.labels,
        label_names=[task.label_texts[label] for label in task.labels],
        dimensions=sizes.query,
        max_tokens=sizes.max_tokens,
        parameters=parameters,
        mixing=mixing.parameters,
        trained_with=_trained_with(
            labeller,
            beginning,
            trained_on,
            store,
            honest,
            recipe,
            log,
            mixing,
            difference,
            rounding,
            seed,
        ),
        distance_threshold=threshold,
    )
    write_model_card(directory, manifest)
    return manifest, log


def round_student(model: Path, ids: Sequence[Sequence[int]], *, seed: int) -> Rounding:
    """Round an exported student in place, its ranges and what that changes from a sample of token `ids`.

    Raises:
        InvalidConfig: there is nothing to round.
        CorruptArtifact: a text's results hang on the texts beside it.
    """
    rows = np.random.default_rng(seed).permutation(len(ids))[: 2 * CALIBRATION_TEXTS]
    sequences = [ids[row] for row in rows]
    half = len(sequences) // 2 or 1
    return quantise_file(model, sequences[:half], sequences[half:] or sequences)


def _fit(
    encoder: OnnxEncoder,
    store: TrainingItems | None,
    honest: HonestRows | None,
    student: StudentConfig,
    seed: int,
) -> FittedMixing:
    config = student.mixing
    if honest is None:
        return unfitted_mixing(config, store=store is not None)
    logits, queries = encoder.encode(honest.rows.texts, honest.rows.pairs)
    most = max(config.k)
    if store is None:
        labels = logits.shape[1]
        similarities = np.full((len(logits), most), -np.inf, dtype=np.float32)
        neighbour_labels = np.zeros((len(logits), most, labels), dtype=np.float32)
    else:
        _, vectors = encoder.encode(store.texts, store.pairs)
        copies = honest.rows.copies_of(store)
        similarities, neighbour_labels = nearest_items(
            queries, vectors, store.soft_labels, most, copies
        )
        if config.lexical_share:
            # The release's own is fitted when its knowledge is indexed, on all items.
            others = store.take(np.flatnonzero(~copies.any(0)))
            lexical = LexicalIndex(
                fit_lexical(
                    others.texts,
                    others.pairs,
                    others.soft_labels,
                    known=others.soft_labels.shape[1],
                    most_words=student.shape.max_tokens,
                )
            )
            said = lexical.ask(honest.rows.texts, honest.rows.pairs)
            logits = blend(logits, said, config.lexical_share)
    rows = FittingRows(logits, honest.targets, similarities, neighbour_labels)
    return fit_mixing(rows, config, seed=seed, store=store is not None)


def _trained_with(
    labeller: Labeller,
    beginning: Beginning,
    trained_on: TrainingItems,
    store: TrainingItems | None,
    honest: HonestRows | None,
    recipe: Recipe,
    log: Sequence[Mapping[str, float]],
    mixing: FittedMixing,
    difference: float,
    rounding: Rounding | None,
    seed: int,
) -> dict[str, Any]:
    return {
        "system": recipe.name,
        "summary": recipe.summary,
        "labeller": labeller.identity,
        "labeller_parameters": labeller.parameters,
        "encoder": beginning.encoder,
        "items": len(trained_on),
        "store_items": 0 if store is None else len(store),
        "seed": seed,
        "training": recipe.training.model_dump(),
        "retrieval": None if recipe.retrieval is None else recipe.retrieval.model_dump(),
        "last_losses": {name: round(value, 4) for name, value in log[-1].items()},
        "mixing_fitted_on": 0 if honest is None else len(honest.rows),
        "gate": mixing.gate,
        "mixing_figures": mixing.figures,
        "onnx_differs_from_torch_by_at_most": float(f"{difference:.1e}"),
        "precision": "fp32" if rounding is None else "int8",
        "int8_beside_fp32": None if rounding is None else rounding._asdict(),
    }

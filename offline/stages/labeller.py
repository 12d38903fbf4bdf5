"""Stage `labeller`: fit and calibrate the labeller on the run's rows, and the judge on all of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from safetensors.numpy import save_file

from offline.pipeline.stage import StageContext
from offline.report.metrics import figures
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import Examples, PreparedTask
from offline.teacher import judge as judges
from offline.teacher import labeller as labellers
from offline.teacher.diversity import stratified_rows
from offline.teacher.encoder import SentenceEncoder, load_encoder
from offline.teacher.head import head_identity, save_head
from offline.teacher.judge import JudgeConfig, fit_judge
from offline.teacher.labeller import LabellerConfig
from offline.teacher.labeller_fit import FittedLabeller, fit_labeller
from offline.teacher.pretrained import model_directory
from offline.teacher.soft_labels import joined
from offline.teacher.text_scorer import LabelledRows
from offline.teacher.word_features import WordFeatures

log = structlog.get_logger(__name__)


def run(
    inputs: Mapping[str, Path], config: LabellerConfig, context: StageContext
) -> dict[str, Any]:
    """Write labeller and judge, their descriptions, and the cross-fitted probabilities.

    All reported figures are cross-fitted: every row is judged by a labeller and a temperature that did not
    see it. The test split stays closed.

    Raises:
        InvalidConfig: a model does not suit the kind of labeller, the labels or the texts.
        ModelNotFound: a model is not to be had.
    """
    # A name that cannot be loaded is told before anything is read.
    for name in config.models().values():
        model_directory(name)
    task = PreparedTask.load(inputs["prepare"])
    encoder = load_encoder(config.encoder)
    train = task.examples("train")
    rows = task.examples("judge")
    rows = _take(rows, stratified_rows(rows.labels or [], config.judge.rows, seed=0))

    # The judge's rows hold the run's: what both read is encoded once.
    texts = list(dict.fromkeys([*_texts(train), *_texts(rows)]))
    embeddings = encoder.embed(
        [text for text, _ in texts],
        [pair or "" for _, pair in texts] if task.pair else None,
        progress=lambda done, total: context.report(done, total, {}),
    )
    place = {text: row for row, text in enumerate(texts)}

    gold = task.label_ids(train)
    fitted = fit_labeller(
        LabelledRows(train.texts, train.pairs, gold, _forms(train)),
        embeddings[[place[text] for text in _texts(train)]],
        {label: task.label_texts[label] for label in task.labels},
        encoder,
        config,
        seed=context.seed,
        progress=lambda done, total: context.report(done, total, {}),
    )
    own = figures(fitted.cross_fitted, gold)
    _write_labeller(context.directory, config, fitted, own)
    _distrust(own["accuracy"], gold)

    rows_embedded = embeddings[[place[text] for text in _texts(rows)]]
    of_judge = _write_judge(context.directory, task, config, encoder, rows, rows_embedded)
    return {
        **own,
        **{
            name: round(fitted.details[name], 6)
            for name in ("temperature", "strength")
            if name in fitted.details
        },
        "parameters": fitted.labeller.parameters,
        "judge_accuracy": of_judge["accuracy"],
        "judge_rows": len(rows),
    }


def _write_labeller(
    directory: Path,
    config: LabellerConfig,
    fitted: FittedLabeller,
    measured: Mapping[str, float],
) -> None:
    fitted.save(directory)
    save_file(
        {
            "probabilities": fitted.cross_fitted,
            "folds": fitted.folds,
        },
        directory / labellers.CROSS_FITTED,
    )
    _write_json(
        directory / labellers.DESCRIPTION,
        {
            "format": 1,
            "kind": config.kind,
            "identity": fitted.labeller.identity,
            "labels": list(fitted.labeller.labels),
            "encoder": config.encoder.model_dump(),
            "parameters": fitted.labeller.parameters,
            **fitted.details,
            "rows": len(fitted.folds),
            "folds": int(fitted.folds.max()) + 1,
            "cross_fitted": dict(measured),
        },
    )


def _distrust(accuracy: float, gold: NDArray[np.int64]) -> None:
    """Log a labeller that is no better than naming the most frequent label: what follows is worth nothing."""
    most_frequent = float(np.bincount(gold).max() / len(gold))
    if accuracy <= most_frequent:
        log.warning(
            "labeller_knows_nothing", accuracy=accuracy, most_frequent=round(most_frequent, 6)
        )


def _write_judge(
    directory: Path,
    task: PreparedTask,
    config: LabellerConfig,
    encoder: SentenceEncoder,
    rows: Examples,
    embeddings: NDArray[np.float32],
) -> dict[str, float]:
    settings: JudgeConfig = config.judge
    words = WordFeatures.fit(
        joined(rows.texts, rows.pairs), settings.word_features, settings.character_features
    )
    fitted = fit_judge(
        embeddings,
        words(joined(rows.texts, rows.pairs)),
        task.label_ids(rows),
        _forms(rows),
        len(task.labels),
        settings,
    )
    measured = figures(fitted.cross_fitted, task.label_ids(rows))
    save_head(fitted.head, directory / judges.HEAD, rarity=words.rarity)
    _write_json(
        directory / judges.DESCRIPTION,
        {
            "format": 1,
            "identity": head_identity(f"{encoder.identity}+words", fitted.head),
            "labels": list(task.labels),
            "encoder": config.encoder.model_dump(),
            "word_features": settings.word_features,
            "character_features": settings.character_features,
            "temperature": fitted.head.temperature,
            "rows": len(rows),
            "cross_fitted": measured,
        },
    )
    return measured


def _texts(examples: Examples) -> list[tuple[str, str | None]]:
    pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
    return list(zip(examples.texts, pairs, strict=True))


def _forms(examples: Examples) -> list[str]:
    return [letters_and_digits(text, pair) for text, pair in _texts(examples)]


def _take(examples: Examples, rows: list[int]) -> Examples:
    def of(column: list[str] | None) -> list[str] | None:
        return None if column is None else [column[row] for row in rows]

    return Examples([examples.texts[row] for row in rows], of(examples.pairs), of(examples.labels))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

"""Stage `labeller`: fit and calibrate the labeller on the run's rows, and the judge on all of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from offline.teacher.head import FittedHead, fit_head, head_identity, save_head
from offline.teacher.judge import JudgeConfig, fit_judge, joined
from offline.teacher.labeller import LabellerConfig
from offline.teacher.word_features import WordFeatures


def run(
    inputs: Mapping[str, Path], config: LabellerConfig, context: StageContext
) -> dict[str, Any]:
    """Write the labeller's and the judge's heads, their descriptions, and the cross-fitted probabilities.

    All reported figures are cross-fitted: every row is judged by a head and a temperature that did not
    see it. The test split stays closed.
    """
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

    fitted = fit_head(
        embeddings[[place[text] for text in _texts(train)]],
        task.label_ids(train),
        _forms(train),
        len(task.labels),
        strengths=config.strengths,
        folds=config.folds,
        seed=context.seed,
    )
    own = figures(fitted.cross_fitted, task.label_ids(train))
    _write_labeller(context.directory, task, config, encoder, fitted, own)

    rows_embedded = embeddings[[place[text] for text in _texts(rows)]]
    of_judge = _write_judge(context.directory, task, config, encoder, rows, rows_embedded)
    return {
        **own,
        "temperature": round(fitted.head.temperature, 6),
        "strength": fitted.strength,
        "parameters": encoder.parameters + fitted.head.parameters,
        "judge_accuracy": of_judge["accuracy"],
        "judge_rows": len(rows),
    }


def _write_labeller(
    directory: Path,
    task: PreparedTask,
    config: LabellerConfig,
    encoder: SentenceEncoder,
    fitted: FittedHead,
    measured: Mapping[str, float],
) -> None:
    head = fitted.head
    save_head(head, directory / labellers.HEAD)
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
            "identity": head_identity(encoder.identity, head),
            "labels": list(task.labels),
            "encoder": config.encoder.model_dump(),
            "parameters": encoder.parameters + head.parameters,
            "temperature": head.temperature,
            "strength": fitted.strength,
            "rows": len(fitted.folds),
            "folds": int(fitted.folds.max()) + 1,
            "cross_fitted": dict(measured),
        },
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

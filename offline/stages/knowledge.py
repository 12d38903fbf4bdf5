"""Stage `knowledge`: label the samples, screen them, and write the knowledge file."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offline.pipeline.shards import run_shards
from offline.pipeline.stage import StageContext
from offline.store.knowledge import (
    EMBEDDINGS,
    Items,
    KnowledgeConfig,
    gold_and_labeller,
    knowledge_of,
    positions,
)
from offline.store.knowledge_figures import knowledge_figures
from offline.store.sample_sheet import sample_sheet
from offline.tasks.prepared import Examples, PreparedTask
from offline.teacher.generation import left_out_of
from offline.teacher.judge import load_judge
from offline.teacher.labeller import labeller_identity, load_cross_fitted
from offline.teacher.labelling import Labelling, TextShard, joined_shards, text_shards
from offline.teacher.quality import Screened, in_order_of_reasons, screen
from services.platform.errors import InvalidData
from services.store.knowledge_file import KnowledgeMetadata, write_knowledge


def run(
    inputs: Mapping[str, Path], config: KnowledgeConfig, context: StageContext
) -> dict[str, Any]:
    """Write `knowledge.parquet`, `embeddings.npy`, `dropped.json`, `samples.md` and `figures.json`.

    In `dropped.json` are samples that `generate` left out, too, but for its `by_label`, which counts whole ones.

    Items are the kept generated samples, then the training rows, then the unlabelled texts. The judge
    measures and chooses nothing. `embeddings.npy` holds the labeller's embeddings of the items, (items,
    d) float16, so that no later stage encodes them again.

    Raises:
        InvalidData: no item is left.
    """
    task = PreparedTask.load(inputs["prepare"])
    table = pq.read_table(inputs["generate"] / "samples.parquet")
    left_out = left_out_of(table)
    if not config.generated:
        table, left_out = table.slice(0, 0), Counter()
    labelled_rows = task.examples("train")
    written, train, unlabelled = _labelled(
        {
            "generated": _samples(table, task.pair),
            "train": labelled_rows,
            "unlabelled": task.examples("unlabelled"),
        },
        inputs["labeller"],
        context,
    )
    gold = task.label_ids(labelled_rows)
    soft = gold_and_labeller(load_cross_fitted(inputs["labeller"]), gold, config.gold_trust)
    train = dataclasses.replace(train, soft_labels=soft)

    written_for = positions(written.labels or [], task.labels)
    screened = screen(
        written.joined,
        written_for,
        written.embeddings,
        written.soft_labels,
        known_texts=train.joined + unlabelled.joined,
        known_embeddings=np.concatenate([train.embeddings, unlabelled.embeddings]),
        label_texts=[task.label_texts[label] for label in task.labels],
        config=config.quality,
    )
    reasons = in_order_of_reasons(left_out + Counter(screened.counts()))
    generated = dataclasses.replace(written, nearest=screened.nearest).take(screened.kept)
    parts = [generated]
    if config.train:
        parts.append(train)
    if config.unlabelled:
        parts.append(unlabelled)
    if not sum(map(len, parts)):
        raise InvalidData(
            f"None of the {len(written) + left_out.total()} generated samples is fit to be kept: {reasons}.",
            hint="Loosen knowledge.quality, or look into the generator's samples.",
        )
    metadata = KnowledgeMetadata(task=task.name, labels=task.labels, pair=task.pair)
    knowledge = knowledge_of(
        parts,
        metadata,
        labeller=labeller_identity(inputs["labeller"]),
        generator=_generator(table.schema),
    )
    write_knowledge(context.directory / "knowledge.parquet", knowledge)
    kept_embeddings = np.concatenate([part.embeddings for part in parts]).astype(np.float16)
    np.save(context.directory / EMBEDDINGS, kept_embeddings, allow_pickle=False)
    _write_json(
        context.directory / "dropped.json",
        {
            "written": len(written) + left_out.total(),
            "kept": len(generated),
            "reasons": reasons,
            "by_label": _dropped_by_label(screened, written.labels or [], task.labels),
        },
    )
    (context.directory / "samples.md").write_text(
        sample_sheet(
            task.labels,
            written.joined,
            written_for,
            written.soft_labels,
            screened.reasons,
            left_out=left_out.total(),
            task=task.name,
            seed=context.seed,
        ),
        encoding="utf-8",
    )
    figures = knowledge_figures(
        parts, written, train, unlabelled, load_judge(inputs["labeller"]), task.labels
    )
    _write_json(context.directory / "figures.json", figures)
    return figures


def _labelled(
    examples: Mapping[str, Examples], labeller: Path, context: StageContext
) -> list[Items]:
    """Embeddings and soft labels for examples by origin, in that order; not all of them may be empty."""
    total, read = sum(map(len, examples.values())), 0

    def done(shard: TextShard) -> None:
        nonlocal read
        read += len(shard.texts)
        context.report(read, total, {})

    asked = [
        shard
        for origin, found in examples.items()
        for shard in text_shards(origin, found.texts, found.pairs)
    ]
    tables = run_shards(context.engine, Labelling(labeller.resolve()), asked, context.partial, done)
    embeddings, soft_labels = joined_shards(tables)
    items = []
    start = 0
    for origin, found in examples.items():
        rows = slice(start, start + len(found))
        items.append(
            Items(
                origin,
                found.texts,
                found.pairs,
                found.labels,
                soft_labels[rows],
                embeddings[rows],
            )
        )
        start = rows.stop
    return items


def _samples(table: pa.Table, pair: bool) -> Examples:
    return Examples(
        table["text"].to_pylist(),
        table["text_pair"].to_pylist() if pair else None,
        table["label"].to_pylist(),
    )


def _generator(schema: pa.Schema) -> str | None:
    """Identity of the generator, where the samples' file tells it."""
    found = (schema.metadata or {}).get(b"generator")
    return None if found is None else found.decode()


def _dropped_by_label(
    screened: Screened, written_for: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for label, reason in zip(written_for, screened.reasons, strict=True):
        if reason is not None:
            counts[label][reason] += 1
    return {label: in_order_of_reasons(found) for label, found in counts.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

"""Stage `prepare`: read, check and split the task's examples."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from offline.pipeline.stage import StageContext
from offline.tasks.config import TaskConfig
from offline.tasks.examples import SCHEMA, read_split, write_examples
from offline.tasks.few_shot import few_shot_rows
from services.platform.errors import InvalidData

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


def run(inputs: Mapping[str, Path], config: TaskConfig, context: StageContext) -> dict[str, Any]:
    """Write `train`, `validation`, `test`, `unlabelled` and `judge` (`.parquet`) and `task.json`.

    `train` holds the labelled rows of the run (a few-shot subset where `shots` is set), `judge` all
    labelled training rows, for measurement alone. Unlabelled texts that also occur in the test or
    validation split, compared on letters and digits, are dropped.

    Raises:
        InvalidData: see `offline.tasks.examples.read_split`; or a label without a training example.
    """
    data, labels = config.data, list(config.labels)
    directory = data.directory or Path()

    def read(source: str, split: str, named: list[str] | None) -> pa.Table:
        return read_split(source, directory, config.fields, split=split, labels=named)

    everything = read(data.train, "train", labels)
    test = read(data.test, "test", labels)
    validation = read(data.validation, "validation", labels) if data.validation else None
    unlabelled = (
        read(data.unlabelled, "unlabelled", None) if data.unlabelled else SCHEMA.empty_table()
    )
    _every_label_has_examples(everything, labels)

    train = everything
    if config.shots is not None:
        rows = few_shot_rows(everything["label"].to_pylist(), config.shots, context.seed)
        train = everything.take(rows)
        if config.leftover == "unlabelled":
            kept = set(rows)
            rest = everything.take([row for row in range(everything.num_rows) if row not in kept])
            unlabelled = pa.concat_tables([unlabelled, _without_labels(rest)])
    held_out = pa.concat_tables([test, *([validation] if validation is not None else [])])
    unlabelled, dropped = _drop_seen(unlabelled, held_out)

    write_examples(train, context.directory / "train.parquet")
    write_examples(everything, context.directory / "judge.parquet")
    write_examples(test, context.directory / "test.parquet")
    write_examples(unlabelled, context.directory / "unlabelled.parquet")
    write_examples(
        validation if validation is not None else SCHEMA.empty_table(),
        context.directory / "validation.parquet",
    )
    description = {"name": config.name, "labels": config.labels, "pair": config.pair}
    (context.directory / "task.json").write_text(json.dumps(description, indent=1))
    return {
        "train": train.num_rows,
        "validation": 0 if validation is None else validation.num_rows,
        "test": test.num_rows,
        "unlabelled": unlabelled.num_rows,
        "unlabelled_dropped": dropped,
        "labels": len(labels),
    }


def _every_label_has_examples(train: pa.Table, labels: list[str]) -> None:
    counts = Counter(train["label"].to_pylist())
    if len(counts) < 2:
        raise InvalidData(
            f"The train split holds one label only ({next(iter(counts))!r}).",
            hint="A classifier needs examples of at least two.",
        )
    missing = [label for label in labels if counts[label] < 2]
    if missing:
        raise InvalidData(
            f"The train split holds fewer than two examples of {', '.join(map(repr, missing[:5]))}.",
            hint="Add examples, or take the label out of task.labels.",
        )


def _without_labels(table: pa.Table) -> pa.Table:
    position = table.schema.get_field_index("label")
    return table.set_column(position, SCHEMA.field("label"), pa.nulls(table.num_rows, pa.string()))


def _drop_seen(table: pa.Table, held_out: pa.Table) -> tuple[pa.Table, int]:
    seen = set(_letters(held_out))
    kept: dict[str, int] = {}
    for row, letters in enumerate(_letters(table)):
        if letters not in seen:
            kept.setdefault(letters, row)
    return table.take(pa.array(sorted(kept.values()), pa.int64())), table.num_rows - len(kept)


def _letters(table: pa.Table) -> list[str]:
    return [
        NOT_ALPHANUMERIC.sub("", f"{text}\x00{pair or ''}".lower())
        for text, pair in zip(
            table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True
        )
    ]

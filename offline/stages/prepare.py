"""Stage `prepare`: read, check and split the task's examples."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from offline.pipeline.stage import StageContext
from offline.tasks.config import DataConfig, TaskConfig
from offline.tasks.examples import SCHEMA, read_split, write_examples
from offline.tasks.few_shot import few_shot_rows
from offline.tasks.normal_form import letters_and_digits
from services.platform.errors import InvalidData


def run(inputs: Mapping[str, Path], config: TaskConfig, context: StageContext) -> dict[str, Any]:
    """Write `train`, `validation`, `test`, `unlabelled` and `judge` (`.parquet`) and `task.json`.

    `train` holds the labelled rows of the run (a few-shot subset where `shots` is set). `judge` holds all
    labelled training rows, and the validation rows where there are any, for measurement alone.
    `validation` is there only where it is another split than the test split, so whatever finds
    rows in it may fit on them. Unlabelled texts that also occur in another split, compared on
    letters and digits, are dropped, and so are their repetitions.

    `task.json`: `name`, `labels` (name to describing text, in order), `pair`, `shots`, `rows` (by split), and
    `train_rows_in_test`, the training rows whose text is in the test split too (they are kept, as
    data sets have them; nobody should be surprised by them).

    Raises:
        InvalidData: see `offline.tasks.examples.read_split`; or the train split has one label only, or
            fewer than two examples of a label, or the test split is also given as another split.
    """
    data, labels = config.data, list(config.labels)
    directory = data.directory or Path()
    _test_is_apart(data)

    def read(source: str, split: str, named: list[str] | None) -> pa.Table:
        return read_split(source, directory, config.fields, split=split, labels=named)

    everything = read(data.train, "train", labels)
    test = read(data.test, "test", labels)
    validation = (
        read(data.validation, "validation", labels) if data.validation else SCHEMA.empty_table()
    )
    unlabelled = (
        read(data.unlabelled, "unlabelled", None) if data.unlabelled else SCHEMA.empty_table()
    )
    _every_label_has_examples(everything, labels, data.train)

    train = everything
    if config.shots is not None:
        rows = few_shot_rows(everything["label"].to_pylist(), config.shots, context.seed)
        train = everything.take(rows)
        if config.leftover == "unlabelled":
            kept = set(rows)
            rest = everything.take([row for row in range(everything.num_rows) if row not in kept])
            unlabelled = pa.concat_tables([unlabelled, _without_labels(rest)])
    unlabelled, dropped = _drop_seen(unlabelled, pa.concat_tables([test, validation, train]))

    splits = {
        "train": train,
        "validation": validation,
        "test": test,
        "unlabelled": unlabelled,
        "judge": pa.concat_tables([everything, validation]),
    }
    for name, table in splits.items():
        write_examples(table, context.directory / f"{name}.parquet")
    in_test = set(_forms(test))
    counts = {name: table.num_rows for name, table in splits.items()}
    description = {
        "name": config.name,
        "labels": config.labels,
        "pair": config.pair,
        "shots": config.shots,
        "rows": counts,
        "train_rows_in_test": sum(form in in_test for form in _forms(train)),
    }
    (context.directory / "task.json").write_text(
        json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return {
        **counts,
        "unlabelled_dropped": dropped,
        "train_rows_in_test": description["train_rows_in_test"],
        "labels": len(labels),
    }


def _test_is_apart(data: DataConfig) -> None:
    for split in ("train", "validation", "unlabelled"):
        if getattr(data, split) == data.test:
            raise InvalidData(
                f"The {split} split and the test split are the same ({data.test}).",
                hint="Nothing may be fitted on the test split. Where the only held-out file is called"
                " validation, name it under task.data.test alone.",
            )


def _every_label_has_examples(train: pa.Table, labels: list[str], source: str) -> None:
    counts = Counter(train["label"].to_pylist())
    if len(counts) < 2:
        raise InvalidData(
            f"The train split ({source}) holds one label only ({next(iter(counts))!r}).",
            hint="A classifier needs examples of at least two.",
        )
    missing = [label for label in labels if counts[label] < 2]
    if missing:
        raise InvalidData(
            f"The train split ({source}) holds fewer than two examples of"
            f" {', '.join(map(repr, missing[:5]))}{' …' if len(missing) > 5 else ''}.",
            hint="Add examples, or take the label out of task.labels.",
        )


def _without_labels(table: pa.Table) -> pa.Table:
    position = table.schema.get_field_index("label")
    return table.set_column(position, SCHEMA.field("label"), pa.nulls(table.num_rows, pa.string()))


def _drop_seen(table: pa.Table, seen: pa.Table) -> tuple[pa.Table, int]:
    """The rows whose text is not in `seen`, each once, and how many others there were."""
    forms = set(_forms(seen))
    kept: dict[str, int] = {}
    for row, form in enumerate(_forms(table)):
        if form not in forms:
            kept.setdefault(form, row)
    return table.take(pa.array(sorted(kept.values()), pa.int64())), table.num_rows - len(kept)


def _forms(table: pa.Table) -> list[str]:
    texts, pairs = table["text"].to_pylist(), table["text_pair"].to_pylist()
    return [letters_and_digits(text, pair) for text, pair in zip(texts, pairs, strict=True)]

"""Stage `prepare`: read, check and split the task's examples."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from offline.pipeline.stage import StageContext
from offline.tasks.config import TaskConfig
from offline.tasks.examples import SCHEMA, read_split, write_examples
from offline.tasks.few_shot import few_shot_rows
from offline.tasks.held_out import check_sources, forms, rows_outside, without_test_rows
from services.platform.errors import InvalidData

log = structlog.get_logger(__name__)


def run(inputs: Mapping[str, Path], config: TaskConfig, context: StageContext) -> dict[str, Any]:
    """Write `train`, `validation`, `test`, `unlabelled` and `judge` (`.parquet`) and `task.json`.

    `train` holds the labelled rows of the run (a few-shot subset where `shots` is set). `judge` holds all
    labelled training rows, and the validation rows where there are any, for measurement alone.
    `validation` is there only where it is another split than the test split, so whatever finds
    rows in it may fit on them.

    Whatever is not the test split holds no text of the test split (see `offline.tasks.held_out`):
    labelled rows with one are left out of `train`, `validation` and `judge`, and told. A few-shot subset
    draws the next row of the class in their place. Unlabelled texts that also occur in another
    split are dropped, and so are their repetitions.

    `task.json`: `name`, `labels` (name to describing text, in order), `pair`, `shots`, `rows` (by split), and
    `in_test`, how many rows of the train and validation split were left out because the test split has their text.

    Raises:
        InvalidData: see `offline.tasks.examples.read_split`; or the train split has one label only, or
            fewer than two examples of a label outside of the test split; or the test split is also
            given as another split.
    """
    data, labels = config.data, list(config.labels)
    directory = data.directory or Path()
    check_sources(data)

    def read(source: str, split: str, named: list[str] | None) -> pa.Table:
        return read_split(source, directory, config.fields, split=split, labels=named)

    in_file = read(data.train, "train", labels)
    test = read(data.test, "test", labels)
    validation = (
        read(data.validation, "validation", labels) if data.validation else SCHEMA.empty_table()
    )
    unlabelled = (
        read(data.unlabelled, "unlabelled", None) if data.unlabelled else SCHEMA.empty_table()
    )
    _every_label_has_examples(in_file, labels, f"The train split ({data.train}) holds")
    everything, train_in_test = without_test_rows(in_file, test, split="train")
    validation, validation_in_test = without_test_rows(validation, test, split="validation")
    in_test = {"train": train_in_test, "validation": validation_in_test}
    if any(in_test.values()):
        log.warning("test_rows_left_out", **in_test)
        remains = f"Without the texts of the test split, the train split ({data.train}) holds"
        _every_label_has_examples(everything, labels, remains)

    train = everything
    if config.shots is not None:
        allowed = set(rows_outside(in_file, test))
        # Drawn from the file's rows, so that the subset is the one that others draw.
        rows = few_shot_rows(
            in_file["label"].to_pylist(), config.shots, context.seed, allowed=allowed
        )
        train = in_file.take(rows)
        if config.leftover == "unlabelled":
            rest = in_file.take(sorted(allowed - set(rows)))
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
    counts = {name: table.num_rows for name, table in splits.items()}
    description = {
        "name": config.name,
        "labels": config.labels,
        "pair": config.pair,
        "shots": config.shots,
        "rows": counts,
        "in_test": in_test,
    }
    (context.directory / "task.json").write_text(
        json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return {
        **counts,
        "unlabelled_dropped": dropped,
        **{f"{split}_in_test": count for split, count in in_test.items()},
        "labels": len(labels),
    }


def _every_label_has_examples(train: pa.Table, labels: list[str], said: str) -> None:
    counts = Counter(train["label"].to_pylist())
    if len(counts) < 2:
        raise InvalidData(
            f"{said} one label only ({next(iter(counts))!r}).",
            hint="A classifier needs examples of at least two.",
        )
    missing = [label for label in labels if counts[label] < 2]
    if missing:
        raise InvalidData(
            f"{said} fewer than two examples of"
            f" {', '.join(map(repr, missing[:5]))}{' …' if len(missing) > 5 else ''}.",
            hint="Add examples, or take the label out of task.labels.",
        )


def _without_labels(table: pa.Table) -> pa.Table:
    position = table.schema.get_field_index("label")
    return table.set_column(position, SCHEMA.field("label"), pa.nulls(table.num_rows, pa.string()))


def _drop_seen(table: pa.Table, seen: pa.Table) -> tuple[pa.Table, int]:
    """The rows whose text is not in `seen`, each once, and how many others there were."""
    found = forms(table)
    kept: dict[str, int] = {}
    for row in rows_outside(table, seen):
        kept.setdefault(found[row], row)
    return table.take(pa.array(sorted(kept.values()), pa.int64())), table.num_rows - len(kept)

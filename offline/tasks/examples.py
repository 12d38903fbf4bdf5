"""Reading a task's examples from files and checking every row of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from offline.tasks.config import FieldsConfig
from services.platform.errors import InvalidData

SCHEMA = pa.schema([("text", pa.string()), ("text_pair", pa.string()), ("label", pa.string())])


def read_split(
    source: str,
    directory: Path,
    fields: FieldsConfig,
    *,
    split: str,
    labels: list[str] | None,
) -> pa.Table:
    """The examples of one split as a table of `text`, `text_pair`, `label`.

    Args:
        source: a file below `directory`, or `hf:NAME[/CONFIG]@SPLIT`.
        directory: what relative paths start from.
        fields: names of the columns.
        split: name of the split, for messages.
        labels: the labels of the task; None for unlabelled texts, whose label column stays null.

    Raises:
        InvalidData: the file is missing or empty, a row lacks a field or has one of a wrong type, a
            text is empty, or a label is not one of `labels`. The message names file and row.
    """
    rows: list[tuple[str, str | None, str | None]] = []
    for where, row in _rows(source, directory, split):
        rows.append(_example(row, fields, labels, f"{split} split, {where}"))
    if not rows:
        raise InvalidData(
            f"The {split} split ({source}) is empty.", hint="It needs at least one row."
        )
    return pa.table(
        dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)), SCHEMA
    )


def read_items(
    path: Path, fields: FieldsConfig
) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Rows of a file whose labels may be any, or none: where it stands, text, second text, label.

    Raises:
        InvalidData: as `read_split`, but for the labels.
    """
    if not path.is_file():
        raise InvalidData(f"The file {path} does not exist.", hint="Name one with rows to add.")
    for where, row in _rows(str(path), Path(), "added"):
        text, pair, _ = _example(row, fields, None, where)
        label = row.get(fields.label)
        if isinstance(label, bool):
            label = str(label).lower()
        yield where, text, pair, None if label is None else str(label)


def write_examples(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def read_examples(path: Path) -> pa.Table:
    """A table that `write_examples` wrote."""
    return pq.read_table(path, schema=SCHEMA)


def _example(
    row: dict[str, Any], fields: FieldsConfig, labels: list[str] | None, where: str
) -> tuple[str, str | None, str | None]:
    text = _text(row, fields.text, where)
    pair = _text(row, fields.text_pair, where) if fields.text_pair else None
    if labels is None:
        return text, pair, None
    if row.get(fields.label) is None:
        raise InvalidData(f"{where}: the field {fields.label!r} is missing.")
    label = row[fields.label]
    if isinstance(label, bool):
        label = str(label).lower()
    if str(label) not in labels:
        raise InvalidData(
            f"{where}: the label {label!r} is none of the task's labels.",
            hint=f"Name it under task.labels; there are {', '.join(labels[:8])}"
            + (" …" if len(labels) > 8 else "."),
        )
    return text, pair, str(label)


def _text(row: dict[str, Any], name: str, where: str) -> str:
    if name not in row:
        raise InvalidData(
            f"{where}: the field {name!r} is missing.",
            hint=f"The row has {', '.join(map(repr, row)) or 'no field'}; name yours under task.fields.",
        )
    value = row[name]
    if not isinstance(value, str):
        raise InvalidData(f"{where}: the field {name!r} is {value!r}, expected a text.")
    if not value.strip():
        raise InvalidData(f"{where}: the field {name!r} is empty.")
    return value.strip()


def _rows(source: str, directory: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if source.startswith("hf:"):
        yield from _hub_rows(source, directory, split)
        return
    path = directory / Path(source).expanduser()
    if not path.is_file():
        raise InvalidData(
            f"The {split} split's file {path} does not exist.",
            hint="Paths are relative to task.data.directory, or to the configuration file.",
        )
    match path.suffix:
        case ".jsonl" | ".json":
            yield from _json_lines(path)
        case ".csv" | ".parquet":
            yield from _library_rows(path)
        case suffix:
            raise InvalidData(
                f"The {split} split's file {path} ends in {suffix!r}.",
                hint="Expected .jsonl, .csv or .parquet.",
            )


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise InvalidData(f"{path} line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise InvalidData(f"{path} line {number} is not a JSON object.")
            yield f"{path.name} line {number}", row


def _library_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets  # takes a second to import, and JSON lines do without

    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_csv if path.suffix == ".csv" else datasets.Dataset.from_parquet
        table = rows(str(path), keep_in_memory=True)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        raise InvalidData(f"{path} cannot be read: {error.__cause__ or error}.") from error
    for number, row in enumerate(table, start=1):
        yield f"{path.name} row {number}", row


def _hub_rows(source: str, directory: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        name, config, part = data_set_of(source, directory)
    except ValueError as error:
        raise InvalidData(
            f"The {split} split {source!r} does not say which data set.",
            hint="Expected hf:NAME[/CONFIG]@SPLIT, for example hf:fancyzhx/ag_news@train.",
        ) from error
    # A hub that is away should be told within seconds, not after five rounds of back-off.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    import datasets

    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(name, config, split=part)
    except Exception as error:
        raise InvalidData(
            f"The data set {source!r} cannot be loaded: {error}.",
            hint="Where the hub is away, save the data as JSON lines and name the file.",
        ) from error
    features = table.features
    for number, row in enumerate(table, start=1):
        named = {
            key: features[key].int2str(value)
            if isinstance(features[key], datasets.ClassLabel) and isinstance(value, int)
            else value
            for key, value in row.items()
        }
        yield f"{source} row {number}", named


def data_set_of(source: str, directory: Path) -> tuple[str, str | None, str]:
    """Name, configuration and split of `hf:NAME[/CONFIG]@SPLIT`.

    The name is the path of a directory where there is one of that name, below `directory` or not.

    Raises:
        ValueError: it is not of that form.
    """
    named, _, part = source.removeprefix("hf:").partition("@")
    if not named or not part:
        raise ValueError(source)
    local = directory / Path(named).expanduser()
    if local.is_dir():
        return str(local), None, part
    parts = named.split("/")
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else None, part

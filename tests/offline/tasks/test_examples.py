"""Rows that cannot be used are refused by file and line; every way of naming a file reads the same rows."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offline.tasks.config import FieldsConfig
from offline.tasks.examples import read_examples, read_split, write_examples
from services.platform.errors import InvalidData

ROWS = [{"text": "it is broken", "label": "a"}, {"text": "it works", "label": "b"}]


def write_lines(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def read(tmp_path: Path, source: str, **changes: object) -> pa.Table:
    options = {"fields": FieldsConfig(), "split": "train", "labels": ["a", "b"], **changes}
    return read_split(source, tmp_path, **options)  # type: ignore[arg-type]


def test_json_lines_csv_and_parquet_read_the_same(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", list(ROWS))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    tables = [read(tmp_path, f"rows.{suffix}") for suffix in ("jsonl", "csv", "parquet")]
    assert tables[0].to_pylist()[0] == {"text": "it is broken", "text_pair": None, "label": "a"}
    assert tables[0] == tables[1] == tables[2]
    write_examples(tables[0], tmp_path / "kept.parquet")
    assert read_examples(tmp_path / "kept.parquet") == tables[0]


def test_pairs_read_both_texts(tmp_path: Path) -> None:
    name = write_lines(tmp_path / "p.jsonl", [{"premise": "x y", "claim": "x", "label": True}])
    fields = FieldsConfig(text="premise", text_pair="claim")
    table = read(tmp_path, name, fields=fields, labels=["true", "false"])
    assert table.to_pylist() == [{"text": "x y", "text_pair": "x", "label": "true"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x", "label": "c"}, r"rows.jsonl line 2: the label 'c' is none of the task's"),
        ({"text": "  ", "label": "a"}, r"line 2: the field 'text' is empty"),
        ({"text": 3, "label": "a"}, r"line 2: the field 'text' is 3, expected a text"),
        ({"body": "x", "label": "a"}, r"line 2: the field 'text' is missing.*'body'"),
        ({"text": "x"}, r"line 2: the field 'label' is missing"),
        ([1], r"line 2 is not a JSON object"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    name = write_lines(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(InvalidData, match=message):
        read(tmp_path, name)


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "x", "label": "a"}\n{"text"\n')
    with pytest.raises(InvalidData, match="line 2 is not JSON"):
        read(tmp_path, "rows.jsonl")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(InvalidData, match="train split .* is empty"):
        read(tmp_path, "rows.jsonl")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.jsonl", "does not exist"),
        ("rows.xlsx", r"ends in '\.xlsx'"),
        ("hf:nothing", "does not say which data set"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "rows.xlsx").write_text("x")
    with pytest.raises(InvalidData, match=message):
        read(tmp_path, source)


def test_a_hub_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidData, match="save the data as JSON lines"):
        read(tmp_path, "hf:someone/nothing@train")


def test_unlabelled_texts_need_no_label(tmp_path: Path) -> None:
    name = write_lines(tmp_path / "rows.jsonl", [{"text": "x"}])
    assert read(tmp_path, name, labels=None)["label"].to_pylist() == [None]

"""The knowledge file gives back what was written, the same bytes for the same rows, and is never read damaged."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from knowledge_samples import FINGERPRINT, LABELS, sample_knowledge, unit_vectors, write_sample

from services.platform.errors import CorruptArtifact, InvalidData
from services.platform.file_hash import hash_file
from services.store.knowledge_file import (
    Knowledge,
    iterate_points,
    read_knowledge,
    read_knowledge_metadata,
    version_manifest,
    write_knowledge,
)


def test_what_is_written_is_read_with_and_without_vectors(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.parquet"
    written = sample_knowledge(50, pair=True)
    write_knowledge(path, written)
    read = read_knowledge(path)
    assert len(read) == 50
    assert read.metadata.labels == LABELS
    assert read.metadata.encoder_fingerprint is None
    assert read.table["text_pair"][7].as_py() == "pair 7"
    assert read.table["quality"][0].as_py() == [("confidence", 0.5)]
    np.testing.assert_array_equal(read.soft_labels, written.soft_labels)
    with pytest.raises(InvalidData, match="no vectors yet"):
        _ = read.vectors
    vectors = unit_vectors(50)
    write_knowledge(path, read.with_vectors(vectors, FINGERPRINT))
    again = read_knowledge(path)
    np.testing.assert_array_equal(again.vectors, vectors)
    assert read_knowledge_metadata(path).encoder_fingerprint == FINGERPRINT


def test_the_same_rows_give_the_same_bytes_and_the_same_version(tmp_path: Path) -> None:
    first, second = write_sample(tmp_path / "a"), write_sample(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    manifest = version_manifest(first)
    assert manifest == version_manifest(second)
    assert manifest.version == f"v-{hash_file(first)[:12]}"
    assert (manifest.count, manifest.dimensions, manifest.labels) == (200, 16, LABELS)
    other = version_manifest(write_sample(tmp_path / "c", seed=1))
    assert other.version != manifest.version
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_points_come_in_batches_in_the_order_of_their_ids(tmp_path: Path) -> None:
    batches = list(iterate_points(write_sample(tmp_path / "k", 200), batch_size=64))
    assert [len(batch.ids) for batch in batches] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate([b.ids for b in batches]), np.arange(200))
    np.testing.assert_array_equal(np.concatenate([b.vectors for b in batches]), unit_vectors(200))
    assert batches[3].payloads[-1] == {
        "text": "text 199 – ünïcode",
        "text_pair": None,
        "label": None,
        "origin": "generated",
    }


def broken_rows(column: str, values: list[object]) -> Knowledge:
    knowledge = sample_knowledge(3)
    table = knowledge.table
    index = table.column_names.index(column)
    field = table.schema.field(column)
    return Knowledge(
        knowledge.metadata, table.set_column(index, field, [pa.array(values, field.type)])
    )


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", [0, 2, 1], "not 0, 1, 2"),
        ("origin", ["train", "heaven", "train"], "origin 'heaven' is unknown"),
        ("label", ["refund", "fax", None], "label 'fax' is none"),
        ("soft_label", [[1, 0, 0], [0.5, 0.2, 0], [1, 0, 0]], "item 1 is no probability"),
        ("soft_label", [[1, 0, 0], [1, 0, 0], [float("nan"), 0, 1]], "item 2 is no probability"),
    ],
)
def test_rows_that_no_knowledge_file_may_hold_are_not_written(
    tmp_path: Path, column: str, values: list[object], message: str
) -> None:
    with pytest.raises(InvalidData, match=message):
        write_knowledge(tmp_path / "k", broken_rows(column, values))
    assert list(tmp_path.iterdir()) == []


def test_missing_columns_and_long_vectors_are_not_written(tmp_path: Path) -> None:
    knowledge = sample_knowledge(3)
    without = Knowledge(knowledge.metadata, knowledge.table.drop_columns(["soft_label"]))
    with pytest.raises(InvalidData, match="no column 'soft_label'"):
        write_knowledge(tmp_path / "k", without)
    long = knowledge.with_vectors(unit_vectors(3) * 2, FINGERPRINT)
    with pytest.raises(InvalidData, match="vector of item 0 is not of unit length"):
        write_knowledge(tmp_path / "k", long)


def read_all(path: Path) -> None:
    version_manifest(path)
    for _ in iterate_points(path):
        pass


@pytest.mark.parametrize("read", [read_knowledge, read_all])
def test_a_truncated_file_is_corrupt_wherever_it_ends(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    content = write_sample(tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    for length in (0, 3, 4, 11, len(content) // 2, len(content) - 9, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptArtifact, match="truncated or damaged"):
            read(path)


def test_damaged_pages_are_seen_by_their_checksums(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "k")
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0)
    places = random.Random(0)
    for index in range(column.num_columns):
        chunk = column.column(index)
        # The last bytes of a column chunk are its data; the first may be a header that nobody reads.
        at = chunk.data_page_offset + chunk.total_compressed_size - places.randrange(1, 4)
        at = min(
            at,
            (chunk.dictionary_page_offset or chunk.data_page_offset)
            + chunk.total_compressed_size
            - 1,
        )
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtifact, match="truncated or damaged"):
            read_knowledge(path)


def test_missing_foreign_and_vectorless_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="is missing"):
        read_knowledge(tmp_path / "absent")
    foreign = tmp_path / "foreign"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(CorruptArtifact, match="no knowledge file"):
        read_knowledge(foreign)
    newer = tmp_path / "newer"
    metadata = {"retrikt": '{"task":"t","labels":["a"],"format":2}'}
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), newer)
    with pytest.raises(CorruptArtifact, match="newer version of RetriKT"):
        read_knowledge(newer)
    other = tmp_path / "other"
    metadata = {"retrikt": '{"task":"t","labels":["a"],"format":1}'}
    pq.write_table(pa.table({"id": ["x"]}).replace_schema_metadata(metadata), other)
    with pytest.raises(CorruptArtifact, match="column 'id' of .* is of type string"):
        read_knowledge(other)
    plain = tmp_path / "plain"
    write_knowledge(plain, sample_knowledge(5))
    with pytest.raises(CorruptArtifact, match="no vectors"):
        version_manifest(plain)
    with pytest.raises(CorruptArtifact, match="no vectors"):
        list(iterate_points(plain))

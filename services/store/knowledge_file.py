"""The knowledge file: one Parquet row a knowledge item; the source of truth of a store version.

Row number = `id` = point id = row of the soft-label matrix. Pages carry checksums, so that a damaged
file is seen when it is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact, InvalidData
from services.platform.file_hash import hash_file
from services.store.backends.base import HnswParameters, ItemCounts, PointBatch, VersionManifest
from services.store.knowledge_schema import (
    METADATA_KEY,
    KnowledgeMetadata,
    check_rows,
    fixed_lists,
    knowledge_schema,
    list_matrix,
)

__all__ = [
    "Knowledge",
    "KnowledgeMetadata",
    "fixed_lists",
    "iterate_points",
    "knowledge_schema",
    "read_knowledge",
    "read_knowledge_metadata",
    "version_manifest",
    "write_knowledge",
]

PAYLOAD = ("text", "text_pair", "label", "origin")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A knowledge file in memory.

    Attributes:
        metadata: task, labels, pair, encoder.
        table: the rows, in the order of `id`; see `knowledge_schema` for its columns.
    """

    metadata: KnowledgeMetadata
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def soft_labels(self) -> NDArray[np.float32]:
        """float32 (items, labels)."""
        return list_matrix(self.table["soft_label"])

    @property
    def vectors(self) -> NDArray[np.float32]:
        """float32 (items, d). Raises InvalidData before the index stage has added them."""
        if "vector" not in self.table.column_names:
            raise InvalidData(
                "The knowledge file has no vectors yet.", hint="The index stage adds them."
            )
        return list_matrix(self.table["vector"])

    def with_vectors(
        self,
        vectors: NDArray[np.float32],
        encoder_fingerprint: str,
        hnsw: HnswParameters | None = None,
    ) -> "Knowledge":
        """The same rows with the query vectors (items, d) of the encoder of that fingerprint.

        Args:
            hnsw: of the store version that is built from them.
        """
        table = self.table
        if "vector" in table.column_names:
            table = table.drop_columns(["vector"])
        column = fixed_lists(np.ascontiguousarray(vectors, dtype=np.float32))
        metadata = self.metadata.model_copy(
            update={"encoder_fingerprint": encoder_fingerprint, "hnsw": hnsw}
        )
        return replace(self, metadata=metadata, table=table.append_column("vector", column))


def write_knowledge(path: Path, knowledge: Knowledge) -> str:
    """Write a knowledge file: aside, flushed to the disk, renamed. The same rows give the same bytes.

    Columns may be in any order and absent nullable columns are filled with nulls.

    Returns:
        SHA-256 of the file.

    Raises:
        InvalidData: a column is missing or of another type, ids are not 0, 1, 2, …, an origin is
            unknown, or a soft label is no probability distribution over the labels.
    """
    table = _conform(knowledge)
    check_rows(table, knowledge.metadata)
    with replacing(path) as file:
        pq.write_table(
            table, file, compression="zstd", write_page_checksum=True, row_group_size=65_536
        )
    return hash_file(path)


def read_knowledge(path: Path) -> Knowledge:
    """The whole file. Raises CorruptArtifact: missing, truncated, damaged or foreign."""
    with _opened(path) as (file, metadata):
        table = file.read()
        _check_ids(table["id"], 0, path)
        return Knowledge(metadata, table.combine_chunks())


def read_knowledge_metadata(path: Path) -> KnowledgeMetadata:
    """The metadata alone. Raises CorruptArtifact as `read_knowledge` does."""
    with _opened(path) as (_, metadata):
        return metadata


def iterate_points(path: Path, batch_size: int = 1024) -> Iterator[PointBatch]:
    """The file's points in batches, so that a large file never lies in memory as a whole.

    Raises:
        CorruptArtifact: missing, truncated, damaged or foreign, or without vectors.
    """
    with _opened(path) as (file, _):
        if "vector" not in file.schema_arrow.names:
            raise CorruptArtifact(
                f"The knowledge file {path} has no vectors.",
                hint="A store version is built from the file that the index stage wrote.",
            )
        start = 0
        for batch in file.iter_batches(batch_size, columns=["id", *PAYLOAD, "vector"]):
            _check_ids(batch["id"], start, path)
            start += batch.num_rows
            yield PointBatch(
                ids=batch["id"].to_numpy(),
                vectors=list_matrix(batch["vector"]),
                payloads=batch.select(PAYLOAD).to_pylist(),
            )


def version_manifest(path: Path) -> VersionManifest:
    """The manifest of the store version that is built from a knowledge file.

    The version's name is `v-` and 12 hex digits of the file's hash: the same file gives the same
    version, its graph's parameters included.

    Raises:
        CorruptArtifact: missing, truncated, damaged or foreign, empty, or without vectors.
    """
    with _opened(path) as (file, metadata):
        schema, count = file.schema_arrow, file.metadata.num_rows
        counts = _item_counts(file)
    if "vector" not in schema.names or metadata.encoder_fingerprint is None or count == 0:
        raise CorruptArtifact(
            f"The knowledge file {path} has no vectors, no items or no encoder fingerprint.",
            hint="A store version is built from the file that the index stage wrote.",
        )
    digest = hash_file(path)
    return VersionManifest(
        task=metadata.task,
        version=f"v-{digest[:12]}",
        encoder_fingerprint=metadata.encoder_fingerprint,
        labels=metadata.labels,
        pair=metadata.pair,
        dimensions=schema.field("vector").type.list_size,
        count=count,
        knowledge_sha256=digest,
        hnsw=metadata.hnsw or HnswParameters(),
        counts=counts,
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, KnowledgeMetadata]]:
    hint = "Restore it from its release, or run the pipeline again."
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if raw is None:
                raise CorruptArtifact(
                    f"{path} is a Parquet file but no knowledge file.",
                    hint="Expected schema metadata under the key 'retrikt'.",
                )
            metadata = KnowledgeMetadata.model_validate_json(raw)
            _check_schema(file.schema_arrow, metadata, path)
            yield file, metadata
    except FileNotFoundError as error:
        raise CorruptArtifact(f"The knowledge file {path} is missing.", hint=hint) from error
    except ValidationError as error:
        raise CorruptArtifact(
            f"The metadata of the knowledge file {path} cannot be read: {error.errors()[0]['msg']}.",
            hint="It may have been written by a newer version of RetriKT.",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(
            f"The knowledge file {path} is truncated or damaged: {error}.", hint=hint
        ) from error


def _item_counts(file: pq.ParquetFile) -> ItemCounts:
    columns = file.read(columns=["label", "origin"])
    by: dict[str, dict[Any, int]] = {}
    for name in ("label", "origin"):
        found = columns[name].value_counts().to_pylist()
        by[name] = {entry["values"]: entry["counts"] for entry in found}
    unlabelled = by["label"].pop(None, 0)
    return ItemCounts(
        labels=dict(sorted(by["label"].items())),
        unlabelled=unlabelled,
        origins=dict(sorted(by["origin"].items())),
    )


def _check_schema(schema: pa.Schema, metadata: KnowledgeMetadata, path: Path) -> None:
    dimensions = None
    if "vector" in schema.names:
        dimensions = getattr(schema.field("vector").type, "list_size", -1)
    expected = knowledge_schema(metadata, dimensions if dimensions != -1 else 0)
    for field in expected:
        index = schema.get_field_index(field.name)
        if index < 0 or schema.field(index).type != field.type:
            found = "missing" if index < 0 else f"of type {schema.field(index).type}"
            raise CorruptArtifact(
                f"The column {field.name!r} of {path} is {found}, expected {field.type}."
            )


def _conform(knowledge: Knowledge) -> pa.Table:
    table = knowledge.table
    dimensions = None
    if "vector" in table.column_names:
        dimensions = table.schema.field("vector").type.list_size
    schema = knowledge_schema(knowledge.metadata, dimensions)
    columns: list[Any] = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name])
        elif field.nullable:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            raise InvalidData(f"The knowledge has no column {field.name!r}, {field.type}.")
    try:
        return pa.table(columns, names=schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidData(
            f"The knowledge's columns have other types than told: {error}."
        ) from error


def _check_ids(column: Any, start: int, path: Path) -> None:
    if not np.array_equal(column.to_numpy(), np.arange(start, start + len(column))):
        raise CorruptArtifact(f"The ids of {path} are not 0, 1, 2, … in order.")

"""Columns of the knowledge file: their types, what their rows must be, and what they have in common."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from services.platform.errors import InvalidData
from services.store.backends.base import HnswParameters

METADATA_KEY = b"retrikt"
ORIGINS = ("generated", "train", "unlabelled", "manual")


class KnowledgeMetadata(BaseModel):
    """What the whole file has in common; travels in the Parquet schema under the key `retrikt`.

    Attributes:
        task: name of the task.
        labels: in the order of the soft labels.
        pair: whether the items are pairs of texts.
        encoder_fingerprint: identity of the encoder that wrote the vectors; None before there are any.
        hnsw: parameters of the graph that the file's store version is built with; None for the
            default ones. They are here so that every build of the file makes the same version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    labels: tuple[str, ...]
    pair: bool = False
    encoder_fingerprint: str | None = None
    hnsw: HnswParameters | None = None


def knowledge_schema(metadata: KnowledgeMetadata, dimensions: int | None) -> pa.Schema:
    """Columns and types; without `vector` when `dimensions` is None."""
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_pair", pa.string()),
        pa.field("label", pa.string()),
        pa.field("soft_label", pa.list_(pa.float32(), len(metadata.labels)), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("generator", pa.string()),
        pa.field("labeller", pa.string()),
        pa.field("quality", pa.map_(pa.string(), pa.float32())),
    ]
    if dimensions is not None:
        fields.append(pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False))
    return pa.schema(fields, metadata={METADATA_KEY: metadata.model_dump_json().encode()})


def fixed_lists(matrix: NDArray[np.float32]) -> pa.Array:
    """A matrix (n, d) as an Arrow column of n lists of length d."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def check_rows(table: pa.Table, metadata: KnowledgeMetadata) -> None:
    """Raises InvalidData at the first row that no knowledge file may hold."""
    count = table.num_rows
    if not np.array_equal(table["id"].to_numpy(), np.arange(count)):
        raise InvalidData("The ids of the knowledge items are not 0, 1, 2, … in order.")
    unknown = set(table["origin"].unique().to_pylist()) - set(ORIGINS)
    if unknown:
        raise InvalidData(
            f"The origin {sorted(unknown)[0]!r} is unknown.", hint=f"Expected {', '.join(ORIGINS)}."
        )
    named = set(table["label"].unique().to_pylist()) - {None, *metadata.labels}
    if named:
        raise InvalidData(f"The label {sorted(named)[0]!r} is none of the file's labels.")
    soft = list_matrix(table["soft_label"])
    bad = ~((soft >= 0).all(axis=1) & (np.abs(soft.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise InvalidData(
            f"The soft label of item {int(np.argmax(bad))} is no probability distribution."
        )
    if "vector" in table.column_names:
        vectors = list_matrix(table["vector"])
        bad = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-2)
        if bad.any():
            raise InvalidData(f"The vector of item {int(np.argmax(bad))} is not of unit length.")


def list_matrix(column: Any) -> NDArray[np.float32]:
    """A column of equally long lists as a matrix (n, d)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    width = column.type.list_size
    flat: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width)

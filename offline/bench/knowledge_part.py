"""Some items of a knowledge stage, laid out as that stage lays all of them out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.store.knowledge import EMBEDDINGS
from services.store.knowledge_file import Knowledge, read_knowledge, write_knowledge

KNOWLEDGE = "knowledge.parquet"


def write_part(source: Path, rows: NDArray[np.int64], directory: Path) -> None:
    """Write the knowledge file of `source` and its items' embeddings into `directory`, `rows` alone.

    Args:
        source: directory of the stage `knowledge`.
        rows: (n,) which items, ascending; they are numbered anew.
        directory: an existing, empty directory.

    Raises:
        CorruptArtifact: the knowledge file is damaged.
        InvalidData: no row is asked for.
    """
    knowledge = read_knowledge(source / KNOWLEDGE)
    table = knowledge.table.take(pa.array(rows)).set_column(
        knowledge.table.schema.get_field_index("id"),
        "id",
        pa.array(np.arange(len(rows), dtype=np.int64)),
    )
    write_knowledge(directory / KNOWLEDGE, Knowledge(knowledge.metadata, table))
    embeddings = np.load(source / EMBEDDINGS, allow_pickle=False)
    np.save(directory / EMBEDDINGS, embeddings[rows], allow_pickle=False)


def origins(source: Path) -> NDArray[np.str_]:
    """(items,): where each item comes from."""
    return np.array(read_knowledge(source / KNOWLEDGE).table["origin"].to_pylist())

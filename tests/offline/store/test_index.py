"""A candidate's knowledge file says all that its store version is built from, the graph's parameters included."""

import sys
from pathlib import Path

import pyarrow as pa

from offline.store.index import write_candidate
from services.releases.manifest import ReleaseManifest, check_release
from services.store.backends.base import HnswParameters
from services.store.knowledge_file import read_knowledge, version_manifest, write_knowledge

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_release import DIMENSIONS, write_release


def candidate(tmp_path: Path, name: str, hnsw: HnswParameters) -> ReleaseManifest:
    directory = tmp_path / name
    directory.mkdir()
    return write_candidate(
        tmp_path / "plain.parquet", tmp_path / "made" / "bundle", directory, hnsw, lambda *_: None
    )


def without_vectors(tmp_path: Path) -> pa.Table:
    write_release(tmp_path / "made")
    knowledge = read_knowledge(tmp_path / "made" / "knowledge.parquet")
    plain = type(knowledge)(
        knowledge.metadata.model_copy(update={"encoder_fingerprint": None}),
        knowledge.table.drop_columns(["vector"]),
    )
    write_knowledge(tmp_path / "plain.parquet", plain)
    return knowledge.table


def test_every_item_gets_its_vector_and_other_graphs_make_other_versions(tmp_path: Path) -> None:
    expected = without_vectors(tmp_path)
    plain = candidate(tmp_path, "a", HnswParameters())
    other = candidate(tmp_path, "b", HnswParameters(m=8))
    again = candidate(tmp_path, "c", HnswParameters(m=8))
    assert check_release(tmp_path / "a") == plain
    found = read_knowledge(tmp_path / "a" / "knowledge.parquet")
    assert found.vectors.shape == (len(expected), DIMENSIONS)
    assert plain.store_version != other.store_version == again.store_version
    assert plain.release != other.release == again.release
    assert version_manifest(tmp_path / "b" / "knowledge.parquet").hnsw.m == 8

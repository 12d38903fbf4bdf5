"""A layout reaches the engine, is searched as it must be, and changes nothing of what a version is.

The server here is a stand-in, see `qdrant_stand_in.py`: it keeps what it was told, and compares with every point.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from knowledge_samples import unit_vectors, write_sample
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_stand_in import StandIn

from services.platform.errors import CorruptArtifact
from services.store.backends.base import HnswParameters, VersionManifest
from services.store.backends.edge import LAYOUT, EdgeBackend
from services.store.backends.layout import Layout, Quantisation
from services.store.backends.sealed import SUMS, write_sums
from services.store.backends.server import ServerBackend
from services.store.knowledge_file import iterate_points, version_manifest

SCALAR = Layout(
    vectors_on_disk=True,
    graph_on_disk=True,
    quantisation=Quantisation(kind="scalar", oversampling=3.0),
)
BINARY = Layout(quantisation=Quantisation(kind="binary", rescore=False))
SPREAD = SCALAR.model_copy(update={"shards": 6, "replicas": 2, "write_consistency": 2})
COUNT = 3000


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than the engine scans, so that there is a graph and something to compress."""
    graph = HnswParameters(full_scan_threshold_kb=10)
    path = tmp_path_factory.mktemp("knowledge") / "k"
    return write_sample(path, COUNT, dimensions=64, hnsw=graph)


def test_edge_compresses_scores_again_and_keeps_the_layout_with_the_version(
    knowledge: Path, tmp_path: Path
) -> None:
    manifest = version_manifest(knowledge)
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private", layout=SCALAR)
    sealed = backend.build(manifest, iterate_points(knowledge))
    assert sealed.model_copy(update={"created_at": None}) == manifest
    queries = unit_vectors(64, 64, seed=5)
    exact = backend.search(manifest.version, queries, 10, exact=True)
    found = backend.search(manifest.version, queries, 10)
    truth = np.sort(queries @ unit_vectors(COUNT, 64).T, axis=1)[:, :-11:-1]
    np.testing.assert_allclose(exact.scores, truth, atol=1e-5)
    # Scored again by the whole vectors: what is found has its exact score.
    products = np.einsum("bkd,bd->bk", unit_vectors(COUNT, 64)[found.ids], queries)
    np.testing.assert_allclose(found.scores, products, atol=1e-5)
    assert np.mean(found.scores >= exact.scores[:, -1:] - 1e-5) > 0.95
    backend.close()
    names = [path.name for path in (tmp_path / "store").rglob("*quantized*")]
    assert names, "nothing was compressed"
    told = tmp_path / "store" / manifest.version / LAYOUT
    assert Layout.model_validate_json(told.read_bytes()) == SCALAR
    # Whoever opens it searches it as it is laid out, whatever they would build themselves.
    other = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    again = other.search(manifest.version, queries, 10)
    np.testing.assert_array_equal(again.ids, found.ids)
    other.close()
    told.write_text('{"quantisation": {"kind": "none"}}')
    (told.parent / SUMS).unlink()
    write_sums(told.parent)
    other = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    with pytest.raises(CorruptArtifact, match=r"layout\.json cannot be read"):
        other.search(manifest.version, queries, 10)


def test_a_version_without_a_layout_is_sealed_as_ever(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k", 20)
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
    assert not (tmp_path / "store" / version / LAYOUT).exists()
    backend.close()


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def build_on(server: StandIn, tmp_path: Path, layout: Layout | None) -> VersionManifest:
    knowledge = write_sample(tmp_path / "k", 30)
    backend = connect(server, layout)
    sealed = backend.build(version_manifest(knowledge), iterate_points(knowledge))
    backend.close()
    return sealed


def connect(server: StandIn, layout: Layout | None = None) -> ServerBackend:
    return ServerBackend.connect(server.url, "toy", layout=layout)


def asked(server: StandIn, version: str, *, exact: bool = False) -> dict[str, Any]:
    """What a backend that was told of no layout says of the layout when it searches."""
    backend = connect(server)
    backend.search(version, unit_vectors(1, 16), 4, exact=exact)
    backend.close()
    params: dict[str, Any] = server.queries[-1]["params"]
    return params


def test_a_server_is_told_the_whole_layout_and_every_search_how_to_score(
    server: StandIn, tmp_path: Path
) -> None:
    sealed = build_on(server, tmp_path, SPREAD)
    (made,) = server.made.values()
    assert (made["shard_number"], made["replication_factor"]) == (6, 2)
    assert made["write_consistency_factor"] == 2
    assert made["vectors"] == {"size": 16, "distance": "Cosine", "on_disk": True}
    assert made["hnsw_config"]["on_disk"] is True
    scalar = made["quantization_config"]["scalar"]
    assert (scalar["type"], scalar["always_ram"]) == ("int8", True)
    assert asked(server, sealed.version)["quantization"] == {"rescore": True, "oversampling": 3.0}
    assert asked(server, sealed.version, exact=True) == {
        "exact": True,
        "quantization": {"ignore": True},
    }
    # A snapshot that was restored may have lost what was said beside the manifest.
    (told,) = server.metadata.values()
    del told["retrikt_layout"]
    assert asked(server, sealed.version)["quantization"] == {"rescore": True, "oversampling": 2.0}


def test_a_server_that_is_told_of_no_layout_chooses_for_itself(
    server: StandIn, tmp_path: Path
) -> None:
    sealed = build_on(server, tmp_path, None)
    (made,) = server.made.values()
    assert made.get("shard_number") is None
    assert made.get("quantization_config") is None
    assert made["vectors"].get("on_disk") is None
    assert asked(server, sealed.version).get("quantization") is None


def test_binary_copies_without_scoring_again(server: StandIn, tmp_path: Path) -> None:
    sealed = build_on(server, tmp_path, BINARY)
    (made,) = server.made.values()
    assert made["quantization_config"] == {"binary": {"always_ram": True}}
    assert asked(server, sealed.version)["quantization"]["rescore"] is False


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_the_in_memory_mode_takes_every_layout_and_answers_alike(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    answers = []
    for layout in (None, SPREAD, BINARY):
        backend = ServerBackend(QdrantClient(":memory:"), "toy", layout=layout)
        version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
        answers.append(backend.search(version, unit_vectors(9, seed=5), 7).ids)
        backend.close()
    assert all(np.array_equal(found, answers[0]) for found in answers)


def test_a_write_cannot_wait_for_more_copies_than_there_are() -> None:
    with pytest.raises(ValidationError, match="write_consistency is 2, and there are 1 replicas"):
        Layout(write_consistency=2)

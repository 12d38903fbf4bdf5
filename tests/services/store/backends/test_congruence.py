"""The same calls on every backend, answers compared: Edge, the client's in-memory mode, a real server if there is one.

A Qdrant server is part of it whenever QDRANT_URL is set. The in-memory mode has no graph: it is exact.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from knowledge_samples import FINGERPRINT, LABELS, unit_vectors, write_sample
from qdrant_client import QdrantClient

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.base import StoreBackend, VersionManifest
from services.store.backends.edge import EdgeBackend
from services.store.backends.server import ServerBackend
from services.store.knowledge_file import iterate_points, version_manifest

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

TASK = "toy"


def edge(directory: Path) -> StoreBackend:
    return EdgeBackend(directory / "store", private=directory / "private")


def in_memory(_: Path) -> StoreBackend:
    return ServerBackend(QdrantClient(":memory:"), TASK)


def server(_: Path) -> StoreBackend:
    return ServerBackend.connect(os.environ["QDRANT_URL"], TASK)


BACKENDS = {"edge": edge, "in_memory": in_memory}
if os.environ.get("QDRANT_URL"):
    BACKENDS["server"] = server


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreBackend]:
    made = BACKENDS[request.param](tmp_path)
    yield made
    clean(made)


def clean(backend: StoreBackend) -> None:
    for manifest in backend.versions():
        backend.delete(manifest.version)
    backend.close()


def build(backend: StoreBackend, knowledge: Path, batch: int = 70) -> VersionManifest:
    return backend.build(version_manifest(knowledge), iterate_points(knowledge, batch))


def test_all_backends_answer_the_same(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    backends = {name: make(tmp_path / name) for name, make in BACKENDS.items()}
    manifests = {name: build(backend, knowledge) for name, backend in backends.items()}
    version = version_manifest(knowledge).version
    queries = unit_vectors(33, seed=5)
    for k in (1, 7, 200, 210):
        for exact in (False, True):
            expected = brute_force(queries, k)
            for name, backend in backends.items():
                hits = backend.search(version, queries, k, exact=exact)
                assert hits.ids.dtype == np.int64, name
                assert hits.scores.dtype == np.float32, name
                np.testing.assert_array_equal(hits.ids, expected[0], err_msg=name)
                np.testing.assert_allclose(hits.scores, expected[1], atol=1e-5, err_msg=name)
    items = {name: backend.items(version, [199, 0, 3]) for name, backend in backends.items()}
    assert all(found == items["edge"] for found in items.values())
    undated = {name: m.model_copy(update={"created_at": None}) for name, m in manifests.items()}
    assert all(found == version_manifest(knowledge) for found in undated.values())
    for backend in backends.values():
        clean(backend)


def brute_force(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    similarities = queries @ unit_vectors(200).T
    order = np.argsort(-similarities, axis=1)[:, :k]
    scores = np.take_along_axis(similarities, order, axis=1)
    padding = ((0, 0), (0, k - order.shape[1]))
    return (
        np.pad(order, padding, constant_values=-1),
        np.pad(scores, padding, constant_values=-np.inf),
    )


def test_a_built_version_is_listed_described_and_looked_up(
    backend: StoreBackend, tmp_path: Path
) -> None:
    assert backend.versions() == []
    first = build(backend, write_sample(tmp_path / "a"))
    second = build(backend, write_sample(tmp_path / "b", 50, seed=1))
    assert [manifest.version for manifest in backend.versions()] == [first.version, second.version]
    manifest = backend.manifest(first.version)
    assert manifest == first
    assert manifest.created_at is not None
    assert (manifest.count, manifest.dimensions, manifest.labels) == (200, 16, LABELS)
    assert manifest.encoder_fingerprint == FINGERPRINT
    (item,) = backend.items(first.version, [4])
    assert (item.text, item.text_pair, item.label, item.origin) == (
        "text 4 – ünïcode",
        None,
        LABELS[1],
        "train",
    )
    assert backend.items(first.version, []) == []


def test_no_vectors_give_no_hits(backend: StoreBackend, tmp_path: Path) -> None:
    manifest = build(backend, write_sample(tmp_path / "k"))
    hits = backend.search(manifest.version, np.zeros((0, 16), np.float32), 3)
    assert hits.ids.shape == hits.scores.shape == (0, 3)


def test_building_again_changes_nothing(backend: StoreBackend, tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    first = build(backend, knowledge)
    assert build(backend, knowledge, batch=33) == first
    other = version_manifest(knowledge).model_copy(update={"labels": ("x", "y")})
    with pytest.raises(IncompatibleArtifacts, match="another store version of the name"):
        backend.build(other, [])


def test_points_that_do_not_fit_the_manifest_build_nothing(
    backend: StoreBackend, tmp_path: Path
) -> None:
    knowledge = write_sample(tmp_path / "k")
    manifest = version_manifest(knowledge)
    batches = list(iterate_points(knowledge, 70))
    wrong = [
        manifest.model_copy(update={"count": 201}),
        manifest.model_copy(update={"count": 199}),
        manifest.model_copy(update={"dimensions": 15}),
    ]
    for claimed in wrong:
        with pytest.raises(CorruptArtifact):
            backend.build(claimed, batches)
        assert backend.versions() == []
        with pytest.raises(VersionNotFound):
            backend.manifest(manifest.version)
        with pytest.raises(VersionNotFound):
            backend.search(manifest.version, unit_vectors(1), 1)
    assert backend.build(manifest, batches).count == 200


def test_what_is_not_there_is_not_found(backend: StoreBackend, tmp_path: Path) -> None:
    manifest = build(backend, write_sample(tmp_path / "k"))
    calls: list[Callable[[str], object]] = [
        backend.manifest,
        backend.delete,
        lambda name: backend.search(name, unit_vectors(1), 1),
        lambda name: backend.items(name, [0]),
    ]
    for name in ("v-absent", f"v-{uuid.uuid4().hex[:8]}", "../up", "Ä"):
        for call in calls:
            with pytest.raises(VersionNotFound, match="no store version"):
                call(name)
    for missing in (200, -1):
        with pytest.raises(NotFound, match=f"no item {missing}"):
            backend.items(manifest.version, [0, missing])


def test_queries_that_do_not_fit_are_refused(backend: StoreBackend, tmp_path: Path) -> None:
    manifest = build(backend, write_sample(tmp_path / "k"))
    for vectors, k in ((unit_vectors(2, 8), 1), (unit_vectors(1)[0], 1), (unit_vectors(1), 0)):
        with pytest.raises(InvalidRequest):
            backend.search(manifest.version, vectors, k)


def test_a_deleted_version_is_gone_and_can_come_back(backend: StoreBackend, tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "k")
    version = build(backend, knowledge).version
    backend.search(version, unit_vectors(1), 1)
    backend.delete(version)
    assert backend.versions() == []
    with pytest.raises(VersionNotFound):
        backend.search(version, unit_vectors(1), 1)
    assert build(backend, knowledge).version == version
    assert backend.search(version, unit_vectors(200)[:1], 1).ids.tolist() == [[0]]


def test_a_saved_version_can_be_deleted_and_restored(
    backend: StoreBackend, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    manifest = build(backend, write_sample(tmp_path / "k"))
    saved = tmp_path / "saved"
    if request.node.callspec.params["backend"] == "in_memory":
        # The named exception: the client's in-memory mode has no snapshots.
        with pytest.raises(StoreUnavailable, match="has no snapshots"):
            backend.save(manifest.version, saved)
        return
    expected = backend.search(manifest.version, unit_vectors(9), 5, exact=True)
    backend.save(manifest.version, saved)
    backend.delete(manifest.version)
    assert backend.restore(manifest, saved) == manifest
    found = backend.search(manifest.version, unit_vectors(9), 5, exact=True)
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert backend.items(manifest.version, [7])[0].text.startswith("text 7")
    assert backend.restore(manifest, saved) == manifest
    with pytest.raises(VersionNotFound):
        backend.save("v-absent", tmp_path / "nothing")

"""Indexing the live knowledge file anew: another version of the same items goes live, and a bad one does not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.publish import publish, same_release
from offline.store.recall import made_up_queries, measure_recall
from offline.store.reindex import reindex, restore_version
from offline.tasks.prepared import Examples
from services.platform.errors import CorruptArtifact, ReleaseNotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import KNOWLEDGE, ReleaseManifest, check_release
from services.store.backends.base import HnswParameters
from services.store.backends.edge import EdgeBackend
from services.store.client import EmbeddedStoreClient
from services.store.knowledge_file import iterate_points, version_manifest
from services.student.predictor import Predictor, TextInput

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))
sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "store"))

from knowledge_samples import write_sample
from tiny_release import write_release

NOTHING = Examples([], None, [])


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task's directory with one release, live."""
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    write_release(candidate)
    publish(candidate, {}, NOTHING, tmp_path / "task", StoreConfig(), ReleaseConfig())
    return tmp_path / "task"


def live(task: Path) -> ReleaseManifest:
    releases = ReleaseDirectory(task / "releases")
    pointer = releases.live()
    assert pointer is not None
    return releases.get(pointer.release)


def test_each_index_is_a_version_of_its_own_and_serves_the_same_items(task: Path) -> None:
    first = live(task)
    rows = Examples(["my printer jam", "wifi slow"], None, ["printer", "network"])
    made = reindex(task, StoreConfig(), ReleaseConfig(), rows)
    second = live(task)
    assert (made.published.outcome, made.published.release) == ("activated", second.release)
    assert made.recall == second.metrics["recall"] == 1.0
    assert second.store_version == f"{first.store_version}-2"
    assert same_release(first, second)
    assert reindex(task, StoreConfig(), ReleaseConfig()).published.outcome == "activated"
    third = live(task)
    assert third.store_version == f"{first.store_version}-3"
    check_release(task / "releases" / third.release)
    # It answers from its own version alone, with nothing to rebuild it from.
    client = EmbeddedStoreClient.edge(task / "store")
    predictor = Predictor.load(task / "releases" / third.release, client)
    assert predictor.predict([TextInput("my printer jam", None)]).degraded is None
    predictor.close()
    client.close()
    assert ReleaseDirectory(task / "releases").rollback().release == second.release


def test_other_parameters_of_the_graph_are_in_the_knowledge_file_of_the_new_release(
    task: Path,
) -> None:
    first = live(task)
    graph = HnswParameters(m=8, ef_search=64)
    made = reindex(task, StoreConfig(hnsw=graph), ReleaseConfig())
    second = live(task)
    assert made.published.outcome == "activated"
    assert second.store_version != first.store_version
    assert not second.store_version.startswith(first.store_version)
    told = version_manifest(task / "releases" / second.release / KNOWLEDGE)
    assert (told.hnsw, told.version) == (graph, second.store_version)
    assert EdgeBackend(task / "store").manifest(second.store_version).hnsw == graph


def test_a_re_indexed_version_that_is_lost_is_built_again_from_the_knowledge_file(
    task: Path,
) -> None:
    reindex(task, StoreConfig(), ReleaseConfig())
    release = live(task)
    backend = EdgeBackend(task / "store")
    backend.delete(release.store_version)
    assert release.store_version not in {found.version for found in backend.versions()}
    restore_version(task, StoreConfig(), release)
    assert release.store_version in {found.version for found in backend.versions()}
    # A student without the sealed files makes its own copy under that name.
    backend.delete(release.store_version)
    releases = ReleaseDirectory(task / "releases")
    client = EmbeddedStoreClient.edge(task / "store", knowledge=releases.knowledge_of_version)
    found = client.check(release.store_version, release.encoder_fingerprint)
    assert found.count == release.items
    assert len(client.items(release.store_version, [0, 1])) == 2
    client.close()


def test_publishing_the_same_content_again_leaves_the_new_index_live(
    task: Path, tmp_path: Path
) -> None:
    reindex(task, StoreConfig(), ReleaseConfig())
    before = live(task)
    again = publish(tmp_path / "candidate", {}, NOTHING, task, StoreConfig(), ReleaseConfig())
    assert (again.outcome, again.release) == ("unchanged", before.release)
    assert live(task) == before


def test_a_new_index_is_only_added_where_the_configuration_says_so(task: Path) -> None:
    before = live(task)
    made = reindex(task, StoreConfig(), ReleaseConfig(activate=False))
    assert made.published.outcome == "added"
    assert live(task) == before
    assert made.published.release in {r.release for r in ReleaseDirectory(task / "releases").list()}


def test_an_index_that_misses_too_much_is_measured_and_refused(tmp_path: Path) -> None:
    # A graph of few links over clustered vectors, walked with the smallest of beams.
    poor = HnswParameters(m=4, ef_construct=8, ef_search=8, full_scan_threshold_kb=10)
    knowledge = write_sample(tmp_path / "k", 4000, dimensions=32)
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    wanted = version_manifest(knowledge)
    good = backend.build(wanted, iterate_points(knowledge))
    named = {"version": f"{wanted.version}-2", "hnsw": poor}
    bad = backend.build(wanted.model_copy(update=named), iterate_points(knowledge))
    queries = made_up_queries(knowledge, 4000)
    own = np.concatenate([batch.vectors for batch in iterate_points(knowledge)])[::15][:256]
    assert np.mean(np.sum(queries * own, axis=1)) == pytest.approx(0.9, abs=0.02)
    assert measure_recall(backend, good, queries, 16) > 0.99
    assert measure_recall(backend, bad, queries, 16) < 0.95
    backend.close()


def test_a_refused_index_stays_inactive_with_its_reason_in_the_manifest(task: Path) -> None:
    before = live(task)
    # Nothing reaches more than everything: a threshold above what any index can be is refused.
    strict = ReleaseConfig.model_construct(activate=True, recall=1.01)
    made = reindex(task, StoreConfig(), strict)
    assert made.published.outcome == "refused"
    assert "less than the 1.01 asked for" in made.published.reasons[0]
    assert live(task) == before
    refused = ReleaseDirectory(task / "releases").get(made.published.release)
    assert refused.gate == made.published.reasons


def test_there_is_nothing_to_index_where_nothing_is_live_or_the_live_files_are_damaged(
    task: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseNotFound, match="retrikt rebuild"):
        reindex(tmp_path / "empty", StoreConfig(), ReleaseConfig())
    release = live(task)
    (task / "releases" / release.release / KNOWLEDGE).write_bytes(b"gone")
    with pytest.raises(CorruptArtifact):
        reindex(task, StoreConfig(), ReleaseConfig())
    pointer = ReleaseDirectory(task / "releases").live()
    assert pointer is not None
    assert pointer.release == release.release

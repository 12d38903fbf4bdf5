"""A release answers with its store and without it, and refuses parts that are not its own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_release
from tiny_task import TinyTask, free_port, silent_listener, store, until

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    InvalidInput,
    VersionNotFound,
)
from services.releases.manifest import read_release_manifest, write_release_manifest
from services.store.client import EmbeddedStoreClient, HttpStoreClient
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder
from services.student.mixing import head_distribution, mix
from services.student.predictor import Predictor, TextInput

TEXTS = [TextInput(text) for text, _ in tiny_release.sentences(12, seed=7)]


@pytest.fixture
def client(built_task: TinyTask) -> Iterator[EmbeddedStoreClient]:
    client = built_task.client()
    yield client
    client.close()


@contextmanager
def http_predictor(task: TinyTask, port: int, **options: Any) -> Iterator[Predictor]:
    """The first release, its store on a port of this machine."""
    client = HttpStoreClient(f"http://127.0.0.1:{port}", timeout=2.0)
    try:
        predictor = Predictor.load(
            task.releases.path(task.one), client, **{"store_timeout": 0.3} | options
        )
        yield predictor
        predictor.close()
    finally:
        client.close()


def rewrite(directory: Path, **changes: object) -> None:
    """Write a release's manifest anew, with other values."""
    was = read_release_manifest(directory)
    names = ("task", "labels", "store_version", "encoder_fingerprint", "items", "metrics")
    write_release_manifest(directory, **{name: getattr(was, name) for name in names} | changes)


def test_the_answer_is_the_mix_of_the_student_and_the_nearest_items(
    built_task: TinyTask, client: EmbeddedStoreClient
) -> None:
    predictor = built_task.predictor(built_task.one, client)
    found = predictor.predict(TEXTS)
    assert found.degraded is None
    assert found.release == built_task.one
    assert found.neighbour_ids is not None
    assert found.similarities is not None

    bundle = load_bundle(built_task.releases.path(built_task.one) / "bundle")
    logits, query = OnnxEncoder.of_bundle(bundle).encode([text.text for text in TEXTS])
    hits = client.search(predictor.manifest.store_version, query, 4)
    np.testing.assert_array_equal(found.neighbour_ids, hits.ids)
    soft = np.load(built_task.releases.path(built_task.one) / "soft_labels.npy")
    mixed = mix(logits, hits.scores, soft[hits.ids].astype(np.float32), bundle.manifest.mixing)
    np.testing.assert_allclose(found.probabilities, mixed.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.student, mixed.student, atol=1e-5)
    assert found.store is not None
    np.testing.assert_allclose(found.store, mixed.store, atol=1e-5)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.probabilities.argmax(axis=1).tolist() == [n % 3 for n in range(12)]
    predictor.close()


def test_an_answer_does_not_depend_on_the_texts_beside_it(
    built_task: TinyTask, client: EmbeddedStoreClient
) -> None:
    predictor = built_task.predictor(built_task.one, client)
    together = predictor.predict([*TEXTS, TextInput("printer " * 40)]).probabilities
    for row, text in enumerate(TEXTS):
        alone = predictor.predict([text]).probabilities
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


def test_more_texts_than_one_search_takes_are_answered(task: TinyTask) -> None:
    with (
        store(task) as running,
        http_predictor(task, running.port, store_timeout=10.0) as predictor,
    ):
        many = predictor.predict(TEXTS * 50)
        assert many.degraded is None
        np.testing.assert_allclose(
            many.probabilities[-12:], predictor.predict(TEXTS).probabilities, atol=1e-4
        )


def test_pairs_and_single_texts_are_not_taken_for_each_other(
    built_task: TinyTask, client: EmbeddedStoreClient
) -> None:
    predictor = built_task.predictor(built_task.one, client)
    with pytest.raises(InvalidInput, match="single texts"):
        predictor.predict([TextInput("a", "b")])
    with pytest.raises(InvalidInput, match="others have none"):
        predictor.predict([TextInput("a", "b"), TextInput("a")])


def test_a_store_version_of_another_encoder_is_refused(
    task: TinyTask, client: EmbeddedStoreClient
) -> None:
    directory = task.releases.path(task.one)
    other = read_release_manifest(task.releases.path(task.two))
    rewrite(directory, store_version=other.store_version)
    with pytest.raises(IncompatibleArtifacts, match="written by the encoder"):
        Predictor.load(directory, client)


def test_a_student_that_did_not_write_its_release_s_version_is_refused(
    task: TinyTask, client: EmbeddedStoreClient
) -> None:
    directory = task.releases.path(task.one)
    rewrite(directory, encoder_fingerprint="sha256:" + "0" * 64)
    with pytest.raises(IncompatibleArtifacts, match="was written by"):
        Predictor.load(directory, client)


def test_labels_that_are_not_the_student_s_are_refused(
    task: TinyTask, client: EmbeddedStoreClient
) -> None:
    directory = task.releases.path(task.one)
    rewrite(directory, labels=["printer", "login", "network"])
    with pytest.raises(IncompatibleArtifacts, match="do not begin with"):
        Predictor.load(directory, client)


@pytest.mark.parametrize("matrix", [np.zeros((60, 2), np.float16), np.zeros((60, 3), np.float32)])
def test_soft_labels_of_another_shape_or_type_are_corrupt(
    task: TinyTask, client: EmbeddedStoreClient, matrix: np.ndarray
) -> None:
    directory = task.releases.path(task.one)
    np.save(directory / "soft_labels.npy", matrix)
    rewrite(directory)
    with pytest.raises(CorruptArtifact, match="expected float16"):
        Predictor.load(directory, client)


def test_a_label_that_the_student_does_not_know_has_no_score_without_the_store(
    task: TinyTask,
) -> None:
    directory = task.releases.path(task.one)
    soft = np.load(directory / "soft_labels.npy")
    np.save(directory / "soft_labels.npy", np.hstack([soft, np.zeros_like(soft[:, :1])]))
    rewrite(directory, labels=[*tiny_release.LABELS, "new"])
    with http_predictor(task, free_port()) as predictor:
        found = predictor.predict(TEXTS)
    assert found.labels == (*tiny_release.LABELS, "new")
    assert found.probabilities[:, 3].tolist() == [0.0] * 12


def test_without_the_store_the_student_answers_with_its_own_calibrated_scores(
    built_task: TinyTask,
) -> None:
    with http_predictor(built_task, free_port()) as predictor:
        assert predictor.store_state == "store_unavailable"
        found = predictor.predict(TEXTS)
    assert found.degraded == "store_unavailable"
    assert (found.store, found.neighbour_ids, found.similarities) == (None, None, None)
    assert found.weight.tolist() == [0.0] * 12
    bundle = load_bundle(built_task.releases.path(built_task.one) / "bundle")
    logits, _ = OnnxEncoder.of_bundle(bundle).encode([text.text for text in TEXTS])
    alone = head_distribution(logits, bundle.manifest.mixing)
    np.testing.assert_allclose(found.probabilities, alone, atol=1e-5)


def test_a_store_that_comes_back_is_used_again(task: TinyTask) -> None:
    port = free_port()
    with http_predictor(task, port) as predictor:
        assert predictor.predict(TEXTS).degraded == "store_unavailable"
        with store(task, port=port):
            until(lambda: predictor.predict(TEXTS).degraded is None)
        assert predictor.predict(TEXTS).degraded == "store_unavailable"
        with store(task, port=port):
            until(lambda: predictor.predict(TEXTS).degraded is None)


def test_a_store_that_hangs_costs_its_time_limit_a_few_times_and_then_nothing(
    task: TinyTask,
) -> None:
    port = free_port()
    with ExitStack() as stack:
        with store(task, port=port):
            predictor = stack.enter_context(http_predictor(task, port))
            until(lambda: predictor.predict(TEXTS).degraded is None)
        stack.enter_context(silent_listener(port))
        reasons, seconds = [], []
        for _ in range(10):
            started = time.perf_counter()
            reasons.append(predictor.predict(TEXTS).degraded)
            seconds.append(time.perf_counter() - started)
        # The first may find the old connection broken, which is seen at once.
        assert reasons[1:] == ["store_timeout"] * 9
        assert sum(taken > 0.25 for taken in seconds) <= 3
        assert min(seconds[1:3]) > 0.25


def test_a_deadline_that_is_near_is_kept_whatever_the_store_does(task: TinyTask) -> None:
    port = free_port()
    with ExitStack() as stack:
        with store(task, port=port):
            predictor = stack.enter_context(http_predictor(task, port, store_timeout=30.0))
        stack.enter_context(silent_listener(port))
        predictor.predict(TEXTS, deadline=time.monotonic() + 0.1)
        started = time.monotonic()
        assert predictor.predict(TEXTS, deadline=started + 0.1).degraded == "store_timeout"
        assert time.monotonic() - started < 2.0
        assert predictor.predict(TEXTS, deadline=started - 1).degraded == "store_timeout"


def test_a_store_without_the_version_is_refused_only_where_another_release_serves(
    task: TinyTask,
) -> None:
    rewrite(task.releases.path(task.one), store_version="v-000000000000")
    with store(task) as running:
        with (
            pytest.raises(VersionNotFound),
            http_predictor(task, running.port, must_hold_version=True),
        ):
            pass
        with http_predictor(task, running.port) as predictor:
            assert predictor.predict(TEXTS).degraded == "version_not_found"


def test_an_absent_sealed_version_is_built_from_the_knowledge_file(task: TinyTask) -> None:
    version = task.releases.get(task.one).store_version
    (task.directory / "store" / version / "version.json").unlink()
    client = EmbeddedStoreClient.edge(
        task.directory / "store", knowledge=task.releases.knowledge_of_version
    )
    predictor = task.predictor(task.one, client)
    assert predictor.predict(TEXTS).degraded is None
    client.close()

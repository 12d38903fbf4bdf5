import numpy as np
import pytest
from numpy.typing import NDArray

from offline.student.mixing_fit import (
    FittedMixing,
    FittingRows,
    MixingConfig,
    fit_mixing,
    nearest_items,
    unfitted_mixing,
)
from services.student.mixing import head_distribution, mix

Floats = NDArray[np.float32]
CONFIG = MixingConfig(k=(4, 8))
LABELS = 4


def unit(vectors: NDArray[np.float64]) -> Floats:
    normed: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return normed


def rows(head: float, store: float, count: int = 400, seed: int = 0) -> FittingRows:
    """Rows whose head and store name the right label that often, both always sure of themselves."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, LABELS, size=count)

    def answers(right: float) -> NDArray[np.int64]:
        wrong = (gold + random.integers(1, LABELS, size=count)) % LABELS
        return np.where(random.uniform(size=count) < right, gold, wrong)

    hot = np.eye(LABELS, dtype=np.float32)
    logits = 6 * hot[answers(head)] + random.normal(size=(count, LABELS)).astype(np.float32)
    neighbours = 0.9 * hot[answers(store)] + 0.1 / LABELS
    similarities = -np.sort(-random.uniform(0.3, 0.9, size=(count, 8))).astype(np.float32)
    return FittingRows(
        logits,
        hot[gold],
        similarities,
        np.repeat(neighbours[:, None], 8, axis=1).astype(np.float32),
    )


def accuracy(fitted: FittedMixing, fresh: FittingRows) -> float:
    k = fitted.parameters.k
    mixed = mix(
        fresh.logits, fresh.similarities[:, :k], fresh.neighbour_labels[:, :k], fitted.parameters
    )
    return float(np.mean(mixed.probabilities.argmax(1) == fresh.targets.argmax(1)))


def test_a_store_that_knows_more_gets_the_larger_share() -> None:
    fitted = fit_mixing(rows(head=0.6, store=0.9), CONFIG, seed=0)
    assert fitted.figures["weight"] > 0.5
    assert accuracy(fitted, rows(0.6, 0.9, seed=1)) > 0.85


def test_a_store_of_noise_gets_nothing_and_the_head_loses_nothing() -> None:
    fitted = fit_mixing(rows(head=0.85, store=0.25), CONFIG, seed=0)
    fresh = rows(0.85, 0.25, seed=1)
    head = float(np.mean(fresh.logits.argmax(1) == fresh.targets.argmax(1)))
    assert fitted.figures["weight"] < 0.1
    assert accuracy(fitted, fresh) >= head - 0.005


def test_the_gate_sees_for_which_texts_the_store_is_right() -> None:
    random = np.random.default_rng(2)
    found = rows(head=0.7, store=0.95)
    near = random.uniform(size=len(found.logits)) < 0.5
    # Where the nearest item is far, its labels are noise.
    noise = np.eye(LABELS, dtype=np.float32)[random.integers(0, LABELS, size=len(near))]
    labels = np.where(near[:, None, None], found.neighbour_labels, noise[:, None, :])
    similarities = np.where(near[:, None], found.similarities, found.similarities - 0.6)
    gated = FittingRows(found.logits, found.targets, similarities.astype(np.float32), labels)
    fitted = fit_mixing(gated, CONFIG, seed=0)
    assert fitted.gate == "scores"
    k = fitted.parameters.k
    weight = mix(
        gated.logits, gated.similarities[:, :k], gated.neighbour_labels[:, :k], fitted.parameters
    ).weight
    assert weight[near].mean() > weight[~near].mean() + 0.2


def test_an_overconfident_head_is_calibrated() -> None:
    fitted = fit_mixing(rows(head=0.7, store=0.25), CONFIG, seed=0)
    assert fitted.parameters.head_temperature > 2


def test_without_a_store_only_the_temperature_is_fitted() -> None:
    found = rows(head=0.7, store=0.9)
    empty = FittingRows(
        found.logits,
        found.targets,
        np.full_like(found.similarities, -np.inf),
        np.zeros_like(found.neighbour_labels),
    )
    fitted = fit_mixing(empty, CONFIG, seed=0, store=False)
    assert fitted.gate == "none"
    assert fitted.figures["weight"] == 0
    assert fitted.parameters.head_temperature > 2


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_rows_leave_the_answer_to_the_head(count: int) -> None:
    fitted = fit_mixing(rows(head=0.9, store=0.9, count=count), CONFIG, seed=0)
    fresh = rows(head=0.9, store=0.0)
    assert fitted.gate == "none"
    assert accuracy(fitted, fresh) == pytest.approx(0.9, abs=0.05)


def test_without_rows_to_fit_on_the_mixing_is_made_of_its_settings() -> None:
    config = CONFIG.model_copy(
        update={"unfitted_k": 7, "unfitted_similarity_temperature": 0.2, "unfitted_share": 0.3}
    )
    fitted = unfitted_mixing(config)
    assert fitted.gate == "share"
    assert fitted.figures == {}
    assert fitted.parameters.k == 7
    assert fitted.parameters.similarity_temperature == 0.2
    assert fitted.parameters.head_temperature == 1.0
    found = rows(head=0.9, store=0.5)
    weight = mix(
        found.logits, found.similarities[:, :7], found.neighbour_labels[:, :7], fitted.parameters
    ).weight
    assert weight == pytest.approx(np.full(len(weight), 0.3), abs=1e-5)


def test_without_rows_and_without_a_store_the_head_answers_as_it_is() -> None:
    found = rows(head=0.9, store=0.5)
    parameters = unfitted_mixing(CONFIG, store=False).parameters
    mixed = mix(found.logits, found.similarities, found.neighbour_labels, parameters)
    head = head_distribution(found.logits, parameters)
    assert mixed.probabilities == pytest.approx(head, abs=1e-6)
    assert parameters.head_temperature == 1.0


def test_the_same_rows_give_the_same_parameters() -> None:
    one, other = (fit_mixing(rows(0.7, 0.8), CONFIG, seed=3) for _ in range(2))
    assert one == other


def test_excluded_items_are_not_found_and_the_missing_are_padded() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(6, 16)))
    excluded = np.array([[True, False, False, True, True, False]])
    similarities, neighbour_labels = nearest_items(
        vectors[:1], vectors, np.eye(6, dtype=np.float32), 4, excluded
    )
    found = set(neighbour_labels[0, :3].argmax(1).tolist())
    assert found == {1, 2, 5}
    assert similarities[0, 3] == -np.inf


@pytest.mark.parametrize("k", [3, 10])
def test_search_is_exact_and_pads_what_is_missing(k: int) -> None:
    random = np.random.default_rng(1)
    queries, vectors = unit(random.normal(size=(5, 8))), unit(random.normal(size=(7, 8)))
    soft = random.dirichlet(np.ones(3), size=7).astype(np.float32)
    similarities, neighbour_labels = nearest_items(queries, vectors, soft, k)
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1)[:, :k]
    np.testing.assert_allclose(
        similarities[:, :7], np.take_along_axis(scores, order, axis=1), atol=1e-6
    )
    np.testing.assert_array_equal(neighbour_labels[:, :7], soft[order])
    assert np.all(similarities[:, 7:] == -np.inf)

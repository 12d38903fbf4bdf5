"""The distance threshold is that of texts which do not find themselves in the store."""

import sys
from pathlib import Path

import numpy as np
import pytest

from offline.student.distance_fit import LEAST_ROWS, fit_distance_threshold
from offline.student.items import TrainingItems
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

import tiny_release

K = 4


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    tiny_release.write_bundle(directory)
    return OnnxEncoder.of_bundle(load_bundle(directory))


def items(texts: list[str]) -> TrainingItems:
    rows = len(texts)
    return TrainingItems(
        texts, None, np.full((rows, 3), 1 / 3, np.float32), np.zeros((rows, 2), np.float32)
    )


def texts(count: int, seed: int) -> list[str]:
    return [text for text, _ in tiny_release.sentences(count, seed=seed)]


def test_validation_rows_lie_within_it_but_for_a_twentieth(encoder: OnnxEncoder) -> None:
    store, validation = items(texts(60, 1)), items(texts(200, 2))
    threshold = fit_distance_threshold(encoder, store, validation, K)
    assert threshold is not None
    _, vectors = encoder.encode(store.texts)
    _, queries = encoder.encode(validation.texts)
    distances = 1 - -np.sort(-(queries @ vectors.T), axis=1)[:, :K].mean(1)
    assert np.mean(distances > threshold) == pytest.approx(0.05, abs=0.011)


def test_an_item_finds_neither_itself_nor_its_copies(encoder: OnnxEncoder) -> None:
    once = sorted(set(texts(60, 1)))
    alone = fit_distance_threshold(encoder, items(once), None, K)
    copied = items([*once, *(text.upper() for text in once)])
    # All others are there twice; were its own copy found, that would be at a distance of nothing.
    found = fit_distance_threshold(encoder, copied, items(once), 2 * K)
    assert alone is not None
    assert found == pytest.approx(alone, abs=1e-5)


def test_too_few_rows_give_way_to_the_items_and_too_few_items_give_none(
    encoder: OnnxEncoder,
) -> None:
    few, store = items(texts(LEAST_ROWS - 1, 1)), items(texts(60, 2))
    without = fit_distance_threshold(encoder, store, None, K)
    assert fit_distance_threshold(encoder, store, few, K) == without
    assert without is not None
    assert fit_distance_threshold(encoder, few, few, K) is None

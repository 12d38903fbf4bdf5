"""A label with few items weighs as much as its rarity asks for; labels that the student knows weigh what they did."""

import numpy as np
import pytest

from services.student.label_balance import label_weights
from services.student.mixing import MixingParameters, mix


def soft_labels(*items: int) -> np.ndarray:
    """One-hot rows, so many of each label."""
    return np.repeat(np.eye(len(items), dtype=np.float16), items, axis=0)


def test_a_new_label_weighs_by_how_much_rarer_it_is_than_the_known_ones() -> None:
    soft = soft_labels(300, 100, 2)
    np.testing.assert_allclose(label_weights(soft, 2, 1.0), [1, 1, 100])
    np.testing.assert_allclose(label_weights(soft, 2, 0.5), [1, 1, 10])


def test_a_label_with_many_items_is_not_held_down() -> None:
    np.testing.assert_allclose(label_weights(soft_labels(3, 3, 30), 2, 1.0), [1, 1, 1])


@pytest.mark.parametrize(("known", "balance"), [(3, 1.0), (2, 0.0)])
def test_nothing_is_weighed_where_nothing_is_new_or_to_be_balanced(
    known: int, balance: float
) -> None:
    assert label_weights(soft_labels(5, 5, 5), known, balance) is None


def test_two_near_items_of_a_new_label_win_over_many_and_the_answer_is_a_distribution() -> None:
    soft = soft_labels(300, 300, 2).astype(np.float32)
    similarities = np.array([[0.9, 0.9, *[0.85] * 6]], np.float32)
    neighbours = soft[[600, 601, 0, 1, 2, 300, 301, 302]][None]
    logits = np.array([[3.0, 0.0]], np.float32)
    parameters = MixingParameters(k=8, similarity_temperature=0.1)
    alone = mix(logits, similarities, neighbours, parameters)
    assert alone.probabilities.argmax() == 0
    weights = label_weights(soft, 2, 0.8)
    assert weights is not None
    mixed = mix(logits, similarities, neighbours * weights, parameters)
    assert mixed.probabilities.argmax() == 2
    assert mixed.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert mixed.store.sum() == pytest.approx(1.0, abs=1e-5)

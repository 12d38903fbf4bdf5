import numpy as np
import pytest

from offline.student.confidence import (
    admitted,
    confidence_weights,
    confidences,
    curriculum_places,
)

SOFT_LABELS = np.array(
    [[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1], [0, 0.4, 0.6, 0]],
    dtype=np.float32,
)


def test_confidence_is_one_less_the_share_of_the_largest_entropy() -> None:
    found = confidences(SOFT_LABELS)
    assert found[:3] == pytest.approx([0, 1, 0.5], abs=1e-6)
    assert found[3] == pytest.approx(0.3216, abs=1e-4)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_weights_are_powers_of_the_confidence_and_have_mean_one(power: float) -> None:
    weights = confidence_weights(SOFT_LABELS, power)
    assert weights.mean() == pytest.approx(1)
    assert weights / weights[1] == pytest.approx(confidences(SOFT_LABELS) ** power)


def test_no_power_weighs_all_items_exactly_one() -> None:
    assert (confidence_weights(SOFT_LABELS, 0) == 1).all()


def test_items_that_tell_nothing_weigh_one() -> None:
    assert (confidence_weights(SOFT_LABELS[:1].repeat(3, axis=0), 1) == 1).all()


def test_places_go_by_confidence_within_a_label() -> None:
    # Rows 0 to 3 are likeliest of the first label; row 4 is alone with its own.
    assert curriculum_places(SOFT_LABELS).tolist() == [0.75, 0, 0.25, 0.5, 0]


def test_a_curriculum_grows_from_half_to_all_over_its_share_of_the_steps() -> None:
    assert [admitted(step, 100, 0.4) for step in (0, 10, 20, 40, 99)] == [0.5, 0.625, 0.75, 1, 1]
    assert admitted(0, 100, 0) == 1

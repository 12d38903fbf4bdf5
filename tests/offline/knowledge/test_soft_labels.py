"""A person's label is the most probable one, whatever the labeller thinks; the labeller has the rest."""

import numpy as np
import pytest

from offline.knowledge.soft_labels import PERSON_TRUST, soft_labels

LABELS = ["a", "b", "new"]


def test_the_person_is_obeyed_against_a_labeller_that_is_sure_of_another_label() -> None:
    soft = soft_labels([{"a": 1.0, "b": 0.0}], ["b"], LABELS, 2)
    np.testing.assert_allclose(soft, [[1 - PERSON_TRUST, PERSON_TRUST, 0.0]], rtol=1e-6)


def test_a_new_label_takes_nothing_from_how_the_labeller_ranks_the_others() -> None:
    soft = soft_labels([{"a": 0.75, "b": 0.25}], ["new"], LABELS, 2)
    rest = 1 - PERSON_TRUST
    np.testing.assert_allclose(soft, [[0.75 * rest, 0.25 * rest, PERSON_TRUST]], rtol=1e-6)


def test_a_text_without_a_label_has_the_labeller_s() -> None:
    soft = soft_labels([{"a": 0.5, "b": 1.5}], [None], LABELS, 2)
    np.testing.assert_allclose(soft, [[0.25, 0.75, 0.0]])


@pytest.mark.parametrize("given", [None, {"gone": 1.0}])
def test_without_a_labeller_s_view_it_is_a_distribution_all_the_same(
    given: dict[str, float] | None,
) -> None:
    soft = soft_labels([given], ["a"], LABELS, 2)
    assert soft.sum() == pytest.approx(1.0)
    assert soft.argmax() == 0

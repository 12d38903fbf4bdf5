"""Corrections of a student's answers by items that it was not trained on."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.student.corrections import (
    LEAST_KEPT,
    Corrections,
    corrected,
    corrections_of,
    moved_by,
)
from services.student.mixing import Mixed, MixingParameters, head_distribution, mix

PARAMETERS = MixingParameters(k=3, similarity_temperature=0.1, head_temperature=2.0)


def mixed(seed: int, *, labels: int = 4, known: int = 4) -> tuple[Mixed, np.ndarray]:
    rng = np.random.default_rng(seed)
    similarities = -np.sort(-rng.uniform(-1, 1, (5, 3)), 1).astype(np.float32)
    similarities[4, 1:] = -np.inf
    soft = rng.dirichlet(np.full(labels, 0.3), (5, 3)).astype(np.float32)
    logits = rng.normal(size=(5, known)).astype(np.float32)
    return mix(logits, similarities, soft, PARAMETERS), similarities


def test_neighbours_are_found_by_their_ids_and_padding_and_others_correct_nothing() -> None:
    values = np.array([[0.5, -0.5], [-0.25, 0.25]], np.float16)
    found = Corrections(np.array([3, 7]), values).at(np.array([[7, 0, 3], [9, -1, -1]]))
    np.testing.assert_array_equal(found[0], [[-0.25, 0.25], [0, 0], [0.5, -0.5]])
    assert not found[1].any()
    nothing = Corrections(np.zeros(0, np.int64), np.zeros((0, 2), np.float16))
    assert not nothing.at(np.array([[7, -1]])).any()


def test_a_correction_is_the_soft_label_less_the_student_s_answer() -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], np.float32)
    own = head_distribution(logits, PARAMETERS)[0]
    soft = np.array([[0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]], np.float32)
    found = corrections_of(soft, logits, PARAMETERS).astype(np.float32)
    np.testing.assert_allclose(found[0], [-own[0], 1 - own[1]], atol=1e-3)
    np.testing.assert_array_equal(found[1], [0, 0])
    np.testing.assert_allclose(found[2], [0.5 - own[0] / 2, -own[1] / 2], atol=1e-3)


def test_where_all_neighbours_came_afterwards_the_student_is_set_right() -> None:
    logits = np.array([[3.0, 0.0, 0.0]], np.float32)
    similarities = np.array([[0.9, 0.9, 0.9]], np.float32)
    # The student says of the neighbours what it says of the text, and all of them are of the second label.
    soft = np.tile(np.array([[[0, 1, 0]]], np.float32), (1, 3, 1))
    values = corrections_of(soft[0], np.tile(logits, (3, 1)), PARAMETERS)
    before = mix(logits, similarities, soft, PARAMETERS)
    assert before.probabilities[0].argmax() == 1
    alone = mix(logits, similarities, soft, MixingParameters(k=3, gate_bias=-30.0))
    assert alone.probabilities[0].argmax() == 0
    after = corrected(alone, moved_by(similarities, values[None].astype(np.float32), PARAMETERS))
    assert after.probabilities[0].argmax() == 1
    np.testing.assert_allclose(after.probabilities.sum(1), 1, atol=1e-5)


@given(seed=st.integers(0, 100))
def test_answers_stay_distributions_and_new_labels_keep_what_they_have(seed: int) -> None:
    before, similarities = mixed(seed, labels=6, known=4)
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (5, 3, 4)).astype(np.float32)
    values -= values.mean(2, keepdims=True)
    after = corrected(before, moved_by(similarities, values, PARAMETERS))
    np.testing.assert_allclose(after.probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(after.probabilities[:, 4:], before.probabilities[:, 4:])
    # What a label is left with, before all are brought back to their sum: at most each correction adds 1.
    least = LEAST_KEPT * before.probabilities[:, :4] / 5
    assert (after.probabilities[:, :4] >= least).all()
    assert after._replace(probabilities=before.probabilities) == before


def test_without_corrections_nothing_changes() -> None:
    before, similarities = mixed(0)
    after = corrected(before, moved_by(similarities, np.zeros((5, 3, 4), np.float32), PARAMETERS))
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-6)

"""Words of labels that came with edits, and their part of the answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.student.added_words import AddedWords, mix_added
from services.student.lexical import LexicalWeights, words_of
from services.student.mixing import Mixed, MixingParameters, mix

ADDED = LexicalWeights(
    ("phone", "sim card"),
    ("pho",),
    np.array([1.0, 1.0, 1.0], np.float32),
    np.array([[-1, 2, 0], [-1, 0, 3], [0, 1, 0]], np.float16),
    np.array([1.0, 0.0, 0.0], np.float32),
    8,
)


def mixed(seed: int, known: int, added: int) -> Mixed:
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.full(known + added, 0.3), (4, 5)).astype(np.float32)
    logits = rng.normal(size=(4, known)).astype(np.float32)
    similarities = -np.sort(-rng.uniform(-1, 1, (4, 5)), 1).astype(np.float32)
    similarities[3] = -np.inf
    return mix(logits, similarities, soft, MixingParameters(k=5))


def test_probabilities_are_a_softmax_in_which_the_known_labels_are_one_class() -> None:
    logits = np.array([1.0, 0.0, 0.0])
    # "phone" as a word, and as one run of characters.
    logits += np.array([-1.0, 2.0, 0.0]) + np.array([0.0, 1.0, 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    words = AddedWords(ADDED)
    np.testing.assert_allclose(words.ask(["Phone"])[0], expected[1:], atol=1e-3)
    taken = [words_of("Phone", most=8)]
    np.testing.assert_array_equal(words.probabilities(taken), words.ask(["Phone"]))


def test_what_words_say_is_told_for_the_added_label() -> None:
    found = AddedWords(ADDED).said_by_words(words_of("a sim card", most=8), 1, 0.5)
    assert [word.word for word in found] == ["a", "sim", "card"]
    assert found[1].weight == found[2].weight > 0 == found[0].weight


@given(seed=st.integers(0, 50), share=st.floats(0, 0.99))
def test_an_added_label_is_shared_between_neighbours_and_words_and_the_rest_keeps_its_shares(
    seed: int, share: float
) -> None:
    before = mixed(seed, 3, 2)
    said = np.random.default_rng(seed).dirichlet(np.ones(3), 4).astype(np.float32)[:, 1:]
    after = mix_added(before, said, share)
    np.testing.assert_allclose(after.probabilities.sum(1), 1, atol=1e-5)
    expected = (1 - share) * before.probabilities[:, 3:] + share * said
    np.testing.assert_allclose(after.probabilities[:, 3:], expected, atol=1e-6)
    was, is_now = before.probabilities[:, :3], after.probabilities[:, :3]
    np.testing.assert_allclose(
        is_now / is_now.sum(1, keepdims=True), was / was.sum(1, keepdims=True), atol=1e-4
    )
    assert after._replace(probabilities=before.probabilities) == before


def test_where_neighbours_leave_nothing_to_the_known_labels_the_student_says_how_they_stand() -> (
    None
):
    store = np.array([[0, 0, 1]], np.float32)
    student = np.array([[0.75, 0.25, 0]], np.float32)
    before = Mixed(store, student, store, np.ones(1, np.float32))
    after = mix_added(before, np.array([[0.2]], np.float32), 0.5)
    np.testing.assert_allclose(after.probabilities, [[0.3, 0.1, 0.6]], atol=1e-6)

"""Diversity measures: exact, seeded, and moved by what they are meant to measure."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from offline.teacher.diversity import (
    copy_share,
    distinct_n,
    distinct_share,
    self_bleu,
    stratified_rows,
)

WORDS = ["my", "card", "is", "lost", "where", "has", "the", "money", "gone", "can't", "it", ","]


def by_sacrebleu(texts: list[str]) -> float:
    """The definition itself: each text against all others, by the library."""
    bleu = BLEU(lowercase=True, effective_order=True, smooth_method="exp")
    scores = [
        bleu.sentence_score(text, texts[:place] + texts[place + 1 :]).score / 100
        for place, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)


def babble(number: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(1, 14))) for _ in range(number)]


@pytest.mark.parametrize("seed", range(3))
def test_self_bleu_is_the_library_s_sentence_bleu_against_all_others(seed: int) -> None:
    texts = [*babble(60, seed), "Help!", "help", "Where, where, where IS it?", "it's me-too & you"]
    expected = by_sacrebleu(texts)
    assert self_bleu(texts, ["a"] * len(texts), seed=0) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab .,", min_size=1, max_size=12), min_size=2, max_size=6))
def test_self_bleu_agrees_with_the_library_on_odd_texts(texts: list[str]) -> None:
    assert self_bleu(texts, ["a"] * len(texts), seed=0) == pytest.approx(
        by_sacrebleu(texts), abs=1e-12
    )


def test_self_bleu_falls_from_copies_to_different_texts() -> None:
    copies = ["where has all the money gone"] * 50
    different = [f"a{n} b{n} c{n} d{n} e{n}" for n in range(50)]
    labels = ["x"] * 50
    assert self_bleu(copies, labels, seed=0) == pytest.approx(1.0)
    assert self_bleu(different, labels, seed=0) == 0.0
    mixed = self_bleu([*copies[:25], *different[25:]], labels, seed=0)
    assert 0.4 < mixed < 0.6


def test_self_bleu_depends_on_the_seed_only_through_the_choice_of_samples() -> None:
    texts, labels = babble(400, 0), ["a", "b"] * 200
    first = self_bleu(texts, labels, seed=1, samples=100)
    assert first == self_bleu(texts, labels, seed=1, samples=100)
    assert first != self_bleu(texts, labels, seed=2, samples=100)
    assert self_bleu(texts, labels, seed=1) == self_bleu(texts, labels, seed=2)


def test_self_bleu_of_less_than_two_texts_is_zero() -> None:
    assert self_bleu([], [], seed=0) == 0.0
    assert self_bleu(["alone"], ["a"], seed=0) == 0.0


def test_samples_are_stratified_and_filled_up_from_larger_labels() -> None:
    labels = ["big"] * 80 + ["middle"] * 30 + ["small"] * 5
    rows = stratified_rows(labels, 60, seed=0)
    chosen = [labels[row] for row in rows]
    assert len(set(rows)) == 60
    assert {name: chosen.count(name) for name in set(labels)} == {
        "big": 28,
        "middle": 27,
        "small": 5,
    }
    assert rows != list(range(60))


def test_distinct_share_and_copies_are_compared_on_letters_and_digits() -> None:
    assert distinct_share(["Lost card!", "lost  CARD", "found card"]) == pytest.approx(2 / 3)
    assert copy_share(["Lost card!", "new one"], ["lost card", "other"]) == 0.5
    assert distinct_share([]) == 1.0
    assert copy_share([], ["a"]) == 0.0


def test_distinct_n_counts_distinct_sequences_of_words() -> None:
    assert distinct_n(["a b a b"], 1) == 0.5
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a"], 2) == 1.0

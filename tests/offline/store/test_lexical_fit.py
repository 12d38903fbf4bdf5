"""What the lexical index learns from knowledge items, and what it leaves out."""

import os

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

from offline.store import lexical_fit
from offline.store.lexical_fit import fit_lexical
from services.student.lexical import LexicalIndex, LexicalWeights, characters_of

WORDS = (("password", "login", "locked"), ("printer", "toner", "paper"), ("wifi", "vpn", "cable"))
NEUTRAL = ("my", "the", "please", "again", "help", "now")


def sentences(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = np.arange(count) % len(WORDS)
    texts = [
        " ".join(rng.permutation([*rng.choice(WORDS[label], 1), *rng.choice(NEUTRAL, 3)]))
        for label in gold
    ]
    return texts, gold


def soft_labels(gold: np.ndarray, labels: int = len(WORDS)) -> np.ndarray:
    soft = np.full((len(gold), labels), 0.1 / (labels - 1), np.float32)
    soft[np.arange(len(gold)), gold] = 0.9
    return soft


def grams(fitted: LexicalWeights) -> set[tuple[int, str]]:
    return {(0, run) for run in fitted.runs} | {(1, run) for run in fitted.characters}


def fit(count: int = 90, **options: object) -> LexicalWeights:
    texts, gold = sentences(count, 0)
    return fit_lexical(texts, None, soft_labels(gold), **{"known": 3, "most_words": 16} | options)


def test_unseen_sentences_are_answered_by_their_words_and_by_parts_of_them() -> None:
    index = LexicalIndex(fit())
    texts, gold = sentences(60, 1)
    assert (index.ask(texts).argmax(1) == gold).all()
    # Neither word is in an item; their parts are.
    assert index.ask(["passwords", "printers", "vpns"]).argmax(1).tolist() == [0, 1, 2]


def test_probabilities_come_close_to_the_teachers() -> None:
    texts, gold = sentences(300, 0)
    logits = LexicalIndex(fit(300)).ask(texts)
    exponents = np.exp(logits)
    assert np.abs(exponents / exponents.sum(1, keepdims=True) - soft_labels(gold)).mean() < 0.03


def test_an_ngram_of_one_item_alone_is_left_out() -> None:
    texts, gold = sentences(90, 0)
    texts[0] += " unique unique"
    fitted = fit_lexical(texts, None, soft_labels(gold), known=3, most_words=16)
    assert "unique" not in fitted.runs
    assert set(characters_of("unique")).isdisjoint(fitted.characters)
    assert "wifi" in fitted.runs
    assert list(fitted.runs) == sorted(fitted.runs)
    assert list(fitted.characters) == sorted(fitted.characters)


def test_items_of_labels_that_the_student_does_not_know_have_no_part() -> None:
    texts, gold = sentences(90, 0)
    new = ["handset dialling tone"] * 20
    soft = soft_labels(np.concatenate([gold, np.full(20, 3)]), 4)
    with_new = fit_lexical([*texts, *new], None, soft, known=3, most_words=16)
    assert "handset" not in with_new.runs
    assert with_new.weights.shape[1] == 3
    assert np.isfinite(with_new.weights.astype(np.float32)).all()


def test_the_most_frequent_ngrams_are_kept_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit()
    monkeypatch.setattr(lexical_fit, "MOST_GRAMS", 30)
    fitted = fit()
    assert len(grams(fitted)) == 30
    assert grams(fitted) < grams(whole)
    np.testing.assert_array_equal(np.sort(fitted.idf), np.sort(whole.idf)[:30])


def test_of_very_many_items_some_are_drawn_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lexical_fit, "MOST_ITEMS", 60)
    one, other = fit(), fit()
    np.testing.assert_array_equal(one.weights, other.weights)
    texts, gold = sentences(90, 0)
    everything = fit_lexical(texts[:60], None, soft_labels(gold[:60]), known=3, most_words=16)
    assert grams(one) != grams(everything)
    texts, gold = sentences(60, 1)
    assert (LexicalIndex(one).ask(texts).argmax(1) == gold).mean() > 0.9


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_ANSWERS", 3 * 60), ("MOST_WORDS", 4 * 60), ("MOST_ITEMS", 60)]
)
def test_items_answers_and_words_are_limited(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fit_head = lexical_fit.fit_soft_head

    def spy(features: sparse.csr_array, *args: object, **options: object) -> object:
        seen.append(features.shape[0])
        return fit_head(features, *args, **options)

    monkeypatch.setattr(lexical_fit, "fit_soft_head", spy)
    monkeypatch.setattr(lexical_fit, limit, value)
    fit()
    assert seen == [60]


@pytest.mark.parametrize(
    "texts", [[], ["my wifi"], ["my wifi", "My Wi-Fi"], ["!!!", "! !!"], ["", ""]]
)
def test_less_than_two_distinct_texts_make_an_index_that_says_nothing(texts: list[str]) -> None:
    soft = np.full((len(texts), 3), 1 / 3, np.float32)
    fitted = fit_lexical(texts, None, soft, known=3, most_words=16)
    assert not grams(fitted)
    assert not LexicalIndex(fitted).ask(["my wifi", ""]).any()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has one thread")
def test_the_weights_are_the_same_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("bdklmnrstaeiou"), 6)) for _ in range(400)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(600)]
    soft = rng.dirichlet(np.ones(6), 600).astype(np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(fit_lexical(texts, None, soft, known=6, most_words=16))
    assert found[0].weights.size > 20_000, "BLAS leaves short sums to one thread"
    assert found[0].weights.tobytes() == found[1].weights.tobytes()
    assert found[0].bias.tobytes() == found[1].bias.tobytes()

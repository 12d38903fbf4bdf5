"""What the lexical index learns from knowledge items, and what it leaves out."""

import numpy as np
import pytest

from offline.store import lexical_fit
from offline.store.lexical_fit import fit_lexical
from services.student.lexical import LexicalIndex, LexicalWeights, character_keys, word_key

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
    assert word_key("unique") not in fitted.keys.tolist()
    assert set(character_keys("unique").tolist()).isdisjoint(fitted.keys.tolist())
    assert word_key("wifi") in fitted.keys.tolist()
    assert (np.diff(fitted.keys.astype(object)) > 0).all()


def test_items_of_labels_that_the_student_does_not_know_have_no_part() -> None:
    texts, gold = sentences(90, 0)
    new = ["handset dialling tone"] * 20
    soft = soft_labels(np.concatenate([gold, np.full(20, 3)]), 4)
    with_new = fit_lexical([*texts, *new], None, soft, known=3, most_words=16)
    assert word_key("handset") not in with_new.keys.tolist()
    assert with_new.weights.shape[1] == 3
    assert np.isfinite(with_new.weights.astype(np.float32)).all()


def test_the_most_frequent_ngrams_are_kept_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit()
    monkeypatch.setattr(lexical_fit, "MOST_GRAMS", 30)
    fitted = fit()
    assert len(fitted.keys) == 30
    assert set(fitted.keys.tolist()) < set(whole.keys.tolist())
    np.testing.assert_array_equal(np.sort(fitted.idf), np.sort(whole.idf)[:30])


def test_of_very_many_items_some_are_drawn_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lexical_fit, "MOST_ITEMS", 60)
    one, other = fit(), fit()
    np.testing.assert_array_equal(one.weights, other.weights)
    texts, gold = sentences(90, 0)
    everything = fit_lexical(texts[:60], None, soft_labels(gold[:60]), known=3, most_words=16)
    assert one.keys.tolist() != everything.keys.tolist()
    texts, gold = sentences(60, 1)
    assert (LexicalIndex(one).ask(texts).argmax(1) == gold).mean() > 0.9

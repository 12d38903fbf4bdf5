"""Fitting the words of labels that came with edits, and asking about items that a fit has not seen."""

import numpy as np
import pytest

from offline.knowledge.added_words_fit import (
    MOST_LABELS,
    FittedItems,
    LeftOutWords,
    fit_added_words,
)

KNOWN = 2
PHONES = (
    "my phone is dead",
    "phone without signal",
    "the phone rings and rings",
    "a new phone please",
    "phone fell into water",
    "lost phone",
)


@pytest.fixture(scope="module")
def items() -> FittedItems:
    """120 items of two labels that the student knows, and six of an added one."""
    rng = np.random.default_rng(0)
    words = (("printer", "toner", "page", "jam"), ("wifi", "router", "network", "slow"))
    texts, soft = [], []
    for number in range(120):
        own = words[number % 2]
        texts.append(
            " ".join([*rng.choice(own, 2), *rng.choice(["my", "the", "please", "now"], 2)])
        )
        soft.append([0.9, 0.1, 0] if number % 2 == 0 else [0.1, 0.9, 0])
    texts += PHONES
    soft += [[0, 0, 1]] * len(PHONES)
    return FittedItems(texts, None, np.array(soft, np.float32))


def test_a_few_texts_are_enough_to_know_an_added_label_s_words(items: FittedItems) -> None:
    fit = fit_added_words(items, known=KNOWN, most_words=8)
    assert fit is not None
    found = fit.ask(["my phone please", "toner jam please", "slow wifi now"])[:, 0]
    assert found[0] > 0.5 > max(found[1:])
    again = fit_added_words(items, known=KNOWN, most_words=8)
    assert again is not None
    np.testing.assert_array_equal(again.weights.weights, fit.weights.weights)
    np.testing.assert_array_equal(again.weights.bias, fit.weights.bias)


def test_fewer_items_of_the_known_labels_say_the_same(
    items: FittedItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["my phone please", "toner jam please", "something else"]
    whole = fit_added_words(items, known=KNOWN, most_words=8)
    monkeypatch.setattr("offline.knowledge.added_words_fit.MOST_KNOWN", 40)
    some = fit_added_words(items, known=KNOWN, most_words=8)
    assert whole is not None
    assert some is not None
    # How common the label looks is corrected for what was left away.
    np.testing.assert_allclose(some.ask(texts), whole.ask(texts), atol=0.12)


def test_without_added_labels_or_with_too_many_there_are_no_words(items: FittedItems) -> None:
    assert fit_added_words(items, known=3, most_words=8) is None
    many = np.zeros((126, KNOWN + MOST_LABELS + 1), np.float32)
    many[:, :3] = items.soft_labels
    assert fit_added_words(FittedItems(items.texts, None, many), known=KNOWN, most_words=8) is None


def test_an_item_is_asked_about_by_a_fit_that_has_seen_neither_it_nor_its_like(
    items: FittedItems,
) -> None:
    # A word that two items of one group alone have; another item has a word of its own.
    texts = [*items.texts, "quokka quokka", "quokka", "wombat here"]
    soft = np.concatenate([items.soft_labels, np.tile([[0, 0, 1]], (3, 1))]).astype(np.float32)
    more = FittedItems(texts, None, soft)
    together = LeftOutWords(
        more, [[126, 127], *([row] for row in range(126)), [128]], known=KNOWN, most_words=8
    )
    apart = LeftOutWords(more, [[row] for row in range(129)], known=KNOWN, most_words=8)
    fit = fit_added_words(more, known=KNOWN, most_words=8)
    asked, alone = together.ask([126, 127, 0]), apart.ask([126, 127, 0])
    assert fit is not None
    seen = fit.ask(["quokka quokka", "quokka", texts[0]])
    assert asked is not None
    assert alone is not None
    assert max(asked[:2, 0]) < min(seen[:2, 0])
    assert max(asked[:2, 0]) < max(alone[:2, 0])
    assert asked[2, 0] < 0.3


def test_where_not_all_can_be_fitted_it_is_the_known_labels_items_that_are_left_out(
    items: FittedItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_added_words(items, known=KNOWN, most_words=8)
    assert whole is not None
    texts = ["my phone please", "toner jam please"]
    for name, limit in (("MOST_WORDS", 120), ("MOST_ANSWERS", 60)):
        with monkeypatch.context() as patch:
            patch.setattr(f"offline.knowledge.added_words_fit.{name}", limit)
            patch.setattr(f"offline.store.lexical_fit.{name}", limit)
            fit = fit_added_words(items, known=KNOWN, most_words=8)
        assert fit is not None
        assert fit.weights.runs != whole.weights.runs
        assert {"phone"} <= set(fit.weights.runs)
        found = fit.ask(texts)[:, 0]
        assert found[0] > 0.5 > found[1]

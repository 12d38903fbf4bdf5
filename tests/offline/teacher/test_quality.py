"""Screening of samples: each fault has its reason, and what is good stays."""

import numpy as np
import pytest
from numpy.typing import NDArray

from offline.teacher.near_duplicates import (
    WordingIndex,
    find_near_duplicates,
    jaccard_similarity,
    shingles,
)
from offline.teacher.quality import REASONS, QualityConfig, Screened, screen

KNOWN = [
    "I lost my card on the train this morning.",
    "Why was I charged a fee for my transfer?",
    *(f"Where is the card number {number}, the one that I asked for?" for number in range(60)),
]
LABELS = ["lost card", "transfer fee"]


def unit(rows: int, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(rows, 64))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def screened(
    texts: list[str],
    confidence: list[float] | None = None,
    embeddings: NDArray[np.float32] | None = None,
    **config: object,
) -> Screened:
    """Samples written for the first label, which the labeller gives `confidence`."""
    first = np.array(confidence or [0.9] * len(texts), dtype=np.float32)
    return screen(
        texts,
        np.zeros(len(texts), dtype=np.int64),
        unit(len(texts), 1) if embeddings is None else embeddings,
        np.stack([first, 1 - first], axis=1),
        known_texts=KNOWN,
        known_embeddings=unit(len(KNOWN), 2),
        label_texts=LABELS,
        config=QualityConfig.model_validate({"balance": 100, **config}),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ?! ", "empty"),
        ("##ing my card to the bank", "broken"),
        ("please send [UNK] to me", "broken"),
        ("Lost, lost card!", "label_words"),
        ("stolen", "too_short"),
        ("someone took it and " * 12 + "ran", "too_long"),
        ("i cannot find my", None),
        ("please tell me where to find the", "unfinished"),
        ("gone gone gone gone is gone", "repetitive"),
        ("i lost my CARD on the train, this morning", "copy"),
        ("I lost my card on the train this mornings.", "near_copy"),
        ("somebody took my wallet at the station", None),
    ],
)
def test_every_fault_of_a_text_has_its_reason(text: str, reason: str | None) -> None:
    assert screened([text]).reasons == [reason]


def test_the_surest_of_near_duplicates_stays() -> None:
    texts = [
        "my wallet was taken at the station today",
        "my wallet was taken at the station today!!",
        "my wallet was taken at the station todays",
        "the cash machine has eaten it",
    ]
    found = screened(texts, [0.6, 0.7, 0.95, 0.9])
    assert found.reasons == ["near_duplicate", "duplicate", None, None]
    assert found.kept == [2, 3]


def test_samples_that_mean_the_same_in_other_words_are_near_duplicates() -> None:
    embeddings = unit(3)
    embeddings[1] = embeddings[0] + 0.01 * embeddings[2]
    embeddings[1] /= np.linalg.norm(embeddings[1])
    texts = ["my wallet is gone", "somebody stole the purse", "a third thing altogether"]
    found = screened(texts, embeddings=embeddings)
    assert found.reasons == [None, "near_duplicate", None]
    assert found.nearest[1] > 0.99
    assert found.nearest[0] < 0.97


def test_a_sample_of_another_label_stays_unless_the_configuration_says_drop() -> None:
    texts = ["what does it cost to send money", "somebody took my wallet"]
    assert screened(texts, [0.1, 0.9]).reasons == [None, None]
    assert screened(texts, [0.1, 0.9], other_label="drop").reasons == ["other_label", None]


def test_a_sample_that_the_labeller_is_unsure_of_goes_below_the_threshold() -> None:
    texts = ["what does it cost to send money", "somebody took my wallet"]
    assert screened(texts, [0.55, 0.9], min_confidence=0.6).reasons == ["low_confidence", None]


def test_surplus_of_a_label_is_dropped_from_the_end() -> None:
    texts = [
        f"{word} took my wallet in {word}town" for word in ["anna", "bert", "carl", "dora", "emil"]
    ]
    found = screened([*texts, "what is the fee"], [0.9] * 5 + [0.1], balance=1.0)
    assert found.reasons == [None, None, None, "surplus", "surplus", None]


def test_reasons_are_counted_and_explained() -> None:
    found = screened(["?", "!", "stolen", "somebody took my wallet"])
    assert found.counts() == {"empty": 2, "too_short": 1}
    assert set(found.counts()) <= set(REASONS)


def test_no_samples_give_no_reasons() -> None:
    assert screened([]).reasons == []


def test_the_wording_index_finds_what_brute_force_finds() -> None:
    random = np.random.default_rng(0)
    words = ["card", "lost", "money", "where", "please", "transfer", "today", "bank", "why", "app"]
    texts = [" ".join(random.choice(words, size=9)) for _ in range(120)]
    texts += [text.replace("card", "cards", 1) for text in texts[:60]]
    index = WordingIndex(0.7)
    for text in texts[:120]:
        index.add(text)
    missed = wrong = near = 0
    for text in texts[120:]:
        similarities = [
            jaccard_similarity(shingles(text), shingles(other)) for other in texts[:120]
        ]
        found, best = index.find(text), max(similarities)
        wrong += found is not None and similarities[found] < 0.7
        near += best >= 0.7
        missed += best >= 0.7 and found is None
    assert near > 30
    assert wrong == 0
    assert missed <= near // 20


def test_blocks_do_not_change_what_is_found() -> None:
    rows = 700
    embeddings = unit(rows)
    copies = np.arange(1, rows, 3)
    embeddings[copies] = embeddings[copies - 1]
    texts = [f"text {row:04d} {row * 7919:06d} {row * 104729:08d}" for row in range(rows)]
    found = find_near_duplicates(
        texts,
        embeddings,
        known_texts=[],
        known_embeddings=np.empty((0, 64), np.float32),
        jaccard=0.9,
        similarity=0.97,
    )
    assert np.flatnonzero(found.meaning).tolist() == copies.tolist()
    assert found.nearest[0] == -1
    assert not found.known.any()


def test_the_same_samples_are_found_in_every_run() -> None:
    texts = [*KNOWN[2:], "somebody took my wallet"]
    first, second = screened(texts), screened(texts)
    assert first.reasons == second.reasons
    assert np.array_equal(first.nearest, second.nearest)

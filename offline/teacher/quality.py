"""Which generated samples become knowledge: each that is dropped has one reason, and reasons are counted."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from offline.configs.section import Section
from offline.tasks.normal_form import has_letters_or_digits, letters_and_digits
from offline.teacher.near_duplicates import find_near_duplicates
from offline.teacher.text_memory import words_of

REASONS: Mapping[str, str] = {
    "incomplete": "did not come to its end in time",
    "empty": "no text, or no letter or digit",
    "broken": "holds leavings of a tokenizer: `##ing`, `[UNK]`, `<unk>`, a replacement character",
    "label_words": "nothing but words of a label's name",
    "too_short": "fewer words than `min_words`",
    "too_long": "longer than any training text, by a wide margin",
    "unfinished": "ends in a word that the training texts use often and never end in",
    "repetitive": "says the same words over and over",
    "copy": "a training or unlabelled text",
    "low_confidence": "the labeller is sure of no label",
    "other_label": "the labeller takes it for another label than it was written for",
    "duplicate": "an earlier sample, letter by letter",
    "near_copy": "nearly a training or unlabelled text",
    "near_duplicate": "nearly another sample that is kept",
    "surplus": "its label has far more samples than the others",
}
"""Every reason, in the order in which they are looked for, and what it means."""

# A word that ended texts as often as the average word would have ended this many training texts: only then
# does "never" say anything. Of real texts (banking77, trec, emotion, sst2, helpdesk; 330 to 2,000 known)
# the rule drops 0 to 0.8 %.
_EXPECTED_ENDS = 5
_MOST_REPEATED = 0.5
_LEAVINGS = re.compile(r"(?:^|\s)##\w|\[UNK\]|<unk>|\ufffd")


class QualityConfig(Section):
    """What a generated sample has to be.

    Attributes:
        min_words: fewer are too short.
        max_length: longest text, as a multiple of the longest training text (in words).
        min_confidence: probability of the labeller's first label below which a sample is dropped.
        other_label: what becomes of a sample that the labeller takes for another label than it was
            written for: `keep`, since its soft label says what it is, or `drop`. On banking77 (10 a
            class, 6,000 samples of which 63 % agree, judged on left-over training rows) a linear student of
            word features had 0.577 with them and 0.538 without; neighbours' soft labels in the
            labeller's space were as good either way, and confidence thresholds up to 0.5 gained nothing.
        jaccard: of four-character sequences, from which on two texts are near-duplicates.
        similarity: cosine of the labeller's embeddings, from which on they are.
        balance: a label may have this many times the mean number of samples a label; what is written
            later is dropped.
    """

    min_words: Annotated[int, Field(ge=1)] = 2
    max_length: Annotated[float, Field(gt=0)] = 1.5
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    other_label: Literal["keep", "drop"] = "keep"
    jaccard: Annotated[float, Field(gt=0, le=1)] = 0.8
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.97
    balance: Annotated[float, Field(ge=1)] = 2.0


@dataclass(frozen=True, slots=True)
class Screened:
    """What became of each sample.

    Attributes:
        reasons: n reasons (a key of `REASONS`), None for a kept sample.
        nearest: (n,) cosine to the most similar text that is known or kept; -1 where it was not looked
            for, since the sample was dropped before.
    """

    reasons: list[str | None]
    nearest: NDArray[np.float32]

    @property
    def kept(self) -> list[int]:
        """Rows of the kept samples, ascending."""
        return [row for row, reason in enumerate(self.reasons) if reason is None]

    def counts(self) -> dict[str, int]:
        """How many were dropped for each reason, in the order of `REASONS`; zeros are left out."""
        return in_order_of_reasons(Counter(reason for reason in self.reasons if reason is not None))


def in_order_of_reasons(found: Counter[str]) -> dict[str, int]:
    """Counts in the order of `REASONS`; zeros are left out."""
    return {reason: found[reason] for reason in REASONS if found[reason]}


def screen(
    texts: Sequence[str],
    written_for: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    soft_labels: NDArray[np.float32],
    *,
    known_texts: Sequence[str],
    known_embeddings: NDArray[np.float32],
    label_texts: Sequence[str],
    config: QualityConfig,
) -> Screened:
    """Screen generated samples. Of near-duplicates the one stays that the labeller is surest of.

    Args:
        texts: n samples; pairs joined by the caller.
        written_for: (n,) the label that each was written for.
        embeddings: (n, d) by the labeller, of unit length.
        soft_labels: (n, labels) by the labeller.
        known_texts: m training and unlabelled texts.
        known_embeddings: (m, d).
        label_texts: what describes each label, in words.
        config: thresholds.
    """
    check = TextCheck(known_texts, label_texts, config)
    known_forms = set(map(letters_and_digits, known_texts))
    reasons: list[str | None] = []
    seen: set[str] = set()
    for row, text in enumerate(texts):
        reason = check(text)
        form = letters_and_digits(text)
        if reason is None and form in known_forms:
            reason = "copy"
        if reason is None and soft_labels[row].max() < config.min_confidence:
            reason = "low_confidence"
        if reason is None and config.other_label == "drop":
            reason = "other_label" if soft_labels[row].argmax() != written_for[row] else None
        if reason is None and form in seen:
            reason = "duplicate"
        if reason is None:
            seen.add(form)
        reasons.append(reason)

    rows = np.array([row for row, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    rows = rows[np.argsort(-soft_labels[rows].max(1), kind="stable")]
    found = find_near_duplicates(
        [texts[row] for row in rows],
        embeddings[rows],
        known_texts=known_texts,
        known_embeddings=known_embeddings,
        jaccard=config.jaccard,
        similarity=config.similarity,
    )
    nearest = np.full(len(texts), -1.0, dtype=np.float32)
    nearest[rows] = found.nearest
    for place in np.flatnonzero(~found.kept):
        reasons[rows[place]] = "near_copy" if found.known[place] else "near_duplicate"
    _drop_surplus(reasons, soft_labels, config.balance)
    return Screened(reasons, nearest)


class TextCheck:
    """What can be said of a text by its words alone.

    Args:
        known_texts: training and unlabelled texts: how long texts are, and how they end.
        label_texts: what describes each label, in words.
        config: thresholds.
    """

    def __init__(
        self, known_texts: Sequence[str], label_texts: Sequence[str], config: QualityConfig
    ) -> None:
        words = [words_of(text) for text in known_texts]
        counts = Counter(word for text in words for word in text)
        last = {text[-1] for text in words if text}
        common = _EXPECTED_ENDS * counts.total() / max(len(words), 1)
        self._never_last = {word for word, n in counts.items() if n >= common and word not in last}
        self._known_leavings = any(map(_LEAVINGS.search, known_texts))
        self._longest = config.max_length * max(map(len, words), default=0)
        self._shortest = config.min_words
        self._labels = [set(words_of(text)) for text in label_texts]

    def __call__(self, text: str) -> str | None:
        """The reason to drop it, or None."""
        if not has_letters_or_digits(text):
            return "empty"
        if _LEAVINGS.search(text) and not self._known_leavings:
            return "broken"
        words = words_of(text)
        spoken = [word for word in words if has_letters_or_digits(word)]
        if any(set(spoken) <= label for label in self._labels):
            return "label_words"
        if len(spoken) < self._shortest:
            return "too_short"
        if len(words) > self._longest:
            return "too_long"
        if words[-1] in self._never_last:
            return "unfinished"
        if len(spoken) >= 4 and len(set(spoken)) / len(spoken) < _MOST_REPEATED:
            return "repetitive"
        return None


def _drop_surplus(
    reasons: list[str | None], soft_labels: NDArray[np.float32], balance: float
) -> None:
    """Mark what is beyond `balance` times the mean number of kept samples a label, by soft label."""
    labels = soft_labels.argmax(1)
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    most = int(np.ceil(balance * len(kept) / soft_labels.shape[1]))
    counts: Counter[int] = Counter()
    for row in kept:
        counts[int(labels[row])] += 1
        if counts[int(labels[row])] > most:
            reasons[row] = "surplus"

"""How far the store's answer is corrected for the few items that a label which came with an edit has.

Fitted for each edited release, by the mean recall over all labels: that of a label the student knows on the
validation rows, that of a new one on its own items, half of it with each item left out of its own neighbours, and
half with it there, since a person expects the very sentences they added to be recognised. So a new label is
helped as far as it costs the others less.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline.knowledge.asking import AskedKnowledge, Scores
from offline.tasks.prepared import Examples

BALANCES = tuple(step / 10 for step in range(11))
STAND_INS = 400
"""Items of known labels, each without itself, where the task has no validation rows."""

_Rows = list[tuple[Scores, NDArray[np.int64]]]


def fit_balance(asked: AskedKnowledge, held_out: Examples) -> float:
    """The balance, of `BALANCES`, with the best mean recall; the smallest of equal ones.

    Args:
        asked: the edited knowledge.
        held_out: labelled rows that are no items; may be empty.
    """
    labels = asked.knowledge.metadata.labels
    if len(labels) == asked.known:
        return 0.0
    by_label = list(enumerate(asked.items_by_label().values()))
    rows: _Rows = [_known_rows(asked, held_out, by_label)]
    for position, items in by_label[asked.known :]:
        gold = np.full(len(items), position)
        texts, pairs = asked.items(items)
        rows.append((asked.scores(texts, pairs, asked.without_themselves(items)), gold))
        rows.append((asked.scores(texts, pairs), gold))
    recalls = [_mean_recall(asked, rows, balance) for balance in BALANCES]
    # Rounding must not decide between equal ones.
    return BALANCES[int(np.argmax(np.round(recalls, 6)))]


def _known_rows(
    asked: AskedKnowledge, held_out: Examples, by_label: Sequence[tuple[int, list[int]]]
) -> tuple[Scores, NDArray[np.int64]]:
    """Rows of the labels that the student knows: held-out ones, or items where there are none."""
    if len(held_out):
        place = {label: position for position, label in enumerate(asked.knowledge.metadata.labels)}
        gold = np.array([place[name] for name in held_out.labels or []], np.int64)
        return asked.scores(held_out.texts, held_out.pairs), gold
    most = max(1, STAND_INS // asked.known)
    chosen = [
        (row, position) for position, items in by_label[: asked.known] for row in items[:most]
    ]
    rows = [row for row, _ in chosen]
    gold = np.array([position for _, position in chosen], np.int64)
    texts, pairs = asked.items(rows)
    return asked.scores(texts, pairs, asked.without_themselves(rows)), gold


def _mean_recall(asked: AskedKnowledge, rows: _Rows, balance: float) -> float:
    right = np.zeros(len(asked.knowledge.metadata.labels))
    counts = np.zeros_like(right)
    for scores, gold in rows:
        answers = asked.answers(scores, balance)
        np.add.at(right, gold, answers == gold)
        np.add.at(counts, gold, 1)
    of = counts > 0
    return float(np.mean(right[of] / counts[of])) if of.any() else 0.0

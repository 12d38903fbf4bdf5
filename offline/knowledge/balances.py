"""How far the store's answer is corrected for the few items that each label which came with an edit has.

Fitted for each edited release, by the mean recall over all labels: that of a label the student knows on the
validation rows, that of a new one on its own items, half of it with each item left out of its own neighbours, and
half with it there, since a person expects the very sentences they added to be recognised. So a new label is
helped as far as it costs the others less; one that cannot be found takes nothing from one that can.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline.knowledge.asking import AskedKnowledge, Scores
from offline.tasks.prepared import Examples

BALANCES = tuple(step / 10 for step in range(11))
STAND_INS = 400
"""Items of known labels, each without itself, where the task has no validation rows."""

_ROUNDS = 2
_ONE_BY_ONE = 20
"""More new labels than this share one balance: trying them one by one would take too long."""

_Rows = list[tuple[Scores, NDArray[np.int64]]]


def fit_balances(asked: AskedKnowledge, held_out: Examples) -> tuple[float, ...]:
    """The balances of the new labels, each of `BALANCES`, with the best mean recall.

    First the same for all, then one label after the other; the smallest of equal ones.

    Args:
        asked: the edited knowledge.
        held_out: labelled rows that are no items; may be empty.
    """
    by_label = list(enumerate(asked.items_by_label().values()))
    new = by_label[asked.known :]
    if not new:
        return ()
    rows: _Rows = [_known_rows(asked, held_out, by_label)]
    for position, items in new:
        gold = np.full(len(items), position)
        rows.append((asked.scores_of_left_out(items), gold))
        rows.append((asked.scores(*asked.items(items)), gold))
    fitted = _best(asked, rows, [[one] * len(new) for one in BALANCES])
    for _ in range(_ROUNDS if len(new) <= _ONE_BY_ONE else 0):
        before = fitted
        for place in range(len(new)):
            tried = [[*fitted[:place], one, *fitted[place + 1 :]] for one in BALANCES]
            fitted = _best(asked, rows, tried)
        if fitted == before:
            break
    return tuple(fitted)


def _best(asked: AskedKnowledge, rows: _Rows, tried: Sequence[list[float]]) -> list[float]:
    """Those with the best mean recall, the first of equal ones; rounding must not decide."""
    recalls = [round(_mean_recall(asked, rows, balances), 6) for balances in tried]
    return tried[int(np.argmax(recalls))]


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
    return asked.scores_of_left_out(rows), gold


def _mean_recall(asked: AskedKnowledge, rows: _Rows, balances: Sequence[float]) -> float:
    right = np.zeros(len(asked.knowledge.metadata.labels))
    counts = np.zeros_like(right)
    for scores, gold in rows:
        answers = asked.answers(scores, balances)
        np.add.at(right, gold, answers == gold)
        np.add.at(counts, gold, 1)
    of = counts > 0
    return float(np.mean(right[of] / counts[of])) if of.any() else 0.0

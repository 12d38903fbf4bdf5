"""The gate: may a candidate take the place of the live release?"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from offline.configs.section import Section

ROUNDING = 1e-9
"""A drop of exactly the threshold passes, whatever the last binary digit says."""


class ReleaseConfig(Section):
    """When a release goes live.

    Attributes:
        activate: whether a release that passes the gate is made live at once.
        accuracy_drop: largest drop in accuracy against the live release on the held-out rows.
        label_drop: largest drop in a label's recall there, for labels with at least
            `label_rows` rows.
        label_rows: fewer rows than this say nothing of a label.
        recall: smallest share of the exact nearest items that a re-indexed version may find.
    """

    activate: bool = True
    accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    label_drop: Annotated[float, Field(ge=0, le=1)] = 0.34
    label_rows: Annotated[int, Field(ge=1)] = 5
    recall: Annotated[float, Field(ge=0, le=1)] = 0.95


def reasons_against(
    candidate: NDArray[np.int64],
    live: NDArray[np.int64],
    gold: NDArray[np.int64],
    labels: Sequence[str],
    config: ReleaseConfig,
) -> tuple[str, ...]:
    """Why the candidate should not go live; empty when nothing speaks against it.

    Args:
        candidate: (n,) its answers on held-out rows, as positions in `labels`.
        live: (n,) the live release's answers on the same rows.
        gold: (n,) the right ones.
        labels: names of the labels.
        config: the thresholds.
    """
    if not len(gold):
        return ()
    reasons: list[str] = []
    then, now = float(np.mean(live == gold)), float(np.mean(candidate == gold))
    if then - now > config.accuracy_drop + ROUNDING:
        reasons.append(
            f"accuracy on {len(gold)} held-out rows fell from {then:.3f} to {now:.3f}, "
            f"more than the allowed {config.accuracy_drop}"
        )
    for position, label in enumerate(labels):
        rows = gold == position
        if rows.sum() < config.label_rows:
            continue
        then = float(np.mean(live[rows] == position))
        now = float(np.mean(candidate[rows] == position))
        if then - now > config.label_drop + ROUNDING:
            reasons.append(
                f"recall of {label!r} on {rows.sum()} held-out rows fell from {then:.2f} to "
                f"{now:.2f}, more than the allowed {config.label_drop}"
            )
    return tuple(reasons)

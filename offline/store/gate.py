"""The gate: may a candidate take the place of the live release?

It is judged by what it answers on held-out rows, by how that differs from the live release's answers, by the time it
takes, and by what the approximate search of its store version misses.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from offline.configs.section import Section
from offline.store.shadow import Shadow

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
        added_recall: smallest recall of a label that an edit of the knowledge brings in, over its items, each
            looked up without itself; for labels with at least `label_rows` items.
        agreement: smallest share of the held-out rows that the two must answer alike. The default stops what
            answers at random or has its labels mixed up, and nothing else: a better release differs too.
        slowdown: how many times as long as the live release the candidate may take for a text, if that is longer
            than `slow_milliseconds`.
        slow_milliseconds: what is quicker than this is never too slow.
        recall: smallest share of the exact nearest items that the approximate search of the store version must
            find, for queries of the held-out rows.
        keep: how many of the newest releases, and of the snapshots, stay once a rebuild has succeeded, beside what
            serves; null keeps all of them.
    """

    activate: bool = True
    accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    label_drop: Annotated[float, Field(ge=0, le=1)] = 0.34
    label_rows: Annotated[int, Field(ge=1)] = 5
    added_recall: Annotated[float, Field(ge=0, le=1)] = 0.3
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.1
    slowdown: Annotated[float, Field(ge=1)] = 3.0
    slow_milliseconds: Annotated[float, Field(ge=0)] = 10.0
    recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    keep: Annotated[int, Field(ge=1)] | None = None


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


def shadow_reasons(shadow: Shadow, config: ReleaseConfig) -> tuple[str, ...]:
    """Why a candidate that was compared with the live release should not go live, its accuracy aside."""
    reasons: list[str] = []
    if shadow.rows and shadow.agreement < config.agreement - ROUNDING:
        reasons.append(
            f"it agrees with the live release on {shadow.agreement:.3f} of {shadow.rows} held-out rows, less than "
            f"the {config.agreement} asked for"
        )
    ours, theirs = shadow.milliseconds, shadow.live_milliseconds
    if ours > config.slow_milliseconds and ours > theirs * config.slowdown:
        reasons.append(
            f"a text takes it {ours:.1f} ms where the live release takes {theirs:.1f} ms, more than "
            f"{config.slowdown} times as long"
        )
    return tuple(reasons)


def recall_reasons(version: str, recall: float, config: ReleaseConfig) -> tuple[str, ...]:
    """Why a store version should not serve: its approximate search misses too much."""
    if recall >= config.recall:
        return ()
    return (
        f"approximate search finds {recall:.3f} of the exact nearest items of {version}, less than "
        f"the {config.recall} asked for",
    )

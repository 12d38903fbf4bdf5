"""A line of a table: one system's rows over tasks and seeds, and ours minus it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from offline.bench.results import Results, Row
from offline.bench.systems import SYSTEMS
from offline.report.evaluation import OURS
from offline.report.intervals import Difference, Outcomes, mean_difference

Group = tuple[str, str, int | str]
"""Regime, task, shots."""


@dataclass(frozen=True, slots=True)
class Line:
    """One system over groups and seeds.

    Attributes:
        system: its name.
        rows: its own.
        difference: ours minus it, over the seeds that both have; None for ours, and where they share none.
    """

    system: str
    rows: tuple[Row, ...]
    difference: Difference | None

    def mean(self, name: str) -> float:
        """Over the groups, of the mean over the seeds of each."""
        return float(np.mean([np.mean(values) for values in self._by_group(name)]))

    def spread(self, name: str) -> float | None:
        """Sample standard deviation over the seeds, averaged over the groups; None for one seed."""
        found = self._by_group(name)
        if any(len(values) < 2 for values in found):
            return None
        return float(np.mean([np.std(values, ddof=1) for values in found]))

    def with_spread(self, name: str) -> str:
        """Mean ± spread with three digits, as tables tell it."""
        spread = self.spread(name)
        return f"{self.mean(name):.3f}" + ("" if spread is None else f" ± {spread:.3f}")

    def _by_group(self, name: str) -> list[list[float]]:
        found: dict[Group, list[float]] = {}
        for row in self.rows:
            found.setdefault(group_of(row), []).append(float(getattr(row, name)))
        return list(found.values())


def group_of(row: Row) -> Group:
    """What a row is averaged within."""
    return row.regime, row.task, row.shots


def lines_of(results: Results, rows: Sequence[Row], groups: Sequence[Group]) -> list[Line]:
    """The systems that have rows in every one of the groups, in the order of tables.

    Args:
        results: which test rows each row's system got right.
        rows: those that count.
        groups: to average over, each with the same weight.
    """
    lines = []
    ours = [row for row in rows if row.system == OURS]
    for system in in_order(row.system for row in rows):
        own = [row for row in rows if row.system == system and group_of(row) in groups]
        if {group_of(row) for row in own} != set(groups):
            continue
        found = None if system == OURS else difference(results, ours, own, groups)
        lines.append(Line(system, tuple(own), found))
    return lines


def in_order(systems: Iterable[str]) -> list[str]:
    """Each once, as tables list them: the systems first, then ablations by name."""
    order = [system.name for system in SYSTEMS]
    return sorted(
        set(systems), key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def difference(
    results: Results, ours: Sequence[Row], theirs: Sequence[Row], groups: Sequence[Group]
) -> Difference | None:
    """Over the seeds that both have in each group; None where a group has none of them."""
    outcomes: list[Outcomes] = []
    for group in groups:
        pairs = [
            (results.right(mine), results.right(other))
            for mine in ours
            for other in theirs
            if group_of(mine) == group_of(other) == group and mine.seed == other.seed
        ]
        found = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
        if not found:
            return None
        outcomes.append(
            (np.stack([mine for mine, _ in found]), np.stack([other for _, other in found]))
        )
    return mean_difference(outcomes)


def on_the_same(one: Line, other: Line) -> tuple[Line, Line]:
    """Both on the cells that both have rows of: one that has more seeds is not to be measured by others."""
    common = {row.cell for row in one.rows} & {row.cell for row in other.rows}
    first, second = (
        Line(line.system, tuple(row for row in line.rows if row.cell in common), None)
        for line in (one, other)
    )
    return first, second


def in_points(found: Difference) -> str:
    """Percentage points with their interval."""
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"

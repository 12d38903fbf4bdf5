"""`table.md` and `pareto.svg`: means over seeds, and ours minus each other system with intervals."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offline.bench.cells import Cell
from offline.bench.distilled_on_unlabelled import NAME as UNLABELLED
from offline.bench.pareto import Point, pareto
from offline.bench.prompts import PromptRow, prompt_table
from offline.bench.results import Results, Row
from offline.bench.systems import SYSTEMS
from offline.report.evaluation import OURS, TEACHER
from offline.report.intervals import Difference, Outcomes, mean_difference
from offline.student.baselines import DISTILLED_ON_KNOWLEDGE

TABLE = "table.md"
PICTURE = "pareto.svg"
COLUMNS = (
    "system",
    "accuracy",
    "macro-F1",
    "NLL",
    "ECE",
    "parameters",
    "model + store",
    "one text",
    "retrikt minus it, points (95 %)",
)

Group = tuple[str, str, int | str]
"""Regime, task, shots."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One system over groups and seeds."""

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

    def _by_group(self, name: str) -> list[list[float]]:
        found: dict[Group, list[float]] = {}
        for row in self.rows:
            found.setdefault(_group(row), []).append(float(getattr(row, name)))
        return list(found.values())


def write_tables(
    out: Path,
    results: Results,
    current: Collection[tuple[Cell, str]],
    prompts: Sequence[PromptRow] = (),
) -> None:
    """Write both files over the rows that are of today's systems and data.

    Args:
        out: the results' directory.
        results: all rows.
        current: cell and system of the rows that would come out today as well; others are named, not averaged.
        prompts: rows of the generator's prompts that would come out today as well.
    """
    rows = [row for row in results if (row.cell, row.system) in current]
    accuracies = {(row.cell, row.system): row.accuracy for row in rows}
    left_out = [row for row in results if (row.cell, row.system) not in current]
    parts = ["# Results of `retrikt bench accuracy`\n"]
    if results.quick:
        parts.append("Quick runs: they show that everything runs; their figures say nothing.\n")
    averages: dict[str, list[_Line]] = {}
    for regime in sorted({row.regime for row in rows}):
        of_regime = [row for row in rows if row.regime == regime]
        groups = sorted({_group(row) for row in of_regime}, key=str)
        if len(groups) > 1:
            told = ", ".join(f"{task} ({shots})" for _, task, shots in groups)
            parts.append(f"## {regime}: mean of {told}\n")
            lines = averages.setdefault(regime, _lines(results, of_regime, groups))
            parts += [_table(lines), *_said(results, lines, groups)]
        for group in groups:
            lines = _lines(results, of_regime, [group])
            averages.setdefault(regime, lines)
            _, task, shots = group
            seeds = sorted({row.seed for line in lines for row in line.rows})
            count = lines[0].rows[0].test_rows
            parts.append(
                f"## {task}, {regime}, {shots} a class: {count} test rows, "
                f"seeds {', '.join(map(str, seeds))}\n"
            )
            parts += [_table(lines), *_said(results, lines, [group]), *_missing(lines, seeds)]
    if prompts:
        parts.append(prompt_table(prompts, accuracies))
    if left_out:
        parts.append(_told(left_out))
    parts.append(_provenance(rows))
    (out / TABLE).write_text("\n".join(parts), encoding="utf-8")
    if averages:
        points = {regime: _points(lines) for regime, lines in averages.items()}
        (out / PICTURE).write_text(pareto(points), encoding="utf-8")


def _lines(results: Results, rows: Sequence[Row], groups: Sequence[Group]) -> list[_Line]:
    """The systems that have rows in every one of the groups, in the order of tables."""
    lines = []
    ours = [row for row in rows if row.system == OURS]
    for system in _in_order(row.system for row in rows):
        own = [row for row in rows if row.system == system and _group(row) in groups]
        if {_group(row) for row in own} != set(groups):
            continue
        difference = None if system == OURS else _difference(results, ours, own, groups)
        lines.append(_Line(system, tuple(own), difference))
    return lines


def _in_order(systems: Iterable[str]) -> list[str]:
    order = [system.name for system in SYSTEMS]
    return sorted(
        set(systems), key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def _difference(
    results: Results, ours: Sequence[Row], theirs: Sequence[Row], groups: Sequence[Group]
) -> Difference | None:
    """Over the seeds that both have in each group; None where a group has none of them."""
    outcomes: list[Outcomes] = []
    for group in groups:
        pairs = [
            (results.right(mine), results.right(other))
            for mine in ours
            for other in theirs
            if _group(mine) == _group(other) == group and mine.seed == other.seed
        ]
        found = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
        if not found:
            return None
        outcomes.append(
            (np.stack([mine for mine, _ in found]), np.stack([other for _, other in found]))
        )
    return mean_difference(outcomes)


def _table(lines: Sequence[_Line]) -> str:
    written = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for line in lines:
        spread = line.spread("accuracy")
        cells = (
            line.system,
            f"{line.mean('accuracy'):.3f}" + ("" if spread is None else f" ± {spread:.3f}"),
            *(f"{line.mean(name):.3f}" for name in ("macro_f1", "nll", "ece")),
            f"{line.mean('parameters') / 1e6:.3g} M",
            f"{(line.mean('model_bytes') + line.mean('store_bytes')) / 1e6:.3g} MB",
            f"{line.mean('latency_ms'):.2f} ms",
            "" if line.difference is None else _points_of(line.difference),
        )
        if line.system == OURS:
            cells = tuple(f"**{cell}**" if cell else cell for cell in cells)
        written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"


def _said(results: Results, lines: Sequence[_Line], groups: Sequence[Group]) -> list[str]:
    """Sentences: how near ours comes to the teacher, and what generated samples add to unlabelled texts."""
    said = []
    found = {line.system: line for line in lines}
    if OURS in found and TEACHER in found:
        ours, teacher = _on_the_same(found[OURS], found[TEACHER])
        if {_group(row) for row in ours.rows} == set(groups):
            said.append(
                f"{OURS} reaches {ours.mean('accuracy') / teacher.mean('accuracy'):.1%} of the teacher's accuracy "
                f"with {ours.mean('parameters') / teacher.mean('parameters'):.1%} of its parameters.\n"
            )
    if DISTILLED_ON_KNOWLEDGE in found and UNLABELLED in found:
        with_samples, without = (found[name].rows for name in (DISTILLED_ON_KNOWLEDGE, UNLABELLED))
        added = _difference(results, with_samples, without, groups)
        if added is not None:
            said.append(
                f"Generated samples add {_points_of(added)} points: {DISTILLED_ON_KNOWLEDGE} minus "
                f"{UNLABELLED}.\n"
            )
    return said


def _on_the_same(one: _Line, other: _Line) -> tuple[_Line, _Line]:
    """Both on the cells that both have rows of: one that has more seeds is not to be measured by others."""
    common = {row.cell for row in one.rows} & {row.cell for row in other.rows}
    first, second = (
        _Line(line.system, tuple(row for row in line.rows if row.cell in common), None)
        for line in (one, other)
    )
    return first, second


def _points_of(found: Difference) -> str:
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _missing(lines: Sequence[_Line], seeds: Sequence[int]) -> list[str]:
    """A sentence for each system that has not all of the seeds."""
    return [
        f"{line.system}: seeds {', '.join(str(row.seed) for row in line.rows)} alone.\n"
        for line in lines
        if {row.seed for row in line.rows} != set(seeds)
    ]


def _told(rows: Sequence[Row]) -> str:
    systems = ", ".join(_in_order(row.system for row in rows))
    return (
        f"Not in these tables: {len(rows)} rows of earlier versions of the code, of other settings"
        f" or of data that are not these any more ({systems}). Asking for their cells again measures them anew.\n"
    )


def _provenance(rows: Sequence[Row]) -> str:
    hashes = {row.system: row.system_hash for row in rows}
    revisions = sorted({row.git_revision or "unknown" for row in rows})
    told = ", ".join(f"{name} `{hashes[name]}`" for name in _in_order(hashes))
    return f"System hashes: {told}. Commits: {', '.join(revisions)}.\n"


def _points(lines: Sequence[_Line]) -> dict[str, Point]:
    return {
        line.system: Point(
            accuracy=line.mean("accuracy"),
            parameters=line.mean("parameters"),
            megabytes=(line.mean("model_bytes") + line.mean("store_bytes")) / 1e6,
            latency_ms=line.mean("latency_ms"),
        )
        for line in lines
    }


def _group(row: Row) -> Group:
    return row.regime, row.task, row.shots

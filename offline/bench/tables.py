"""`table.md` and `pareto.svg`: means over seeds, and ours minus each other system with intervals."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from offline.bench.cells import Cell
from offline.bench.distilled_on_unlabelled import NAME as UNLABELLED
from offline.bench.lines import (
    Group,
    Line,
    difference,
    group_of,
    in_order,
    in_points,
    lines_of,
    on_the_same,
)
from offline.bench.overview import overview
from offline.bench.pareto import Point, pareto
from offline.bench.prompts import PromptRow, prompt_table
from offline.bench.results import Results, Row
from offline.report.evaluation import OURS, TEACHER
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
    averages: dict[str, list[Line]] = {}
    for regime in sorted({row.regime for row in rows}):
        of_regime = [row for row in rows if row.regime == regime]
        groups = sorted({group_of(row) for row in of_regime}, key=str)
        by_task = [(group, lines_of(results, of_regime, [group])) for group in groups]
        averages[regime] = by_task[0][1]
        if len(groups) > 1:
            mean = averages[regime] = lines_of(results, of_regime, groups)
            parts.append(f"## {regime}: accuracy by task\n")
            parts += [overview(mean, by_task), *_missing(mean)]
            told = ", ".join(f"{task} ({shots})" for _, task, shots in groups)
            parts.append(f"## {regime}: mean of {told}\n")
            parts += [_table(mean), *_said(results, mean, groups), *_missing(mean)]
        for group, lines in by_task:
            _, task, shots = group
            seeds = sorted({row.seed for line in lines for row in line.rows})
            count = lines[0].rows[0].test_rows
            parts.append(
                f"## {task}, {regime}, {shots} a class: {count} test rows, "
                f"seeds {', '.join(map(str, seeds))}\n"
            )
            parts += [_table(lines), *_said(results, lines, [group]), *_missing(lines)]
    if prompts:
        parts.append(prompt_table(prompts, accuracies))
    if left_out:
        parts.append(_told(left_out))
    parts.append(_provenance(rows))
    (out / TABLE).write_text("\n".join(parts), encoding="utf-8")
    if averages:
        points = {regime: _points(lines) for regime, lines in averages.items()}
        (out / PICTURE).write_text(pareto(points), encoding="utf-8")


def _table(lines: Sequence[Line]) -> str:
    written = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for line in lines:
        cells = (
            line.system,
            line.with_spread("accuracy"),
            *(f"{line.mean(name):.3f}" for name in ("macro_f1", "nll", "ece")),
            f"{line.mean('parameters') / 1e6:.3g} M",
            f"{(line.mean('model_bytes') + line.mean('store_bytes')) / 1e6:.3g} MB",
            f"{line.mean('latency_ms'):.2f} ms",
            "" if line.difference is None else in_points(line.difference),
        )
        if line.system == OURS:
            cells = tuple(f"**{cell}**" if cell else cell for cell in cells)
        written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"


def _said(results: Results, lines: Sequence[Line], groups: Sequence[Group]) -> list[str]:
    """Sentences: how near ours comes to the teacher, and what generated samples add to unlabelled texts."""
    said = []
    found = {line.system: line for line in lines}
    if OURS in found and TEACHER in found:
        ours, teacher = on_the_same(found[OURS], found[TEACHER])
        if {group_of(row) for row in ours.rows} == set(groups):
            said.append(
                f"{OURS} reaches {ours.mean('accuracy') / teacher.mean('accuracy'):.1%} of the teacher's accuracy "
                f"with {ours.mean('parameters') / teacher.mean('parameters'):.1%} of its parameters.\n"
            )
    if DISTILLED_ON_KNOWLEDGE in found and UNLABELLED in found:
        with_samples, without = (found[name].rows for name in (DISTILLED_ON_KNOWLEDGE, UNLABELLED))
        added = difference(results, with_samples, without, groups)
        if added is not None:
            said.append(
                f"Generated samples add {in_points(added)} points: {DISTILLED_ON_KNOWLEDGE} minus "
                f"{UNLABELLED}.\n"
            )
    return said


def _missing(lines: Sequence[Line]) -> list[str]:
    """A sentence for each system that lacks seeds which another has."""
    wanted = _seeds(row for line in lines for row in line.rows)
    several = len(wanted) > 1
    said = []
    for line in lines:
        found = _seeds(line.rows)
        fewer = [
            f"seeds {', '.join(map(str, sorted(seeds)))}" + (f" of {group[1]}" if several else "")
            for group, seeds in sorted(found.items(), key=str)
            if seeds != wanted[group]
        ]
        if fewer:
            said.append(f"{line.system}: {'; '.join(fewer)} alone.\n")
    return said


def _seeds(rows: Iterable[Row]) -> dict[Group, set[int]]:
    found: dict[Group, set[int]] = {}
    for row in rows:
        found.setdefault(group_of(row), set()).add(row.seed)
    return found


def _told(rows: Sequence[Row]) -> str:
    systems = ", ".join(in_order(row.system for row in rows))
    return (
        f"Not in these tables: {len(rows)} rows of earlier versions of the code, of other settings"
        f" or of data that are not these any more ({systems}). Asking for their cells again, with `--replace`, measures"
        " them anew.\n"
    )


def _provenance(rows: Sequence[Row]) -> str:
    hashes: dict[str, set[str]] = {}
    for row in rows:
        hashes.setdefault(row.system, set()).add(row.system_hash)
    told = ", ".join(
        f"{name} {' and '.join(f'`{found}`' for found in sorted(hashes[name]))}"
        for name in in_order(hashes)
    )
    revisions = sorted({row.git_revision or "unknown" for row in rows})
    formats = Counter(row.precision or "not recorded" for row in rows)
    computed = ", ".join(f"{name} ({count} rows)" for name, count in sorted(formats.items()))
    return (
        f"System hashes: {told}. Commits: {', '.join(revisions)}. "
        f"Number format of frozen models: {computed}.\n"
    )


def _points(lines: Sequence[Line]) -> dict[str, Point]:
    """The lines of the picture; a system that has other seeds than ours is left out: its mean is of other runs."""
    ours = next((_seeds(line.rows) for line in lines if line.system == OURS), None)
    return {
        line.system: Point(
            accuracy=line.mean("accuracy"),
            parameters=line.mean("parameters"),
            megabytes=(line.mean("model_bytes") + line.mean("store_bytes")) / 1e6,
            latency_ms=line.mean("latency_ms"),
        )
        for line in lines
        if ours is None or _seeds(line.rows) == ours
    }

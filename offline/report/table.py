"""The table of systems: rows for the terminal, the page and Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from offline.report.evaluation import OURS, SYSTEMS, TEACHER

COLUMNS = (
    "system",
    "accuracy",
    "macro-F1",
    "NLL",
    "ECE",
    "parameters",
    "retrikt minus it, points (95 %)",
)
_TERMINAL = (*COLUMNS[:-1], "retrikt minus it")
_NARROW = ("system", "accuracy", "parameters", "retrikt minus it")
_WIDE = 110
"""Columns of a terminal that takes all of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """A system's figures as text."""

    system: str
    accuracy: str
    macro_f1: str
    nll: str
    ece: str
    parameters: str
    difference: str

    @property
    def ours(self) -> bool:
        return self.system == OURS

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            self.system,
            self.accuracy,
            self.macro_f1,
            self.nll,
            self.ece,
            self.parameters,
            self.difference,
        )


def system_rows(report: Mapping[str, Any]) -> list[Row]:
    """A row a system of a `report.json`, teacher first and ours last."""
    teacher = report["teacher"]
    figures = {
        TEACHER: {
            "accuracy": {"mean": teacher["accuracy"], "std": teacher["accuracy_std"]},
            **{name: {"mean": teacher[name]} for name in ("macro_f1", "nll", "ece")},
            "parameters": teacher["parameters"],
        },
        **report["systems"],
    }
    several = len(report["seeds"]) > 1
    return [
        Row(
            system,
            _spread(figures[system]["accuracy"])
            if several
            else _three(figures[system], "accuracy"),
            _three(figures[system], "macro_f1"),
            _three(figures[system], "nll"),
            _three(figures[system], "ece"),
            _millions(figures[system]["parameters"]),
            _difference(report["differences"].get(system)),
        )
        for system in SYSTEMS
    ]


def print_systems(console: Console, report: Mapping[str, Any]) -> None:
    """The table on a terminal; a narrow one gets the columns that count, whole."""
    shown = _TERMINAL if console.width >= _WIDE else _NARROW
    seeds = report["seeds"]
    table = Table(
        title=f"{report['task']}: {report['test_rows']} test rows, seeds {', '.join(map(str, seeds))}",
        title_justify="left",
    )
    for column in shown:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for row in system_rows(report):
        cells = dict(zip(_TERMINAL, row.cells, strict=True))
        table.add_row(
            *(cells[column] for column in shown), style="bold green" if row.ours else None
        )
    console.print(table)
    console.print(
        "Differences in points of accuracy, with 95 % paired bootstrap intervals.", style="dim"
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The table for a document."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in system_rows(report):
        cells = [f"**{cell}**" if row.ours and cell else cell for cell in row.cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.3f} ± {found['std']:.3f}"


def _three(found: Mapping[str, Any], name: str) -> str:
    return f"{found[name]['mean']:.3f}"


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.3g} M"


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"

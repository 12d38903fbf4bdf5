"""On a narrow terminal the figures that count are whole."""

import io

import pytest
from rich.console import Console

from offline.report.evaluation import SYSTEMS, TEACHER
from offline.report.table import print_systems

FIGURES = {
    **{name: {"mean": 0.5, "std": 0.01} for name in ("accuracy", "macro_f1", "nll", "ece")},
    "parameters": 455_000,
}
REPORT = {
    "task": "toy",
    "test_rows": 100,
    "seeds": [0, 1],
    "teacher": {
        "accuracy": 0.75, "accuracy_std": 0.0, "macro_f1": 0.7, "nll": 1.0, "ece": 0.1,
        "parameters": 22_700_000,
    },
    "systems": {name: FIGURES for name in SYSTEMS if name != TEACHER},
    "differences": {TEACHER: {"mean": -0.25, "low": -0.301, "high": -0.199}},
}  # fmt: skip


@pytest.mark.parametrize(("width", "shown"), [(80, False), (120, True)])
def test_no_figure_is_cut(width: int, shown: bool) -> None:
    told = io.StringIO()
    print_systems(Console(file=told, width=width), REPORT)
    text = told.getvalue()
    assert "…" not in text
    assert "0.500 ± 0.010" in text
    assert "-25.0 (-30.1 to -19.9)" in text
    assert ("macro-F1" in text) is shown
    assert max(map(len, text.splitlines())) <= width

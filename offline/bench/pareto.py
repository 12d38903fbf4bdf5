"""The Pareto picture: accuracy against parameters, bytes and latency, a row of panels a regime."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline.report.figures import OTHER_COLOUR, OURS_COLOUR, TEACHER_COLOUR, svg

AXES = {
    "parameters": "parameters",
    "megabytes": "MB, model and store",
    "latency_ms": "ms, one text",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One system: means over the cells of a regime."""

    accuracy: float
    parameters: float
    megabytes: float
    latency_ms: float


def pareto(regimes: Mapping[str, Mapping[str, Point]]) -> str:
    """SVG text. The line joins the systems that no other one beats on both axes.

    Args:
        regimes: for each regime, the systems by name.
    """
    figure = Figure(figsize=(12.8, 3.8 * len(regimes)), layout="constrained")
    panels = figure.subplots(len(regimes), len(AXES), squeeze=False, sharey="row")
    for row, (regime, systems) in zip(panels, regimes.items(), strict=True):
        for axis, (cost, title) in zip(row, AXES.items(), strict=True):
            _panel(axis, {name: getattr(point, cost) for name, point in systems.items()}, systems)
            axis.set_xlabel(title)
        row[0].set_ylabel(f"test accuracy, {regime}")
    return svg(figure)


def front(costs: Mapping[str, float], accuracies: Mapping[str, float]) -> list[str]:
    """The systems that none beats, from cheap to dear: no other costs as little and is as accurate."""
    best: list[str] = []
    for name in sorted(costs, key=lambda name: (costs[name], -accuracies[name])):
        if not best or accuracies[name] > accuracies[best[-1]]:
            best.append(name)
    return best


def _panel(axis: Axes, costs: Mapping[str, float], systems: Mapping[str, Point]) -> None:
    accuracies = {name: point.accuracy for name, point in systems.items()}
    joined = front(costs, accuracies)
    axis.plot(
        [costs[name] for name in joined],
        [accuracies[name] for name in joined],
        color=OTHER_COLOUR,
        linewidth=0.8,
        alpha=0.6,
        zorder=1,
    )
    for name in systems:
        kind = name.partition("/")[0]
        colour = {"retrikt": OURS_COLOUR, "teacher": TEACHER_COLOUR}.get(kind, OTHER_COLOUR)
        axis.scatter(costs[name], accuracies[name], color=colour, s=18, zorder=2)
        axis.annotate(
            name,
            (costs[name], accuracies[name]),
            xytext=(5, 2),
            textcoords="offset points",
            color=colour,
            fontsize=7,
            weight="bold" if name == "retrikt" else "normal",
        )
    axis.set_xscale("log")
    axis.margins(x=0.25, y=0.12)

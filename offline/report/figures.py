"""The report's pictures, as SVG text."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "retrikt",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e7eb",
        "axes.axisbelow": True,
    }
)

OURS_COLOUR, OTHER_COLOUR, TEACHER_COLOUR = "#0f766e", "#64748b", "#b45309"
MAP_POINTS = 1_500


_PPO_PANELS: Mapping[str, tuple[str, ...]] = {
    "reward": ("reward", "held_out_reward"),
    "reward's terms": (),
    "label agreement": ("label_agreement", "held_out_label_agreement"),
    "KL to the tuned prompt, nats a sample": ("kl",),
    "entropy, nats a token": ("entropy",),
    "share of clipped ratios": ("clip_fraction",),
    "explained variance of the value head": ("explained_variance",),
    "tokens of a sample": ("length",),
    "distinct n-grams": ("distinct_1", "distinct_2"),
    "self-BLEU of a round": ("self_bleu",),
}
_TERM = "reward_"
_HELD_OUT = "held_out_"


def ppo_curves(steps: Sequence[Mapping[str, float]]) -> str:
    """Every figure of the rounds of PPO that tells how it went, a panel each; held-out samples as dots.

    Args:
        steps: rows of the stage's log, each with `step`; a figure that a row lacks leaves a gap.
    """
    terms = sorted({name for row in steps for name in row if name.startswith(_TERM)})
    columns = -(-len(_PPO_PANELS) // 2)
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    axes = figure.subplots(2, columns).flat
    for axis, (title, names) in zip(axes, _PPO_PANELS.items(), strict=True):
        shown = names or terms
        for place, name in enumerate(shown):
            points = [(row["step"], row[name]) for row in steps if row.get(name) is not None]
            if points:
                _ppo_curve(axis, np.array(points), name, f"C{place}" if len(names) != 1 else None)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("round")
        if len(shown) > 1:
            beside = any(name.startswith(_HELD_OUT) for name in shown)
            where = "upper left" if beside else "center left"
            axis.legend(loc=where, fontsize="x-small", frameon=False)
    return svg(figure)


def _ppo_curve(axis: Axes, points: NDArray[np.float64], name: str, colour: str | None) -> None:
    x, y = points.T
    told = name.removeprefix(_TERM) if name.startswith(_TERM) else name
    if name.startswith(_HELD_OUT):
        axis.plot(x, y, "o-", color=TEACHER_COLOUR, markersize=3, linewidth=1, label="held out")
        return
    colour = colour or OURS_COLOUR
    axis.plot(x, y, color=colour, alpha=0.35, linewidth=1)
    axis.plot(x, _smooth(y), color=colour, linewidth=1.8, label=told.replace("_", " "))


def store_map(vectors: NDArray[np.float32], labels: Sequence[str], names: Sequence[str]) -> str:
    """The store in two dimensions (t-SNE of at most 1,500 items), coloured by label.

    Args:
        vectors: (n, d) of unit length.
        labels: (n,) the most probable label of each item.
        names: labels in the order of the legend.
    """
    rows = np.random.default_rng(0).permutation(len(vectors))[:MAP_POINTS]
    perplexity = min(30.0, max(2.0, (len(rows) - 1) / 4))
    points = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=500).fit_transform(
        vectors[rows].astype(np.float32)
    )
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    axis = figure.subplots()
    chosen = np.array(labels)[rows]
    palette = matplotlib.colormaps["tab20"]
    shown = [name for name in names if np.any(chosen == name)]
    for position, name in enumerate(shown):
        inside = points[chosen == name]
        colour = palette(position % 20)
        axis.scatter(inside[:, 0], inside[:, 1], s=9, color=colour, label=name, linewidths=0)
        if len(shown) > 20:
            axis.annotate(name, inside.mean(0), fontsize=5, ha="center")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    if len(shown) <= 20:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    return svg(figure)


_TOO_NEAR = 0.02
"""Accuracies that differ by less would have their names on each other."""


def accuracy_against_parameters(systems: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracy of each system over its number of weights, with the spread over seeds.

    Args:
        systems: for each name `parameters`, `mean` and `std`.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    placed: list[tuple[float, float]] = []
    for name, found in sorted(systems.items(), key=lambda item: -item[1]["mean"]):
        near = sum(
            parameters == found["parameters"] and mean - found["mean"] < _TOO_NEAR
            for parameters, mean in placed
        )
        placed.append((found["parameters"], found["mean"]))
        colour = {"retrikt": OURS_COLOUR, "teacher": TEACHER_COLOUR}.get(name, OTHER_COLOUR)
        axis.errorbar(
            found["parameters"], found["mean"], yerr=found["std"], fmt="o", color=colour, capsize=3
        )
        axis.annotate(
            name,
            (found["parameters"], found["mean"]),
            # Below the name of one that is hardly better.
            xytext=(7, 3 - 11 * near),
            textcoords="offset points",
            color=colour,
            weight="bold" if name == "retrikt" else "normal",
        )
    axis.set_xscale("log")
    axis.margins(x=0.2, y=0.15)
    axis.set_xlabel("parameters")
    axis.set_ylabel("test accuracy")
    return svg(figure)


def stage_times(seconds: Mapping[str, float]) -> str:
    """Seconds of each stage, first stage on top."""
    figure = Figure(figsize=(6.4, 0.32 * len(seconds) + 0.7), layout="constrained")
    axis = figure.subplots()
    names = list(seconds)[::-1]
    bars = axis.barh(names, [seconds[name] for name in names], color=OURS_COLOUR)
    axis.bar_label(bars, fmt="%.1f s", padding=3)
    axis.margins(x=0.12)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("seconds")
    return svg(figure)


def _smooth(values: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Centred mean over up to `width` values."""
    half = width // 2
    parts: list[float] = [
        float(np.mean(values[max(0, place - half) : place + half + 1]))
        for place in range(len(values))
    ]
    return np.array(parts)


def svg(figure: Figure) -> str:
    """A figure as SVG text, without a date: the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

"""How PPO went in the cells of a benchmark: reward, agreement, KL, entropy and diversity over the rounds.

    python benchmarks/ppo_curves.py runs/bench/stages --out docs/ppo-curves.svg

Reads `log.jsonl` of every finished stage `ppo` in the directories of stages that are named, and draws a line a run: a
task has one colour, whatever its seeds.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline.pipeline.manifest import MANIFEST
from offline.report.figures import svg

PANELS: Mapping[str, str] = {
    "held_out_reward": "reward, held-out samples",
    "held_out_label_agreement": "agreement with the label, held-out samples",
    "kl": "KL to the tuned prompt, nats a sample",
    "entropy": "entropy, nats a token",
    "clip_fraction": "share of clipped ratios",
    "explained_variance": "explained variance of the value head",
    "self_bleu": "self-BLEU of a round",
    "length": "tokens of a sample",
}
COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of PPO.

    Attributes:
        task: its name.
        seed: of the run.
        rounds: the rows of its log.
    """

    task: str
    seed: int
    rounds: list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", type=Path, nargs="+", help="directories of stages")
    parser.add_argument("--out", type=Path, required=True, help="the picture, .svg")
    given = parser.parse_args()
    runs = sorted(
        {(run.task, run.seed): run for folder in given.stages for run in read_runs(folder)}.items()
    )
    if not runs:
        parser.error("no finished stage ppo in " + ", ".join(map(str, given.stages)))
    given.out.write_text(curves([run for _, run in runs]), encoding="utf-8")
    for (task, seed), run in runs:
        evaluated = [row for row in run.rounds if "held_out_reward" in row]
        first, last = evaluated[0], evaluated[-1]
        print(
            f"{task:<10} seed {seed}: reward {first['held_out_reward']:.2f} to {last['held_out_reward']:.2f}, "
            f"agreement {first['held_out_label_agreement']:.2f} to {last['held_out_label_agreement']:.2f}, "
            f"KL {run.rounds[-1]['kl']:.1f}"
        )


def read_runs(stages: Path) -> Iterator[Run]:
    """Every finished run of PPO below a directory of stages that had some rounds of training."""
    tasks = {manifest["content"]: path for path, manifest in _manifests(stages / "prepare")}
    for path, manifest in _manifests(stages / "ppo"):
        lines = (path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        rounds = [json.loads(line) for line in lines]
        prepared = tasks.get(manifest["inputs"]["prepare"])
        if prepared is not None and len(rounds) > 1:
            name = json.loads((prepared / "task.json").read_text(encoding="utf-8"))["name"]
            yield Run(name, manifest["seed"], rounds)


def _manifests(stage: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(stage.glob(f"[!.]*/{MANIFEST}")):
        yield path.parent, json.loads(path.read_text(encoding="utf-8"))


def curves(runs: Sequence[Run]) -> str:
    """SVG text: a panel a figure, a line a run."""
    figure = Figure(figsize=(14, 6.2), layout="constrained")
    axes = figure.subplots(-(-len(PANELS) // COLUMNS), COLUMNS, sharex=True)
    tasks = sorted({run.task for run in runs})
    palette = matplotlib.colormaps["tab10"]
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        for run in runs:
            _line(axis, run, name, palette(tasks.index(run.task)))
        axis.set_title(title, fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("round")
    lines = [axes[0, 0].plot([], [], color=palette(place))[0] for place in range(len(tasks))]
    figure.legend(lines, tasks, loc="outside lower center", ncols=len(tasks))
    return svg(figure)


def _line(axis: Axes, run: Run, name: str, colour: Any) -> None:
    points = [(row["step"], row[name]) for row in run.rounds if name in row]
    marker = "." if name.startswith("held_out") else ""
    axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.0, marker=marker)


if __name__ == "__main__":
    main()

"""What makes PPO work on a soft prompt: one setting changed at a time, the others at their defaults.

    python benchmarks/ppo_settings.py DATA --tasks trec --out DIR --stages runs/bench/stages
    python benchmarks/ppo_settings.py DATA --tasks banking77 --shots 10 --regime labels --out DIR \
        --settings default "rate 0.001" "256 samples a round"

Each setting improves the same tuned prompts, of the cell that `retrikt bench accuracy` would run (stages `prepare` to
`ppo`, and found again in `--stages`), with the same number of samples in all; then its prompt writes fresh ones. The
labeller rewards; the judge, fitted on all labelled training rows, does not. `DIR/settings.json` keeps every row: cell,
setting, its overrides, the figures before and after, those of the rounds, the stage's key and the commit. Rewards
of settings that reward something else or write at another temperature are not comparable; the other columns are.
The test split is not read. `--settings` takes names of the table below; without it all of them run.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from offline.bench.accuracy import Request
from offline.bench.cells import Cell
from offline.bench.prompts import IMPROVED, STAGE, TUNED
from offline.bench.revision import git_revision
from offline.bench.variants import BASE
from offline.pipeline.progress import choose_display
from offline.teacher.comparison import COMPARISON
from services.platform.durable_files import replacing

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "rate 0.001": {"ppo.learning_rate": 1e-3, "ppo.shared_learning_rate": 3e-4},
    "rate 0.01": {"ppo.learning_rate": 1e-2, "ppo.shared_learning_rate": 3e-3},
    "warm-up over 8 rounds": {"ppo.warm_up": 8},
    "64 samples a round": {"ppo.batch_size": 64, "ppo.minibatch_size": 32},
    "256 samples a round": {"ppo.batch_size": 256, "ppo.minibatch_size": 128},
    "1 pass a round": {"ppo.epochs": 1},
    "4 passes a round": {"ppo.epochs": 4},
    "16 virtual tokens": {"soft_prompt.label_tokens": 16},
    "temperature 0.8": {"ppo.sampling.temperature": 0.8},
    "no KL": {"ppo.kl_coefficient": 0.0, "ppo.kl_target": 0.0},
    "no entropy bonus": {"ppo.entropy": 0.0},
    "baseline of the last round": {"ppo.baseline_momentum": 0.0},
    "accuracy alone rewarded": {"ppo.reward.weights": {"accuracy": 1.0}},
}  # fmt: skip
SAMPLES = 2048
"""Of all rounds together, in every setting."""

FRESH = 2000
_ROUND = 128
_COLUMNS = {
    "reward": ("reward", 2),
    "label_agreement_judge": ("agreement, judge", 3),
    "label_agreement": ("agreement, labeller", 3),
    "self_bleu": ("self-BLEU", 3),
    "distinct": ("distinct", 3),
    "copies": ("copies", 3),
    "length": ("tokens", 1),
}
_ROUNDS = ("kl", "clip_fraction", "entropy", "explained_variance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder a task, as for `retrikt bench accuracy`")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--shots", type=int, default=32)
    parser.add_argument("--regime", choices=["labels", "unlabelled"], default="unlabelled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--out", type=Path, required=True, help="gets settings.json")
    parser.add_argument("--stages", type=Path, required=True)
    given = parser.parse_args()
    console = Console()
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "settings.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for task in given.tasks:
        for seed in given.seeds:
            for setting in given.settings:
                cell = Cell(task, given.regime, given.shots, seed)
                row = measure(cell, setting, given.data, given.stages, console)
                same = ("task", "regime", "shots", "seed", "setting")
                rows = [old for old in rows if any(old[name] != row[name] for name in same)]
                rows.append(row)
                with replacing(file) as written:
                    written.write((json.dumps(rows, indent=1) + "\n").encode())
    print(table(rows))


def overrides(setting: str) -> dict[str, Any]:
    """`section.key` and value of a setting, with as many rounds as its samples make."""
    changed = SETTINGS[setting]
    rounds = SAMPLES // changed.get("ppo.batch_size", _ROUND)
    return {
        "ppo.steps": rounds,
        "ppo.evaluate_every": rounds // 4,
        "ppo.comparison_samples": FRESH,
        **changed,
    }


def measure(cell: Cell, setting: str, data: Path, stages: Path, console: Console) -> dict[str, Any]:
    """One setting's row; its stages run where they have not.

    Raises:
        RetriktError: the cell or its data are wrong, or a stage failed.
    """
    changed = overrides(setting)
    request = Request(
        data,
        [cell.task],
        cell.regime,
        cell.shots,
        [cell.seed],
        overrides=[f"{name}={json.dumps(value)}" for name, value in changed.items()],
    )
    console.rule(f"{cell.name} {setting}")
    chain = request.plan(cell, BASE, stages).chain.upto(STAGE)
    done = chain.run(cell.seed, choose_display(console))
    made = done["ppo"]
    compared = json.loads((chain.directory(done[STAGE]) / COMPARISON).read_text(encoding="utf-8"))
    lines = (chain.directory(made) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    rounds = [row for row in log if "kl" in row]
    return {
        "task": cell.task,
        "regime": cell.regime,
        "shots": cell.shots,
        "seed": cell.seed,
        "setting": setting,
        "overrides": changed,
        "tuned_prompt": compared[TUNED],
        "ppo": compared[IMPROVED],
        "best_step": made.metrics["best_step"],
        "held_out": {
            row["step"]: [row["held_out_reward"], row["held_out_label_agreement"]]
            for row in log
            if "held_out_reward" in row
        },
        "rounds": {name: [row[name] for row in rounds] for name in _ROUNDS},
        "seconds": made.seconds,
        "key": made.key,
        "git_revision": git_revision(),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a task and setting, means over seeds of the prompts after PPO; first the tuned ones."""
    named = [title for title, _ in _COLUMNS.values()]
    head = ("task", "setting", *named, "KL", "clipped", "seeds")
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        before = [row["tuned_prompt"] for row in of_task if row["setting"] == "default"]
        if before:
            lines.append(f"| {task} | tuned prompt | {_told(before)} | | | {len(before)} |")
        for setting in SETTINGS:
            found = [row for row in of_task if row["setting"] == setting]
            if found:
                kl = mean(row["rounds"]["kl"][-1] for row in found)
                clipped = mean(mean(row["rounds"]["clip_fraction"]) for row in found)
                figures = _told([row["ppo"] for row in found])
                lines.append(
                    f"| {task} | {setting} | {figures} | {kl:.1f} | {clipped:.3f} | {len(found)} |"
                )
    return "\n".join(lines)


def _told(figures: Sequence[Mapping[str, float]]) -> str:
    return " | ".join(
        f"{mean(row[name] for row in figures):.{digits}f}" for name, (_, digits) in _COLUMNS.items()
    )


if __name__ == "__main__":
    main()

"""Labels that no training saw: ten of a task's are held back, and come into the store afterwards.

    python benchmarks/held_back_labels.py DIR/banking77 --seeds 0 1 2 --out runs/held-back

`DIR/banking77` has `train.jsonl`, and `test.jsonl` or `validation.jsonl` as test split. For each seed, ten
labels are drawn. A run up to its release sees rows of the others alone: labeller, generator, student, its
vocabulary, its store. Then, each in a copy of that release, few-shot rows of the held-back labels are added

- *texts*: as they are, as `retrikt knowledge add --new-labels` does;
- *and samples*: with samples that the generator (frozen, as it was trained) writes for them, as with `--samples`.

Nothing else is fitted or trained. Prints a Markdown row each: accuracy on the test rows of the held-back labels
and on the others', before and after, among all labels that the release has.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from offline.bench.answering import predictions
from offline.configs.run import RunConfig, load_run_config
from offline.knowledge.additions import NewItem
from offline.knowledge.drafts import Draft, draft_addition
from offline.knowledge.editing import EditSettings, edit_knowledge
from offline.knowledge.items import Items
from offline.knowledge.sources import Sources
from offline.pipeline.chain import run_lock
from offline.run import TaskRun
from offline.stages.index import CANDIDATE
from offline.store.gate import ReleaseConfig
from offline.store.publish import open_predictor, publish
from offline.tasks.few_shot import few_shot_rows
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import Examples
from services.platform.logs import configure_logs
from services.releases.directory import ReleaseDirectory

TASK = "held-back"
Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A seed's split of the task.

    Attributes:
        labels: that are held back.
        rows: their few-shot rows, which come in later.
        known, unknown: test rows of the other labels, and of these.
    """

    labels: list[str]
    rows: Rows
    known: Rows
    unknown: Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--held-back", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200, help="written for each new label")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    configure_logs("benchmark", "warning")
    print(
        "| seed | knowledge of the new labels | items of them | new labels | other labels | before |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
    for seed in asked.seeds:
        directory = asked.out / f"seed-{seed}"
        held_back = split(asked.data, directory / "data", seed, asked.shots, asked.held_back)
        config = trained(directory, asked.shots, seed, asked.overrides)
        task = directory / TASK
        before = accuracy(task, held_back.known)
        for name, samples in (("texts", 0), ("and samples", asked.samples)):
            copy = directory / name.replace(" ", "-")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(task, copy, ignore=shutil.ignore_patterns("*.lock"))
            started = time.perf_counter()
            added = add(copy, held_back, config, samples, seed)
            seconds = time.perf_counter() - started
            figures = [accuracy(copy, rows) for rows in (held_back.unknown, held_back.known)]
            told = " | ".join(f"{value:.3f}" for value in (*figures, before))
            print(f"| {seed} | {name} | {added} | {told} |", flush=True)
            print(f"seed {seed}, {name}: {seconds:.0f} s", file=sys.stderr)


def split(data: Path, out: Path, seed: int, shots: int, count: int) -> HeldBack:
    """Draw the labels, and write the others' `train.jsonl` and `test.jsonl` into `out`."""
    train = read(data / "train.jsonl")
    test = read(
        next(path for name in ("test", "validation") if (path := data / f"{name}.jsonl").is_file())
    )
    labels = sorted({row["label"] for row in train})
    held_back = sorted(random.Random(seed).sample(labels, count))
    tested = {letters_and_digits(row["text"]) for row in test}
    rows = [
        row
        for row in train
        if row["label"] in held_back and letters_and_digits(row["text"]) not in tested
    ]
    chosen = few_shot_rows([row["label"] for row in rows], shots, seed)
    known = [row for row in test if row["label"] not in held_back]
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (
        ("train", [row for row in train if row["label"] not in held_back]),
        ("test", known),
    ):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        if (
            not (path := out / f"{name}.jsonl").exists()
            or path.read_text(encoding="utf-8") != lines
        ):
            path.write_text(lines, encoding="utf-8")
    return HeldBack(
        held_back,
        [rows[row] for row in chosen],
        known,
        [row for row in test if row["label"] in held_back],
    )


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(directory: Path, shots: int, seed: int, overrides: Sequence[str]) -> RunConfig:
    """Run up to the store version, and make it the live release of `directory`."""
    data = (directory / "data").resolve()
    labels = sorted({row["label"] for row in read(data / "train.jsonl")})
    config = load_run_config(
        "banking77",
        [
            f"task.name={TASK}",
            f"task.shots={shots}",
            f"task.labels={json.dumps(labels)}",
            f"task.data.directory={data}",
            "task.data.test=test.jsonl",
            *overrides,
        ],
    )
    run = TaskRun(config, directory, Console(stderr=True))
    with run_lock(run.directory):
        finished = run.finish(seed, "index")
        nothing = Examples([], None, [])
        publish(
            finished.path("index", CANDIDATE),
            {},
            nothing,
            run.directory,
            config.store,
            config.release,
        )
    return config


def accuracy(task: Path, rows: Rows) -> float:
    """Of the live release, as it serves."""
    releases = ReleaseDirectory(task / "releases")
    live = releases.live()
    assert live is not None
    with open_predictor(releases.path(live.release)) as predictor:
        found = predictions(predictor, [row["text"] for row in rows], None)
        best = np.concatenate([part.probabilities.argmax(1) for part in found])
        answers = [predictor.labels[label] for label in best]
    return float(
        np.mean([answer == row["label"] for answer, row in zip(answers, rows, strict=True)])
    )


def add(task: Path, held_back: HeldBack, config: RunConfig, samples: int, seed: int) -> int:
    """Add the rows, and samples where there are to be any; returns how many items came in."""
    new = [
        NewItem(f"row {number}", row["text"], None, row["label"])
        for number, row in enumerate(held_back.rows, start=1)
    ]

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_addition(
            items,
            new,
            sources,
            new_labels=True,
            skip_duplicates=True,
            ask_labeller=True,
            samples=samples,
            seed=seed,
        )

    # What the gate would refuse is to be measured as well.
    settings = EditSettings(config.store, ReleaseConfig(), force=True)
    made = edit_knowledge(task, draft, settings)
    print(
        json.dumps({"outcome": made.outcome, "reasons": made.reasons, "written": made.written}),
        file=sys.stderr,
    )
    return len(made.added)


if __name__ == "__main__":
    main()

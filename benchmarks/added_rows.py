"""What labelled rows that come after training are worth: they go into the store, and nothing is trained.

    python benchmarks/added_rows.py runs/banking77 DIR/banking77 --a-label 5 10 20 40 80

`runs/banking77` is a finished run, of which a copy is edited; `DIR/banking77` has the rows of the task,
`train.jsonl`, and `test.jsonl` or `validation.jsonl` as test split. Rows of `train.jsonl` that are neither knowledge
of the release nor in the test split are added, so many of each label in all (less where a label has less), as
`retrikt knowledge add` does it.

Prints a Markdown row for each step: items that were added so far, and accuracy on the test split of the answers, of
the same without the neighbours' share, and of the neighbours alone.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline.bench.answering import predictions
from offline.knowledge.additions import NewItem
from offline.knowledge.drafts import Draft, draft_addition
from offline.knowledge.editing import EditSettings, edit_knowledge
from offline.knowledge.items import Items
from offline.knowledge.sources import Sources
from offline.store.publish import open_predictor
from offline.tasks.normal_form import letters_and_digits
from services.platform.logs import configure_logs
from services.releases.directory import ReleaseDirectory


@dataclass(frozen=True, slots=True)
class Rows:
    texts: list[str]
    labels: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_directory", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--a-label", type=int, nargs="+", default=[5, 10, 20, 40, 80])
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows")
    asked = parser.parse_args()
    configure_logs("benchmark", "error")
    test = read(
        next(
            path
            for name in ("test", "validation")
            if (path := asked.data / f"{name}.jsonl").is_file()
        )
    )
    train = read(asked.data / "train.jsonl")
    print("| rows a label | items added | accuracy | without neighbours | neighbours alone |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task"
        shutil.copytree(asked.task_directory, task, ignore=shutil.ignore_patterns("*.lock"))
        fresh = by_label(train, test, task, asked.seed)
        print(f"| 0 | 0 | {measured(task, test)} |", flush=True)
        before = added = 0
        for most in asked.a_label:
            new = [
                NewItem(f"{label} {number}", text, None, label)
                for label, texts in fresh.items()
                for number, text in enumerate(texts[before:most], start=before + 1)
            ]
            if not new:
                break
            started = time.perf_counter()
            added += add(task, new)
            seconds = time.perf_counter() - started
            print(f"| {most} | {added} | {measured(task, test)} |", flush=True)
            print(f"{len(new)} rows: {seconds:.0f} s", file=sys.stderr)
            before = most


def read(path: Path) -> Rows:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Rows([row["text"] for row in rows], [str(row["label"]) for row in rows])


def by_label(train: Rows, test: Rows, task: Path, seed: int) -> dict[str, list[str]]:
    """Texts of each label, in random order, that are neither knowledge nor test rows; each once."""
    seen = {letters_and_digits(text) for text in [*test.texts, *Items.of(task).texts]}
    found: dict[str, list[str]] = defaultdict(list)
    rows = list(zip(train.texts, train.labels, strict=True))
    random.Random(seed).shuffle(rows)
    for text, label in rows:
        form = letters_and_digits(text)
        if form and form not in seen:
            seen.add(form)
            found[label].append(text)
    return dict(sorted(found.items()))


def add(task: Path, new: list[NewItem]) -> int:
    """Add rows, whatever the gate says; returns how many items came in."""

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_addition(
            items, new, sources, new_labels=False, skip_duplicates=True, ask_labeller=True
        )

    return len(edit_knowledge(task, draft, EditSettings(force=True)).added)


def measured(task: Path, test: Rows) -> str:
    """Accuracies of the live release, as it serves, as cells of a table."""
    releases = ReleaseDirectory(task / "releases")
    live = releases.live()
    assert live is not None
    with open_predictor(releases.path(live.release)) as predictor:
        found = list(predictions(predictor, test.texts, None))
        place = {label: position for position, label in enumerate(predictor.labels)}
    gold = np.array([place[label] for label in test.labels])

    def right(parts: list[NDArray[np.float32]]) -> str:
        return f"{np.mean(np.concatenate(parts).argmax(1) == gold):.3f}"

    return " | ".join(
        [
            right([part.probabilities for part in found]),
            right([part.student for part in found]),
            right([part.store for part in found if part.store is not None]),
        ]
    )


if __name__ == "__main__":
    main()

"""What ten sentences of a label that the student never saw reach, on a copy of a finished run of helpdesk.

    python benchmarks/new_labels.py runs/helpdesk

For each label of `new_labels.jsonl` (sentences written for this, ten to add and twenty to ask): add the ten with the
labeller's help, then ask the release that came of it, through the predictor as it serves. Prints one row a label.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from offline.knowledge.additions import NewItem
from offline.knowledge.drafts import Draft, draft_addition
from offline.knowledge.editing import EditSettings, edit_knowledge
from offline.knowledge.items import Items
from offline.knowledge.outcome import Edited
from offline.knowledge.sources import Sources
from offline.store.publish import open_predictor
from services.platform.logs import configure_logs
from services.releases.directory import ReleaseDirectory
from services.student.predictor import TextInput

SENTENCES = Path(__file__).with_suffix(".jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_directory", type=Path)
    task_directory = parser.parse_args().task_directory
    configure_logs("benchmark", "error")
    parts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in SENTENCES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        parts[row["label"]][row["part"]].append(row["text"])
    print(
        "| label | outcome | balance | left out | unseen | validation before | after | processor seconds |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for label, texts in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "task"
            shutil.copytree(task_directory, copy)
            print(measured(copy, label, texts["added"], texts["unseen"]), flush=True)


def measured(task: Path, label: str, added: list[str], unseen: list[str]) -> str:
    started = time.process_time()
    made = add(task, label, added)
    seconds = time.process_time() - started
    releases = ReleaseDirectory(task / "releases")
    assert made.release is not None
    assert made.held_out is not None
    assert made.left_out is not None
    with open_predictor(releases.path(made.release)) as predictor:
        answers = predictor.predict([TextInput(text) for text in unseen]).probabilities.argmax(1)
        recall = float(np.mean(answers == predictor.labels.index(label)))
    cells = (
        label,
        made.outcome,
        f"{releases.get(made.release).balances[-1]:.1f}",
        f"{made.left_out[label]['recall']:.2f}",
        f"{recall:.2f}",
        f"{made.held_out['live_accuracy']:.3f}",
        f"{made.held_out['accuracy']:.3f}",
        f"{seconds:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def add(task: Path, label: str, texts: list[str]) -> Edited:
    new = [NewItem(f"row {n}", text, None, label) for n, text in enumerate(texts, start=1)]

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_addition(
            items, new, sources, new_labels=True, skip_duplicates=False, ask_labeller=True
        )

    return edit_knowledge(task, draft, EditSettings())


if __name__ == "__main__":
    main()

"""A cell of the benchmark: one task, regime, number of shots and seed, and the task section it runs on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from offline.bench import choices
from offline.configs.run import load_run_config
from offline.tasks.label_words import label_words
from services.platform.errors import InvalidConfig, InvalidData

Regime = Literal["labels", "unlabelled"]
"""`labels`: the labelled rows and nothing else. `unlabelled`: the left-over training rows without their
labels, too (and a task's own unlabelled texts)."""

BUILT_IN = "helpdesk"

LABEL_TEXTS = {
    "trec": {
        "ABBR": "abbreviation",
        "DESC": "description",
        "ENTY": "entity",
        "HUM": "person",
        "LOC": "place",
        "NUM": "number",
    }
}
"""What labels mean, in words, where their names do not say it (Li and Roth 2002 for trec)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one row a system is measured for.

    Attributes:
        task: name of a folder of the data, or the built-in task.
        regime: see `Regime`.
        shots: labelled rows a class; None for all of them.
        seed: of the few-shot draw and of everything after it.
    """

    task: str
    regime: Regime
    shots: int | None
    seed: int

    @property
    def name(self) -> str:
        """For messages and file names."""
        return f"{self.task}-{self.regime}-{self.shots_told}-{self.seed}"

    @property
    def shots_told(self) -> int | str:
        return "all" if self.shots is None else self.shots


@dataclass(frozen=True, slots=True)
class CellTask:
    """What a cell is run on.

    Attributes:
        section: the section `task` of its run, as JSON values.
        choices: whether its pairs are choices, which are compared; see `offline.bench.choices`.
    """

    section: dict[str, Any]
    choices: bool = False


def cell_task(cell: Cell, data: Path | None, work: Path) -> CellTask:
    """The task of a cell.

    Of a folder, `train.jsonl` is the train split and `test.jsonl` the test split; where there is none,
    `validation.jsonl` is. No validation split is named: all that is fitted, stopped or calibrated is so on
    the labelled rows of the run. The built-in task keeps the splits of its ready configuration, but for
    the unlabelled texts in the regime `labels`.

    Args:
        cell: which task, regime and number of shots.
        data: the folder that holds a folder a task; None where only the built-in task is asked for.
        work: where the pairs of a task of choices are written; nothing is for any other.

    Raises:
        InvalidConfig: there is no such task.
        InvalidData: its folder lacks a file, or a row of it cannot be read.
    """
    found = CellTask(_built_in(cell)) if cell.task == BUILT_IN else _of_folder(cell, data, work)
    if cell.shots is not None and not found.choices:
        found.section["shots"] = cell.shots
        found.section["leftover"] = "unlabelled" if cell.regime == "unlabelled" else "drop"
    return found


def _built_in(cell: Cell) -> dict[str, Any]:
    task = load_run_config(BUILT_IN).task
    section: dict[str, Any] = task.model_dump(mode="json")
    section["data"]["directory"] = str((task.data.directory or Path()).resolve())
    if cell.regime == "labels":
        section["data"]["unlabelled"] = None
    return section


def _of_folder(cell: Cell, data: Path | None, work: Path) -> CellTask:
    folder = None if data is None else data / cell.task
    if folder is None or not folder.is_dir():
        raise InvalidConfig(
            f"There is no task {cell.task!r}" + (f" in {data}." if data is not None else "."),
            hint=f"Name folders of --data, or the built-in task {BUILT_IN}.",
        )
    train = folder / "train.jsonl"
    test = next(
        (name for name in ("test.jsonl", "validation.jsonl") if (folder / name).is_file()), None
    )
    if test is None or not train.is_file():
        raise InvalidData(
            f"{folder} cannot be measured: it lacks {'a test split' if test is None else train.name}.",
            hint="Expected train.jsonl, and test.jsonl or validation.jsonl.",
        )
    rows = list(_rows(train))
    if rows and choices.CHOICES[0] in rows[0][1]:
        return _of_choices(cell, rows, list(_rows(folder / test)), work)
    labels: set[str] = set()
    paired = False
    for where, row in rows:
        if "text" not in row or "label" not in row:
            raise InvalidData(f"{where} has no field 'text' or no field 'label'.")
        labels.add(_label(row["label"]))
        paired = paired or "text_pair" in row
    texts = LABEL_TEXTS.get(cell.task, {})
    return CellTask(
        {
            "name": cell.task.lower(),
            "labels": {label: texts.get(label, label_words(label)) for label in sorted(labels)},
            "data": {"directory": str(folder.resolve()), "train": train.name, "test": test},
            "fields": {"text_pair": "text_pair" if paired else None},
        }
    )


def _of_choices(cell: Cell, train: choices.Rows, test: choices.Rows, work: Path) -> CellTask:
    directory = work / cell.name
    files = choices.write_pairs(
        train,
        test,
        directory,
        shots=cell.shots,
        seed=cell.seed,
        leftover=cell.regime == "unlabelled",
    )
    section = {
        "name": cell.task.lower(),
        "labels": {label: label for label in choices.LABELS},
        "data": {"directory": str(directory.resolve()), **files},
        "fields": {"text_pair": "text_pair"},
    }
    return CellTask(section, choices=True)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidData(f"{path} line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise InvalidData(f"{path} line {number} is not a JSON object.")
            yield f"{path} line {number}", row


def _label(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

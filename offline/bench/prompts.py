"""`prompts.json`: how well each prompt of a cell writes: the label's name, the tuned prompt, PPO's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from offline.bench.cells import Cell, Regime
from offline.report.evaluation import OURS
from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact

PROMPTS = "prompts.json"
STAGE = "comparison"
"""The stage that compares them."""

TUNED, IMPROVED = "tuned_prompt", "ppo"
_WITHOUT_PPO = f"{OURS}/no_ppo"
_STUDENT_OF = {TUNED: _WITHOUT_PPO, IMPROVED: OURS}
_FIGURES = {
    "reward": "reward",
    "label_agreement_judge": "agreement, judge",
    "label_agreement": "agreement, labeller",
    "self_bleu": "self-BLEU",
    "distinct": "distinct",
    "copies": "copies",
    "copies_unlabelled": "copies of unlabelled",
}
_DIGITS = {"reward": 2}


class PromptRow(BaseModel):
    """One prompt's fresh samples, measured in one cell.

    Attributes:
        task, regime, shots, seed: the cell.
        prompt: `name_prefix`, `tuned_prompt` or `ppo`.
        samples: how many were written, the same number of each label.
        reward: mean.
        label_agreement, label_agreement_judge: share that labeller and judge give the intended label.
        self_bleu: self-BLEU-4.
        distinct, copies, copies_unlabelled: shares; see `offline.teacher.diversity`.
        length: mean, tokens.
        complete: share that ended by itself, pairs with both texts.
        recipe, content, git_revision: as of a `Row`, for the stage that measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    regime: Regime
    shots: int | Literal["all"]
    seed: int
    prompt: str
    samples: int
    reward: float
    label_agreement: float
    label_agreement_judge: float
    self_bleu: float
    distinct: float
    copies: float
    copies_unlabelled: float
    length: float
    complete: float
    recipe: str
    content: str
    git_revision: str | None

    @property
    def cell(self) -> Cell:
        shots = None if self.shots == "all" else self.shots
        return Cell(self.task, self.regime, shots, self.seed)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    rows: list[PromptRow] = []


@dataclass(frozen=True, slots=True)
class PromptResults:
    """The rows of a directory, whose `results.json` says whether they are of quick runs."""

    directory: Path
    _rows: dict[tuple[Cell, str], PromptRow]

    @classmethod
    def open(cls, directory: Path) -> "PromptResults":
        """The rows that are there already; none where there is no file.

        Raises:
            CorruptArtifact: the file cannot be read.
        """
        path = directory / PROMPTS
        if not path.exists():
            return cls(directory, {})
        try:
            found = _File.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
        return cls(directory, {(row.cell, row.prompt): row for row in found.rows})

    def is_of_another(self, cell: Cell, recipe: str) -> bool:
        """Whether the cell's prompts have been compared, by another recipe."""
        return any(row.cell == cell and row.recipe != recipe for row in self._rows.values())

    def finished(self, cell: Cell, recipe: str) -> bool:
        """Whether the cell's prompts have been compared by that recipe."""
        found = [row.recipe for row in self._rows.values() if row.cell == cell]
        return bool(found) and set(found) == {recipe}

    def __iter__(self) -> Iterator[PromptRow]:
        """In the order of the file: by cell, and as the comparison lists them."""
        return iter(
            sorted(
                self._rows.values(),
                key=lambda row: (row.regime, row.task, str(row.shots), row.seed),
            )
        )

    def add(self, cell: Cell, comparison: Path, **provenance: Any) -> None:
        """Keep a finished comparison in place of the one of its cell; written at once.

        Args:
            cell: of the run.
            comparison: the stage's `comparison.json`.
            provenance: `recipe`, `content`, `git_revision`.
        """
        known = PromptRow.model_fields.keys()
        for prompt, figures in json.loads(comparison.read_text(encoding="utf-8")).items():
            self._rows[cell, prompt] = PromptRow(
                task=cell.task,
                regime=cell.regime,
                shots=cell.shots_told,
                seed=cell.seed,
                prompt=prompt,
                **{name: value for name, value in figures.items() if name in known},
                **provenance,
            )
        with replacing(self.directory / PROMPTS) as file:
            file.write((_File(rows=list(self)).model_dump_json(indent=1) + "\n").encode())


def prompt_table(rows: Sequence[PromptRow], accuracy: Mapping[tuple[Cell, str], float]) -> str:
    """Markdown: means over seeds of each task's prompts, and what PPO changed, over all tasks.

    Args:
        rows: of today's code, settings and data; at least one.
        accuracy: by cell and system; the student's is ours for PPO, and the ablation `no_ppo`'s for the
            tuned prompt.
    """
    head = ("task", "prompt", *_FIGURES.values(), "student's accuracy")
    written = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    groups: dict[tuple[str, str, str], list[PromptRow]] = {}
    for row in rows:
        groups.setdefault((row.regime, row.task, row.prompt), []).append(row)
    for (regime, task, prompt), found in groups.items():
        student = [
            accuracy[row.cell, system]
            for row in found
            if (system := _STUDENT_OF.get(prompt)) and (row.cell, system) in accuracy
        ]
        # A mean over fewer seeds than its line says would not be that line's.
        told = f"{np.mean(student):.3f}" if len(student) == len(found) else ""
        figures = [_told([getattr(row, name) for row in found], name) for name in _FIGURES]
        written.append(f"| {task}, {regime} | {prompt} | " + " | ".join((*figures, told)) + " |")
    changes = {name: _changes(rows, name) for name in _FIGURES}
    mean = " | ".join(f"{np.mean(list(found.values())):+.3f}" for found in changes.values())
    written.append(
        f"| mean of tasks | {IMPROVED} minus {TUNED} | {mean} | {_student_change(rows, accuracy)} |"
    )
    counts = sorted({row.samples for row in rows})
    seeds = {
        f"{task} ({regime}) {', '.join(str(seed) for seed in sorted(found))}"
        for (regime, task), found in _seeds(rows).items()
    }
    return "\n".join(
        (
            f"## Prompts: {' or '.join(map(str, counts))} fresh samples each\n",
            "Means over seeds ± standard deviation. Copies count among their own task's texts.\n",
            *written,
            f"\nSeeds: {'; '.join(sorted(seeds))}.\n",
        )
    )


def _told(values: Sequence[float], name: str) -> str:
    digits = _DIGITS.get(name, 3)
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _changes(rows: Sequence[PromptRow], name: str) -> dict[tuple[str, str], float]:
    """PPO's mean over seeds minus the tuned prompt's, of each regime and task."""
    means: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        found = means.setdefault((row.regime, row.task), {})
        found.setdefault(row.prompt, []).append(getattr(row, name))
    return {
        task: float(np.mean(found[IMPROVED]) - np.mean(found[TUNED]))
        for task, found in means.items()
    }


def _student_change(rows: Sequence[PromptRow], accuracy: Mapping[tuple[Cell, str], float]) -> str:
    """Over the cells that have both students; empty where none has."""
    by_task: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        both = [accuracy.get((row.cell, system)) for system in (OURS, _WITHOUT_PPO)]
        if row.prompt == IMPROVED and both[0] is not None and both[1] is not None:
            by_task.setdefault((row.regime, row.task), []).append(both[0] - both[1])
    return f"{np.mean([np.mean(found) for found in by_task.values()]):+.3f}" if by_task else ""


def _seeds(rows: Sequence[PromptRow]) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        found.setdefault((row.regime, row.task), set()).add(row.seed)
    return found

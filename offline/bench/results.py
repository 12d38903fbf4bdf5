"""`results.json`: a row a cell and system; and beside it, which test rows each system got right."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from offline.bench.cells import Cell, Regime
from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact, InvalidConfig

RESULTS = "results.json"
OUTCOMES = "outcomes"


class Row(BaseModel):
    """One system measured in one cell.

    Attributes:
        task, regime, shots, seed: the cell.
        system: see `offline.bench.systems`; of an ablation, `retrikt/…`.
        accuracy, macro_f1, nll, ece: on the test split; see `offline.report.metrics`.
        parameters: weights of the system.
        model_bytes: of its files, without the store.
        store_bytes: of the store version that it searches and the soft labels; 0 where it asks none.
        latency_ms: median time of one text alone, in this process, on the machine that measured.
        test_rows: rows of the test split.
        recipe: hash of all that the row follows from: code, configuration, seed, data, models.
        system_hash: the same without task and seed: rows with different ones are not of one system.
        content: hash of the files of each stage that it was measured from.
        git_revision: commit of the code, `-dirty` behind it where files differed; null where unknown.
        precision: number format of the frozen language model, which `auto` makes one of the processor. It is no part of
            `recipe`, so that rows of several may stand in one table, which says so; null where it was not recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    regime: Regime
    shots: int | Literal["all"]
    seed: int
    system: str
    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    parameters: int
    model_bytes: int
    store_bytes: int
    latency_ms: float
    test_rows: int
    recipe: str
    system_hash: str
    content: dict[str, str]
    git_revision: str | None
    precision: str | None = None

    @property
    def cell(self) -> Cell:
        shots = None if self.shots == "all" else self.shots
        return Cell(self.task, self.regime, shots, self.seed)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    quick: bool
    rows: list[Row] = []


class _Outcome(BaseModel):
    """Which rows a system got right: bits in row order, in hexadecimal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    rows: int
    right: str


@dataclass(frozen=True, slots=True)
class Results:
    """The rows of a directory; every change is written at once.

    Attributes:
        directory: holds `results.json` and `outcomes/`.
        quick: whether the rows are of quick runs, whose figures say nothing.
    """

    directory: Path
    quick: bool
    _rows: dict[tuple[Cell, str], Row]

    @classmethod
    def open(cls, directory: Path, *, quick: bool) -> "Results":
        """The rows that are there already; none where there is no file.

        Raises:
            CorruptArtifact: the file cannot be read.
            InvalidConfig: it holds quick rows and these are to be real ones, or the other way round.
        """
        path = directory / RESULTS
        if not path.exists():
            return cls(directory, quick, {})
        try:
            found = _File.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
        if found.quick != quick:
            kind = "of quick runs" if found.quick else "that were measured in earnest"
            raise InvalidConfig(
                f"{path} holds rows {kind}.", hint="Keep the two apart: choose another --out."
            )
        return cls(directory, quick, {(row.cell, row.system): row for row in found.rows})

    def __iter__(self) -> Iterator[Row]:
        """In the order of the file: by cell and system."""
        return iter(sorted(self._rows.values(), key=_order))

    def finished(self, cell: Cell, system: str, recipe: str) -> bool:
        """Whether the row is there, made by that recipe, and so are its outcomes."""
        row = self._rows.get((cell, system))
        return row is not None and row.recipe == recipe and self.right(row) is not None

    def is_of_another(self, cell: Cell, system: str, recipe: str) -> bool:
        """Whether there is such a row, made by another recipe."""
        row = self._rows.get((cell, system))
        return row is not None and row.recipe != recipe

    def add(self, row: Row, right: NDArray[np.bool_]) -> None:
        """Keep a row in place of the one of its cell and system, with (test rows,) `right`."""
        # Outcomes first: a row is only finished with them.
        outcomes = self._outcomes(row.cell)
        outcomes[row.system] = _Outcome(
            recipe=row.recipe, rows=len(right), right=np.packbits(right).tobytes().hex()
        )
        listed = {name: outcomes[name].model_dump() for name in sorted(outcomes)}
        path = self._outcomes_path(row.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write((json.dumps(listed, indent=1) + "\n").encode())
        self._rows[row.cell, row.system] = row
        content = _File(quick=self.quick, rows=list(self))
        with replacing(self.directory / RESULTS) as file:
            file.write((content.model_dump_json(indent=1) + "\n").encode())

    def right(self, row: Row) -> NDArray[np.bool_] | None:
        """(test rows,): which the row's system got right; None where that is not there for this row."""
        found = self._outcomes(row.cell).get(row.system)
        if found is None or found.recipe != row.recipe or found.rows != row.test_rows:
            return None
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(found.right), dtype=np.uint8))
        return bits[: found.rows].astype(bool)

    def _outcomes(self, cell: Cell) -> dict[str, _Outcome]:
        try:
            found = json.loads(self._outcomes_path(cell).read_bytes())
            return {name: _Outcome.model_validate(value) for name, value in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CorruptArtifact(
                f"{self._outcomes_path(cell)} cannot be read: {error}.",
                hint="Remove it, and its rows are measured again.",
            ) from error

    def _outcomes_path(self, cell: Cell) -> Path:
        return self.directory / OUTCOMES / f"{cell.name}.json"


def _order(row: Row) -> tuple[str, str, int, int, str]:
    shots = 10**9 if row.shots == "all" else row.shots
    return row.regime, row.task, shots, row.seed, row.system

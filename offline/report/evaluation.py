"""Measuring the systems of a run on the test split, and what is kept of their answers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline.configs.section import Section
from offline.report.metrics import figures
from offline.student.baselines import SYSTEMS as _BASELINES

TEACHER = "teacher"
OURS = "retrikt"
BASELINES = _BASELINES
SYSTEMS = (TEACHER, *BASELINES, OURS)
"""In the order of tables."""

Probabilities = NDArray[np.float32]


class EvaluateConfig(Section):
    """There is nothing to choose: every run is measured in the same way."""


def measure(
    answers: Mapping[str, Probabilities], gold: NDArray[np.int64], parameters: Mapping[str, int]
) -> dict[str, dict[str, float | int]]:
    """Accuracy, macro-F1, NLL, ECE and parameters of every system.

    Args:
        answers: probabilities (n, labels) by system.
        gold: (n,) positions of the right labels.
        parameters: number of weights by system.
    """
    return {
        system: {**figures(probabilities, gold), "parameters": parameters[system]}
        for system, probabilities in answers.items()
    }


def write_predictions(
    path: Path, answers: Mapping[str, Probabilities], gold: NDArray[np.int64]
) -> None:
    """One row a system and test row: `system`, `row`, `gold`, `predicted`, `probability` (of the
    predicted label)."""
    rows = len(gold)
    tables = [
        pa.table(
            {
                "system": pa.array([system] * rows),
                "row": pa.array(np.arange(rows, dtype=np.int32)),
                "gold": pa.array(gold.astype(np.int32)),
                "predicted": pa.array(probabilities.argmax(1).astype(np.int32)),
                "probability": pa.array(probabilities.max(1).astype(np.float32)),
            }
        )
        for system, probabilities in answers.items()
    ]
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def read_outcomes(path: Path) -> dict[str, NDArray[np.bool_]]:
    """Whether each answer was right, (rows,) by system, of a file of `write_predictions`."""
    table = pq.read_table(path, columns=["system", "gold", "predicted"])
    systems = np.array(table["system"].to_pylist())
    right = table["gold"].to_numpy() == table["predicted"].to_numpy()
    return {str(system): right[systems == system] for system in np.unique(systems)}

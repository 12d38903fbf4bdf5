"""Measuring one system on the test split: its figures, what it got right, and how long one text takes."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.bench.answering import Answering
from offline.report.metrics import figures
from offline.tasks.prepared import Examples

TIMED_TEXTS = 200
_WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One system on one test split.

    Attributes:
        figures: accuracy, macro_f1, nll, ece.
        right: (rows,) whether each answer was right.
        latency_ms: median time of one text alone.
    """

    figures: dict[str, float]
    right: NDArray[np.bool_]
    latency_ms: float


def measure(
    system: Answering, test: Examples, gold: NDArray[np.int64], *, texts_an_answer: int = 1
) -> Measured:
    """Ask for every test row, then for single ones.

    Args:
        system: at work.
        test: the test split.
        gold: (rows,) positions of its labels.
        texts_an_answer: how many examples, beside each other, make one row.
    """
    answers = system.probabilities(test.texts, test.pairs)
    right: NDArray[np.bool_] = answers.argmax(1) == gold
    return Measured(
        figures(answers, gold), right, round(_latency(system, test, texts_an_answer), 4)
    )


def _latency(system: Answering, test: Examples, size: int) -> float:
    """Median milliseconds of one answer, over the first test rows."""
    seconds = []
    for start in range(0, min(TIMED_TEXTS * size, len(test)), size):
        one = slice(start, start + size)
        pairs = None if test.pairs is None else test.pairs[one]
        started = time.perf_counter()
        system.probabilities(test.texts[one], pairs)
        seconds.append(time.perf_counter() - started)
    timed = seconds[_WARM_UP:] or seconds
    return 1000 * float(np.median(timed))

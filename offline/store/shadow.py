"""Shadow evaluation: a candidate answers the held-out rows beside the live release, and both are compared."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.student.predictor import Predictor, TextInput

_TIMED = 32
_TIMES = 5


@dataclass(frozen=True, slots=True)
class Shadow:
    """How a candidate compares with the live release on the same rows.

    Attributes:
        live: id of the live release.
        rows: that both answered.
        accuracy, live_accuracy: of each.
        agreement: share of the rows that both answer alike.
        milliseconds, live_milliseconds: for one text, each timed beside the other on this machine.
    """

    live: str
    rows: int
    accuracy: float
    live_accuracy: float
    agreement: float
    milliseconds: float
    live_milliseconds: float

    def figures(self) -> dict[str, Any]:
        return {
            name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()
        }


def compare(
    live: str,
    answers: NDArray[np.int64],
    live_answers: NDArray[np.int64],
    gold: NDArray[np.int64],
    milliseconds: tuple[float, float],
) -> Shadow:
    """What is told of a comparison.

    Args:
        live: id of the live release.
        answers, live_answers, gold: (n,), positions of labels in one order; -1 for a label that is not in it.
        milliseconds: of the candidate and of the live release.
    """
    return Shadow(
        live=live,
        rows=len(gold),
        accuracy=float(np.mean(answers == gold)),
        live_accuracy=float(np.mean(live_answers == gold)),
        agreement=float(np.mean(answers == live_answers)),
        milliseconds=milliseconds[0],
        live_milliseconds=milliseconds[1],
    )


def times(
    candidate: Predictor, live: Predictor, inputs: Sequence[TextInput]
) -> tuple[float, float]:
    """Milliseconds that each takes for one text: the median over texts of the best of a few tries.

    The two take turns, so that whatever else the machine does falls on both.
    """
    best: list[tuple[float, float]] = []
    for text in inputs[:_TIMED]:
        tries = [(_time(candidate, text), _time(live, text)) for _ in range(_TIMES)]
        best.append((min(one for one, _ in tries), min(other for _, other in tries)))
    ours, theirs = np.median(np.array(best), axis=0)
    return float(ours), float(theirs)


def _time(predictor: Predictor, text: TextInput) -> float:
    started = time.perf_counter()
    predictor.predict([text])
    return (time.perf_counter() - started) * 1000

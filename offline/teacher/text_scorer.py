"""A scorer that reads texts itself: a model's scores behind a temperature, both fitted on labelled rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from offline.teacher.calibration import (
    assign_folds,
    cross_fitted_probabilities,
    fit_temperature,
    softmax,
)
from offline.teacher.encoder import Progress

# What fitting a model and reading texts with it count as, beside each other, in the report of progress.
_STEPS = 100


class TextModel(Protocol):
    """Gives texts a score a label, not calibrated yet."""

    @property
    def parameters(self) -> int: ...

    def scores(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(n, labels) float32, log-probabilities but for a constant a row."""
        ...


Model = TypeVar("Model", bound=TextModel)
Made = TypeVar("Made", bound=TextModel, covariant=True)


@dataclass(frozen=True, slots=True)
class TextScorer(Generic[Model]):
    """`softmax(scores / temperature)`."""

    model: Model
    temperature: float
    reads_embeddings: ClassVar[bool] = False

    @property
    def parameters(self) -> int:
        return self.model.parameters

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        embeddings: NDArray[np.float32] | None,
        progress: Progress | None,
    ) -> NDArray[np.float32]:
        scores = self.model.scores(texts, pairs, progress=progress)
        return softmax(scores / np.float32(self.temperature))


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows to learn from.

    Attributes:
        texts: n texts.
        pairs: n second texts, or None.
        gold: (n,) positions of the labels.
        forms: n normal forms of the texts; equal ones of a label share a fold.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    gold: NDArray[np.int64]
    forms: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[np.int64]) -> "LabelledRows":
        return LabelledRows(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            self.gold[rows],
            [self.forms[row] for row in rows],
        )


class Fit(Protocol[Made]):
    """Makes a model of labelled rows; `progress` is called with (done, total)."""

    def __call__(self, rows: LabelledRows, seed: int, progress: Progress) -> Made: ...


@dataclass(frozen=True, slots=True)
class FittedScorer(Generic[Model]):
    """A scorer and what cross-fitting says of it.

    Attributes:
        scorer: of all rows.
        cross_fitted: (n, labels) float32, for each row by a model and a temperature that did not see its fold.
        folds: (n,) fold of every row.
    """

    scorer: TextScorer[Model]
    cross_fitted: NDArray[np.float32]
    folds: NDArray[np.int64]


def fit_scorer(
    fit: Fit[Model],
    rows: LabelledRows,
    labels: int,
    *,
    learns: bool,
    folds: int,
    seed: int,
    progress: Progress,
) -> FittedScorer[Model]:
    """Fit a model on labelled rows and calibrate it, as the head of an encoder is (see `fit_head`).

    Args:
        fit: makes a model; called once a fold and once for all rows, one model in memory at a time.
        rows: of the run.
        labels: how many labels there are.
        learns: whether what `fit` makes depends on the rows; if not, it is called once.
        folds: of the cross-fitting.
        seed: of the folds and the fits.
        progress: called with (done, total) over all models.
    """
    fold_of = assign_folds(rows.gold, rows.forms, folds, seed)
    scores = np.empty((len(rows), labels))
    parts = [fold_of == fold for fold in np.unique(fold_of)] if learns else []

    def part_of(number: int, first: bool) -> Progress:
        def tell(done: int, total: int) -> None:
            share = (done / total + (0 if first else 1)) / 2
            progress(int((number + share) * _STEPS), (len(parts) + 1) * _STEPS)

        return tell

    def read(model: TextModel, inside: NDArray[np.bool_], number: int) -> None:
        held_out = rows.take(np.flatnonzero(inside))
        scores[inside] = model.scores(
            held_out.texts, held_out.pairs, progress=part_of(number, False)
        )

    for number, inside in enumerate(parts):
        outside = rows.take(np.flatnonzero(~inside))
        read(fit(outside, _seed(seed, number), part_of(number, True)), inside, number)
    model = fit(rows, _seed(seed, len(parts)), part_of(len(parts), True))
    if not learns:
        read(model, np.ones(len(rows), dtype=bool), 0)
    scorer = TextScorer(model, fit_temperature(scores, rows.gold))
    probabilities = cross_fitted_probabilities(scores, rows.gold, fold_of)
    return FittedScorer(scorer, probabilities.astype(np.float32), fold_of)


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number]).integers(2**62))


def batches(lengths: Sequence[int], size: int, *, equal: bool = False) -> list[NDArray[np.int64]]:
    """Rows in batches of like length, the longest first.

    Args:
        lengths: n lengths.
        size: rows of a batch.
        equal: whether a batch holds rows of one length alone.
    """
    order = np.argsort(np.negative(lengths), kind="stable")
    found: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        end = start + size
        if equal:
            same = [row for row in order[start:end] if lengths[row] == lengths[order[start]]]
            end = start + len(same)
        found.append(order[start:end])
        start = end
    return found

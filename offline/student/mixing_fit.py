"""Fitting the mixing: temperatures, the gate and k, on rows for which the scores are honest.

A row is honest when neither half of the answer has seen it: the student was not trained on it, or its
logits are surer than they will be on users' texts, and it does not find itself in the store. Such rows
are those of the task's validation split. There, the constant gate and the gate that reads the scores
are compared with the head alone by cross-validation; the store gets a share only where that pays.

A task without a validation split has none. Knowledge items held back from the student's training are
no stand-in: they are of the very kind that it was trained on, so that its head is as good on them as it
will ever be, and both temperatures come out too high for people's texts. The mixing is then made of
settings, which were measured on 3,000 left-over training rows of banking77 (10 a class, three seeds):
0.808 against 0.800 with what held-out items gave, and within 0.002 of it for any k from 8 to 32,
similarity temperature from 0.01 to 0.03 and share from 0.3 to 0.4. Beside a lexical index the store's share is a
smaller one: on held-out texts of five tasks 0.2 gave the best likelihood (0.656 against 0.658 with 0.35 and 0.659 with
0), and the accuracy was the same to 0.001.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from offline.configs.section import Section
from services.student.mixing import (
    FEATURES,
    MixingParameters,
    gate_features,
    head_distribution,
    mix,
    store_distribution,
)

NO_STORE = -30.0
"""A gate's bias with which the store's share is nothing."""

_SCORES_AT_ONCE = 1 << 23
"""Cosines that are held at a time: 32 MB, and twice that for the order of each."""
_STEPS = 60


class MixingConfig(Section):
    """How the mixing is fitted, and what it is where there is nothing to fit it on.

    Attributes:
        k: candidates for the number of neighbours.
        gate_penalty: on the squared weights of the gate over standardised features, in rows.
        folds: of the cross-validation that chooses k and the kind of gate.
        unfitted_k: neighbours, where the task's validation split has less than two rows a label.
        unfitted_similarity_temperature: of the neighbours' similarities, there.
        unfitted_share: the store's share of an answer, there.
        lexical_share: of the lexical index in the scores of a student with a store, whatever the rows; 0 for none.
    """

    k: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(default=(8, 16, 32), min_length=1)
    gate_penalty: Annotated[float, Field(ge=0)] = 1.0
    folds: Annotated[int, Field(ge=2)] = 5
    unfitted_k: Annotated[int, Field(ge=1, le=256)] = 16
    unfitted_similarity_temperature: Annotated[float, Field(gt=0)] = 0.03
    unfitted_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    lexical_share: Annotated[float, Field(ge=0, lt=1)] = 0.5


@dataclass(frozen=True, slots=True)
class FittingRows:
    """Rows to fit on.

    Attributes:
        logits: (n, H) of the exported student, blended with the lexical index's.
        targets: (n, H) one-hot gold labels.
        similarities: (n, k) cosines to the nearest items, best first, -inf where there are fewer; k
            the largest candidate.
        neighbour_labels: (n, k, H) soft labels of those items.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.float32]
    similarities: NDArray[np.float32]
    neighbour_labels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FittedMixing:
    """What was fitted, and what the cross-validation says of it.

    Attributes:
        parameters: for the bundle.
        gate: `none`, `constant`, `scores`, or `share` (the setting's: nothing was fitted).
        figures: cross-validated `nll_<gate>_<k>` of every candidate, `nll` and `accuracy` of the
            chosen one and of the head alone (`head_nll`, `head_accuracy`), `weight` (mean share).
            Empty where nothing was fitted.
    """

    parameters: MixingParameters
    gate: str
    figures: dict[str, float]


def nearest_items(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    soft_labels: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Exact search: cosines (n, k), best first, and soft labels (n, k, L) of the nearest items.

    Args:
        queries: (n, d) unit vectors.
        vectors: (m, d) unit vectors of the items.
        soft_labels: (m, L).
        k: neighbours; where fewer remain, cosines are padded with -inf.
        excluded: (n, m), true where the item must not be found.
    """
    similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
    neighbour_labels = np.zeros((len(queries), k, soft_labels.shape[1]), dtype=np.float32)
    found = min(k, len(vectors))
    if not found:
        return similarities, neighbour_labels
    at_once = max(1, _SCORES_AT_ONCE // len(vectors))
    for start in range(0, len(queries), at_once):
        rows = slice(start, start + at_once)
        scores = queries[rows] @ vectors.T
        if excluded is not None:
            scores[excluded[rows]] = -np.inf
        best = np.argpartition(-scores, found - 1, axis=1)[:, :found]
        # By position first, so that equal cosines keep the items' order.
        best.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        similarities[rows, :found] = np.take_along_axis(scores, best, axis=1)
        neighbour_labels[rows, :found] = soft_labels[best]
    return similarities, neighbour_labels


def unfitted_mixing(config: MixingConfig, *, store: bool = True) -> FittedMixing:
    """The settings, for a task without rows to fit on.

    Args:
        config: has them.
        store: False for a student without a store: its head alone answers, as it is.
    """
    if not store:
        return FittedMixing(MixingParameters(gate_bias=NO_STORE), "none", {})
    parameters = MixingParameters(
        k=config.unfitted_k,
        similarity_temperature=config.unfitted_similarity_temperature,
        gate_bias=round(_logit(config.unfitted_share), 6),
    )
    return FittedMixing(parameters, "share", {})


def fit_mixing(
    rows: FittingRows, config: MixingConfig, *, seed: int, store: bool = True
) -> FittedMixing:
    """Choose k and the kind of gate by cross-validated likelihood, then fit on all rows.

    Fewer rows than folds are none: then the store gets no share.

    Args:
        rows: honest ones, see above.
        config: candidates.
        seed: of the folds.
        store: False for a student without a store: its temperature alone is fitted.
    """
    if len(rows.logits) < config.folds:
        return unfitted_mixing(config, store=False)
    folds = np.random.default_rng(seed).permutation(len(rows.logits)) % config.folds
    head = ("none", min(config.k))
    candidates = [head]
    if store:
        candidates += [(gate, k) for gate in ("constant", "scores") for k in config.k]
    answers = {
        candidate: _cross_validated(rows, *candidate, config, folds) for candidate in candidates
    }
    losses = {candidate: _loss(found, rows.targets) for candidate, found in answers.items()}
    gate, k = min(candidates, key=lambda candidate: losses[candidate])
    parameters = _fit(rows, gate, k, config)
    figures = {f"nll_{gate}_{k}": loss for (gate, k), loss in losses.items()}
    figures |= {
        "nll": losses[gate, k],
        "accuracy": _accuracy(answers[gate, k], rows.targets),
        "head_nll": losses[head],
        "head_accuracy": _accuracy(answers[head], rows.targets),
        "weight": float(_apply(rows, parameters).weight.mean()),
    }
    return FittedMixing(
        parameters, gate, {name: round(value, 6) for name, value in figures.items()}
    )


class _Trainable(NamedTuple):
    """`MixingScalars` with gradients; the gate's weights are over standardised features."""

    similarity_temperature: Tensor
    head_temperature: Tensor
    gate_weights: Tensor
    gate_bias: Tensor


def _cross_validated(
    rows: FittingRows, gate: str, k: int, config: MixingConfig, folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    answers = np.empty_like(rows.targets)
    for fold in range(config.folds):
        inside = folds == fold
        if inside.any():
            parameters = _fit(_take(rows, ~inside), gate, k, config)
            answers[inside] = _apply(_take(rows, inside), parameters).probabilities
    return answers


def _fit(rows: FittingRows, gate: str, k: int, config: MixingConfig) -> MixingParameters:
    """Maximum likelihood by L-BFGS; temperatures by their logarithms."""
    logits, targets, similarities, labels = (
        torch.from_numpy(part).double()
        for part in (
            rows.logits,
            rows.targets,
            rows.similarities[:, :k],
            rows.neighbour_labels[:, :k],
        )
    )
    start = MixingParameters(k=k)
    spread = _Spread.of(logits, similarities, labels, start)
    free = torch.zeros(3 + len(FEATURES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def trainable() -> _Trainable:
        weights = free[3:] if gate == "scores" else torch.zeros_like(free[3:])
        bias = free[2] * 0 + NO_STORE if gate == "none" else free[2]
        return _Trainable(
            similarity_temperature=start.similarity_temperature * _bounded_exp(free[0]),
            head_temperature=_bounded_exp(free[1]),
            gate_weights=weights / spread.deviation,
            gate_bias=bias - (weights / spread.deviation * spread.mean).sum(),
        )

    def closure() -> Tensor:
        optimizer.zero_grad()
        answer = mix(logits, similarities, labels, trainable()).probabilities
        loss = -(targets * torch.log(answer.clamp_min(1e-9))).sum(1).mean()
        # A mild pull to the start keeps temperatures finite where a row set is separable.
        penalty = config.gate_penalty * free[3:].square().sum() + free[:3].square().sum() * 0.1
        loss = loss + penalty / len(targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        fitted = trainable()
    return MixingParameters(
        k=k,
        similarity_temperature=round(float(fitted.similarity_temperature), 6),
        head_temperature=round(float(fitted.head_temperature), 6),
        gate_weights=tuple(round(float(weight), 6) for weight in fitted.gate_weights),
        gate_bias=round(float(fitted.gate_bias), 6),
    )


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _bounded_exp(value: Tensor) -> Tensor:
    """exp, bent so as to stay within a factor of 20: separable rows would ask for infinity."""
    return torch.exp(3.0 * torch.tanh(value / 3.0))


class _Spread(NamedTuple):
    """Mean and deviation of the gate's features, by which its weights are comparable."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(
        cls, logits: Tensor, similarities: Tensor, labels: Tensor, start: MixingParameters
    ) -> "_Spread":
        store = store_distribution(similarities, labels, start)
        features = gate_features(head_distribution(logits, start), store, similarities)
        return cls(features.mean(0), features.std(0, correction=0).clamp_min(1e-3))


class _Answer(NamedTuple):
    probabilities: NDArray[np.float32]
    weight: NDArray[np.float32]


def _apply(rows: FittingRows, parameters: MixingParameters) -> _Answer:
    k = parameters.k
    mixed = mix(rows.logits, rows.similarities[:, :k], rows.neighbour_labels[:, :k], parameters)
    return _Answer(mixed.probabilities, mixed.weight)


def _take(rows: FittingRows, chosen: NDArray[np.bool_]) -> FittingRows:
    return FittingRows(
        rows.logits[chosen],
        rows.targets[chosen],
        rows.similarities[chosen],
        rows.neighbour_labels[chosen],
    )


def _loss(answers: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    return float(-(targets * np.log(np.maximum(answers, 1e-9))).sum(1).mean())


def _accuracy(answers: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    return float(np.mean(answers.argmax(1) == targets.argmax(1)))

"""Fitting the mixing: temperatures, the gate and k, on rows for which the scores are honest.

A row is honest when neither half of the answer has seen it. The student must not have been trained
on it, or its logits are surer than they will be on users' texts; and it must not find itself in the
store. So the rows are those of the task's validation split where there is one, and otherwise knowledge
items that were kept from the student's training for this (with the labeller's soft labels as the
target). An item that is also in the store is taken out of its own neighbours, with all items that have
the same letters and digits and all that the labeller puts within `near_duplicate` of it.

On rows with gold labels, the constant gate and the gate that reads the scores are compared with the
head alone by cross-validation; the store gets a share only where that pays. Held-out items cannot tell
that share: they are what the student was trained on all along, so it is as good on them as it will
ever be, and a share fitted there would be next to nothing, where people's texts ask for more (measured
on left-over training rows of banking77). The share is then a setting, and temperatures and k are fitted.
"""

from collections.abc import Sequence
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

_ROWS_AT_ONCE = 256
_STEPS = 60


class MixingConfig(Section):
    """How the mixing is fitted.

    Attributes:
        k: candidates for the number of neighbours.
        held_out: knowledge items kept from the student's training to fit on, where the task has no
            validation split of at least two rows a label; at most a tenth of the items.
        share: the store's share of an answer where the rows to fit on are held-out items.
        near_duplicate: cosine of two embeddings by the labeller from which texts count as the same.
        gate_penalty: on the squared weights of the gate over standardised features, in rows.
        folds: of the cross-validation that chooses k and the kind of gate.
    """

    k: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(default=(8, 16, 32), min_length=1)
    held_out: Annotated[int, Field(ge=0)] = 800
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95
    gate_penalty: Annotated[float, Field(ge=0)] = 1.0
    folds: Annotated[int, Field(ge=2)] = 5


@dataclass(frozen=True, slots=True)
class FittingRows:
    """Rows to fit on.

    Attributes:
        logits: (n, H) of the exported student.
        targets: (n, H) one-hot gold labels, or the labeller's soft labels.
        similarities: (n, k) cosines to the nearest items but for those that are the row itself, best
            first, -inf where there are fewer; k the largest candidate.
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
        gate: `none`, `constant`, `scores` or `share` (the setting's).
        figures: cross-validated `nll_<gate>_<k>` of every candidate, `nll` and `accuracy` of the
            chosen one and of the head alone (`head_nll`, `head_accuracy`), `weight` (mean share).
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
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scores = queries[rows] @ vectors.T
        if excluded is not None:
            scores[excluded[rows]] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :found]
        similarities[rows, :found] = np.take_along_axis(scores, best, axis=1)
        neighbour_labels[rows, :found] = soft_labels[best]
    return similarities, neighbour_labels


def same_texts(
    row_forms: Sequence[str],
    row_embeddings: NDArray[np.float32],
    item_forms: Sequence[str],
    item_embeddings: NDArray[np.float32],
    near_duplicate: float,
) -> NDArray[np.bool_]:
    """(n, m): which items are a row itself or its near-duplicates.

    Args:
        row_forms: n normal forms of the rows' texts.
        row_embeddings: (n, D) unit embeddings by the labeller.
        item_forms: m normal forms of the items' texts.
        item_embeddings: (m, D).
        near_duplicate: cosine from which two texts count as the same.
    """
    forms = np.array(item_forms, dtype=object)
    same = np.array([forms == form for form in row_forms], dtype=bool)
    same |= row_embeddings @ item_embeddings.T >= near_duplicate
    return same


def fit_mixing(
    rows: FittingRows, config: MixingConfig, *, seed: int, gold: bool = True, store: bool = True
) -> FittedMixing:
    """Choose k and the kind of gate by cross-validated likelihood, then fit on all rows.

    Fewer rows than folds are none: then the store gets no share.

    Args:
        rows: honest ones, see above.
        config: candidates.
        seed: of the folds.
        gold: whether the targets are gold labels; else the store's share is the setting's.
        store: False for a student without a store: its temperature alone is fitted.
    """
    if len(rows.logits) < config.folds:
        # Too few to fit anything on: the head alone answers, as it is.
        head_alone = MixingParameters(k=min(config.k), gate_bias=NO_STORE)
        return FittedMixing(head_alone, "none", {})
    folds = np.random.default_rng(seed).permutation(len(rows.logits)) % config.folds
    head = ("none", min(config.k))
    candidates = [head]
    if store:
        gates = ("constant", "scores") if gold else ("share",)
        candidates += [(gate, k) for gate in gates for k in config.k]
    answers = {
        candidate: _cross_validated(rows, *candidate, config, folds) for candidate in candidates
    }
    losses = {candidate: _loss(found, rows.targets) for candidate, found in answers.items()}
    allowed = candidates[1:] if store and not gold else candidates
    gate, k = min(allowed, key=lambda candidate: losses[candidate])
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
        fixed = NO_STORE if gate == "none" else _logit(config.share)
        bias = free[2] if gate in ("constant", "scores") else free[2] * 0 + fixed
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

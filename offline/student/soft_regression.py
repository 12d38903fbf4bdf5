"""Softmax regression on soft labels, over dense or sparse features: the linear baselines, and the lexical index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize, minimize_scalar

from offline.teacher.calibration import softmax
from offline.teacher.head import SoftmaxHead

Features = Any
"""(n, d): an array, or a sparse matrix of SciPy."""

HELD_OUT = 0.1
_ITERATIONS = 40
_REMEMBERED = 6


def fit_soft_head(
    features: Features,
    soft_labels: NDArray[np.float32],
    forms: Sequence[str],
    *,
    strengths: Sequence[float],
    seed: int,
) -> SoftmaxHead:
    """Fit a head whose cross-entropy to the soft labels is small; strength and temperature by held-out items.

    The objective is scikit-learn's, `C · Σ cross-entropy + ½‖W‖²`, biases unpenalised, by L-BFGS. A tenth
    of the distinct texts is held out to choose `C` and the temperature; then all items are fitted.

    Args:
        features: of n items.
        soft_labels: (n, labels).
        forms: n normal forms of the texts; equal ones are held out together.
        strengths: candidates for `C`.
        seed: of the choice of held-out texts.
    """
    inside, outside = _split(forms, seed)
    rows, targets = _rows(features, inside), soft_labels[inside]
    tried: list[tuple[float, float, float, NDArray[np.float64]]] = []
    start = np.zeros((features.shape[1] + 1, soft_labels.shape[1]))
    for strength in sorted(strengths):
        # The next one starts where this one ended: they are alike.
        start = _fit(rows, targets, strength, start)
        logits = _rows(features, outside) @ start[:-1] + start[-1]
        temperature, loss = _temperature(logits, soft_labels[outside])
        tried.append((loss, strength, temperature, start))
    _, strength, temperature, start = min(tried, key=lambda found: found[:2])
    weights = _fit(features, soft_labels, strength, start).astype(np.float32)
    return SoftmaxHead(np.ascontiguousarray(weights[:-1].T), weights[-1], temperature)


def _fit(
    features: Features,
    soft_labels: NDArray[np.float32],
    strength: float,
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(d + 1, labels): weights and, in the last row, biases."""
    n = len(soft_labels)
    transposed = features.T.tocsr() if sparse.issparse(features) else features.T
    penalty = 1.0 / (strength * n)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape)
        # In the features' own precision: single is twice as quick.
        logits = np.asarray(features @ weights[:-1].astype(features.dtype)) + weights[-1]
        logits -= logits.max(1, keepdims=True)
        exponents = np.exp(logits)
        total = exponents.sum(1, keepdims=True)
        entropy = -(soft_labels * (logits - np.log(total))).sum() / n
        difference = (exponents / total - soft_labels) / n
        gradient = np.empty_like(weights)
        gradient[:-1] = transposed @ difference.astype(features.dtype) + penalty * weights[:-1]
        gradient[-1] = difference.sum(0)
        value = float(entropy + 0.5 * penalty * np.square(weights[:-1]).sum())
        return value, gradient.ravel()

    found = minimize(
        loss,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "maxcor": _REMEMBERED, "ftol": 1e-6, "gtol": 1e-6},
    )
    fitted: NDArray[np.float64] = found.x.reshape(start.shape)
    return fitted


def _temperature(
    logits: NDArray[np.float64], soft_labels: NDArray[np.float32]
) -> tuple[float, float]:
    """The temperature of the lowest cross-entropy, and that cross-entropy."""

    def loss(logarithm: float) -> float:
        probabilities = softmax((logits / np.exp(logarithm)).astype(np.float32))
        return float(-(soft_labels * np.log(np.maximum(probabilities, 1e-9))).sum(1).mean())

    found = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def _split(forms: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on and rows held out, by text."""
    distinct, place = np.unique(np.array(forms, dtype=object), return_inverse=True)
    count = max(1, round(HELD_OUT * len(distinct)))
    chosen = np.zeros(len(distinct), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(distinct))[:count]] = True
    held_out = chosen[place]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _rows(features: Features, rows: NDArray[np.int64]) -> Features:
    return features[rows]

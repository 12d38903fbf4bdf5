"""The softmax head over frozen features: fitting, choosing its regularisation, calibrating it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from offline.report.metrics import negative_log_likelihood
from offline.teacher.calibration import (
    assign_folds,
    cross_fitted_probabilities,
    fit_temperature,
    softmax,
)
from offline.teacher.encoder import Progress
from services.platform.errors import CorruptArtifact

_ABSENT_BIAS = -30.0
_MAX_ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class SoftmaxHead:
    """`softmax((features · weightᵀ + bias) / temperature)`.

    Attributes:
        weight: (labels, features) float32.
        bias: (labels,) float32.
        temperature: from calibration.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float

    @property
    def parameters(self) -> int:
        return int(self.weight.size + self.bias.size)

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, labels) for features (n, d)."""
        logits = np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)
        return softmax(logits / np.float32(self.temperature))


@dataclass(frozen=True, slots=True)
class HeadScorer:
    """Scores texts by a head on their embeddings."""

    head: SoftmaxHead
    reads_embeddings: ClassVar[bool] = True

    @property
    def parameters(self) -> int:
        return self.head.parameters

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        embeddings: NDArray[np.float32] | None,
        progress: Progress | None,
    ) -> NDArray[np.float32]:
        assert embeddings is not None
        return self.head.probabilities(embeddings)


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head and what cross-fitting says of it.

    Attributes:
        head: fitted on all rows.
        strength: the inverse regularisation that was chosen (scikit-learn's `C`).
        cross_fitted: (n, labels) float32, for each row by a head and a temperature that did not see
            its fold.
        folds: (n,) fold of every row.
    """

    head: SoftmaxHead
    strength: float
    cross_fitted: NDArray[np.float32]
    folds: NDArray[np.int64]


def fit_head(
    features: NDArray[np.float32],
    gold: NDArray[np.int64],
    forms: Sequence[str],
    labels: int,
    *,
    strengths: Sequence[float],
    folds: int,
    seed: int,
) -> FittedHead:
    """Fit, choose and calibrate a head on labelled rows alone.

    Of `strengths` that one is taken whose cross-fitted, calibrated probabilities are most likely; the
    figures of the cross-fitting are then a little kind, by that one choice among a handful.

    Args:
        features: (n, d).
        gold: (n,) positions of the labels.
        forms: n normal forms of the texts; see `assign_folds`.
        labels: how many labels there are.
        strengths: candidates for the inverse regularisation.
        folds: of the cross-fitting.
        seed: of the folds.
    """
    fold_of = assign_folds(gold, forms, folds, seed)
    best: tuple[float, float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for strength in strengths:
        logits = cross_fitted_logits(features, gold, fold_of, labels, strength)
        probabilities = cross_fitted_probabilities(logits, gold, fold_of)
        loss = negative_log_likelihood(probabilities, gold)
        if best is None or loss < best[0]:
            best = loss, strength, logits, probabilities
    if best is None:
        raise ValueError("there is no strength to choose from")
    _, strength, logits, probabilities = best
    weight, bias = regression(features, gold, labels, strength)
    head = SoftmaxHead(
        weight.astype(np.float32), bias.astype(np.float32), fit_temperature(logits, gold)
    )
    return FittedHead(head, strength, probabilities.astype(np.float32), fold_of)


def cross_fitted_logits(
    features: NDArray[np.float32],
    gold: NDArray[np.int64],
    fold_of: NDArray[np.int64],
    labels: int,
    strength: float,
) -> NDArray[np.float64]:
    """(n, labels), each row by a regression that did not see its fold."""
    logits = np.empty((len(gold), labels))
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        weight, bias = regression(features[~inside], gold[~inside], labels, strength)
        logits[inside] = features[inside] @ weight.T + bias
    return logits


def regression(
    features: NDArray[np.float32], gold: NDArray[np.int64], labels: int, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic regression: weight (labels, d), bias (labels,).

    A label without rows gets a bias that rules it out.
    """
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS, tol=1e-4)
    model.fit(features, gold)
    found, offsets = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        # Two labels come as one logit: the other's is zero.
        found = np.vstack([np.zeros_like(found), found])
        offsets = np.concatenate([np.zeros_like(offsets), offsets])
    weight = np.zeros((labels, found.shape[1]))
    bias = np.full(labels, _ABSENT_BIAS)
    weight[model.classes_], bias[model.classes_] = found, offsets
    return weight, bias


def head_identity(encoder: str, head: SoftmaxHead) -> str:
    """Name of a labeller: its encoder, and 12 hex digits of the hash of its head."""
    digest = hashlib.sha256(head.weight.tobytes())
    digest.update(head.bias.tobytes())
    digest.update(np.float64(head.temperature).tobytes())
    return f"{encoder}/softmax-{digest.hexdigest()[:12]}"


def save_head(head: SoftmaxHead, path: Path, **further: NDArray[Any]) -> None:
    """Write a head, and further arrays, as safetensors."""
    arrays: dict[str, NDArray[Any]] = {
        "weight": np.ascontiguousarray(head.weight),
        "bias": np.ascontiguousarray(head.bias),
        "temperature": np.array([head.temperature], dtype=np.float64),
    }
    save_file({**arrays, **further}, path)


def load_head(path: Path) -> tuple[SoftmaxHead, dict[str, NDArray[Any]]]:
    """A head that `save_head` wrote, and the further arrays.

    Raises:
        CorruptArtifact: the file is missing or is no such file.
    """
    try:
        arrays = dict(load_file(path))
        head = SoftmaxHead(
            arrays.pop("weight"), arrays.pop("bias"), float(arrays.pop("temperature")[0])
        )
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptArtifact(f"{path} holds no head of a labeller: {error}.") from error
    return head, arrays


def read_description(path: Path) -> dict[str, Any]:
    """The JSON file that describes a labeller or a judge.

    Raises:
        CorruptArtifact: it is missing or is not JSON.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
    return found

"""Mixing: the student's own scores and the teacher's soft labels on its neighbours, made one answer.

Pure functions over the array-API standard: torch tensors where the mixing is fitted, NumPy arrays in the
server, one arithmetic. Interpolating a classifier with its nearest neighbours follows kNN-LM (Khandelwal et
al. 2020); here the share of the neighbours is not a constant but a gate that reads the scores.

The head may know fewer labels than the store (labels added after training; the head's are a prefix
of the store's). It then says nothing about the others: what probability goes to them is the store's
to say, and only the rest is the head's to share out.

Where the release has a lexical index, its logits are blended with the head's before anything else (`blend`): a
product of experts in fixed shares. What is called the head's below is then the two together.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from array_api_compat import array_namespace

from services.platform.errors import InvalidConfig

Array = Any
"""A torch tensor or a NumPy array of float32; shapes are told with each function."""

FEATURES = (
    "head_confidence",
    "head_entropy",
    "store_confidence",
    "store_entropy",
    "agreement",
    "best_similarity",
    "similarity_spread",
)
"""What the gate reads, each between 0 and 1 but for the similarities, which are cosines."""

_FAR = -1e4
"""Stands for the similarity of what is not there: its exponential is 0 at any temperature below 100."""


class MixingScalars(Protocol):
    """What the functions below read: numbers where they serve, tensors with gradients where they are
    fitted (`offline.student.mixing_fit`)."""

    @property
    def similarity_temperature(self) -> Any: ...

    @property
    def head_temperature(self) -> Any: ...

    @property
    def gate_weights(self) -> Any: ...

    @property
    def gate_bias(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class MixingParameters:
    """How much the store is trusted, fitted offline and carried by the student bundle.

    Attributes:
        k: neighbours asked for.
        similarity_temperature: neighbours weigh `softmax(similarity / similarity_temperature)`.
        head_temperature: the head's logits are divided by it; calibrates the student alone too.
        gate_weights: one for each of `FEATURES`.
        gate_bias: with zero weights, the store's share is `sigmoid(gate_bias)` for every text.
        lexical_share: of the lexical index in the logits that are mixed; 0 for a student without one.

    Raises:
        InvalidConfig: a value that no mixing can use.
    """

    k: int = 16
    similarity_temperature: float = 0.05
    head_temperature: float = 1.0
    gate_weights: tuple[float, ...] = (0.0,) * len(FEATURES)
    gate_bias: float = 0.0
    lexical_share: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidConfig(f"Mixing with k = {self.k} neighbours; expected at least 1.")
        if len(self.gate_weights) != len(FEATURES):
            raise InvalidConfig(
                f"The gate has {len(self.gate_weights)} weights, expected {len(FEATURES)}: "
                f"one for each of {', '.join(FEATURES)}."
            )
        for name in ("similarity_temperature", "head_temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidConfig(f"Mixing's {name} is {value}; expected a number above 0.")
        if not all(map(math.isfinite, (*self.gate_weights, self.gate_bias))):
            raise InvalidConfig("The gate's weights and bias must be finite numbers.")
        if not 0 <= self.lexical_share < 1:
            raise InvalidConfig(
                f"Mixing's lexical_share is {self.lexical_share}; expected at least 0 and less than 1."
            )


class Mixed(NamedTuple):
    """An answer and what it was made of; rows of probabilities sum to 1."""

    probabilities: Array
    """(b, L)"""
    student: Array
    """(b, L), the head alone, 0 for labels that it does not know"""
    store: Array
    """(b, L), the neighbours alone"""
    weight: Array
    """(b,), the store's share of the answer"""


def blend(logits: Array, lexical: Array, share: float) -> Array:
    """(b, H): the head's logits and the lexical index's, in the shares `1 - share` and `share`.

    Equal to the normalised weighted geometric mean of the two distributions, once a softmax is taken.
    """
    return (1.0 - share) * logits + share * lexical


def head_distribution(logits: Array, parameters: MixingScalars) -> Array:
    """(b, H): the student alone, as it answers when the store is away; `logits` (b, H)."""
    return _softmax(array_namespace(logits), logits / parameters.head_temperature)


def neighbour_weights(similarities: Array, parameters: MixingScalars) -> Array:
    """(b, k): each neighbour's share of the store's answer; 0 for padding (similarity -inf).

    A row without any neighbour gets zeros; all other rows sum to 1.
    """
    return _neighbour_weights(array_namespace(similarities), similarities, parameters)


def store_distribution(
    similarities: Array, neighbour_labels: Array, parameters: MixingScalars
) -> Array:
    """(b, L): the soft labels of the neighbours, the nearer the heavier.

    Args:
        similarities: (b, k) cosines, padded with -inf where the store gave fewer.
        neighbour_labels: (b, k, L) soft labels; anything finite where padded.
        parameters: how to weigh them.

    A row without any neighbour is uniform.
    """
    xp = array_namespace(similarities, neighbour_labels)
    return _store_distribution(xp, similarities, neighbour_labels, parameters)


def mix(
    logits: Array, similarities: Array, neighbour_labels: Array, parameters: MixingScalars
) -> Mixed:
    """The answer: `weight` of the store's distribution and the rest of the head's.

    Args:
        logits: (b, H) of the student's head.
        similarities: (b, k) cosines to the neighbours, best first, padded with -inf.
        neighbour_labels: (b, k, L) their soft labels, L >= H, the head's labels first.
        parameters: the bundle's.

    A row without any neighbour is the head's alone (weight 0).
    """
    xp = array_namespace(logits, similarities, neighbour_labels)
    head = _softmax(xp, logits / parameters.head_temperature)
    store = _store_distribution(xp, similarities, neighbour_labels, parameters)
    # The best comes first: where that is padding, there is nothing.
    found = xp.astype(similarities[:, 0] > -math.inf, head.dtype)
    known = head.shape[-1]
    student = completed = head
    if store.shape[-1] > known:
        new = store[:, known:] * found[:, None]
        room = 1.0 - xp.sum(new, axis=-1, keepdims=True)
        completed = xp.concat([head * room, new], axis=-1)
        student = xp.concat([head, xp.zeros_like(new)], axis=-1)
    weight = found * _gate(xp, head, store[:, :known], similarities, parameters)
    share = weight[:, None]
    return Mixed(completed + share * (store - completed), student, store, weight)


def gate_features(head: Array, store: Array, similarities: Array) -> Array:
    """(b, len(FEATURES)): what the gate reads of a text.

    Args:
        head: (b, H) the head's distribution.
        store: (b, H) the store's, on the head's labels.
        similarities: (b, k) cosines, best first, padded with -inf.
    """
    return _gate_features(array_namespace(head, store, similarities), head, store, similarities)


# Below, the namespace comes along: finding it anew in each function takes longer than most of them compute.


def _neighbour_weights(xp: Any, similarities: Array, parameters: MixingScalars) -> Array:
    found = similarities > -math.inf
    # Padding is replaced before it is divided: the gradient of -inf / temperature is no number.
    cosines = xp.where(found, similarities, xp.full_like(similarities, _FAR))
    distances = cosines - xp.max(cosines, axis=-1, keepdims=True)
    weights = xp.exp(distances / parameters.similarity_temperature)
    weights = weights * xp.astype(found, weights.dtype)
    # The nearest weighs 1 before this: the sum is at least that, or 0 where there is nothing.
    total = xp.sum(weights, axis=-1, keepdims=True)
    return weights / xp.where(total > 0, total, xp.ones_like(total))


def _store_distribution(
    xp: Any, similarities: Array, neighbour_labels: Array, parameters: MixingScalars
) -> Array:
    labels = xp.astype(neighbour_labels, similarities.dtype, copy=False)
    weights = _neighbour_weights(xp, similarities, parameters)
    summed = xp.matmul(weights[:, None, :], labels)[:, 0, :]
    total = xp.sum(summed, axis=-1, keepdims=True)
    some = total > 0
    uniform = xp.full_like(summed, 1.0 / summed.shape[-1])
    return xp.where(some, summed / xp.where(some, total, xp.ones_like(total)), uniform)


def _gate_features(xp: Any, head: Array, store: Array, similarities: Array) -> Array:
    found = similarities > -math.inf
    cosines = xp.where(found, similarities, xp.zeros_like(similarities))
    count = xp.sum(xp.astype(found, head.dtype), axis=-1)
    mean = xp.sum(cosines, axis=-1) / xp.where(count > 0, count, xp.ones_like(count))
    best = cosines[:, 0]
    return xp.stack(
        [
            xp.max(head, axis=-1),
            _entropy(xp, head),
            xp.max(store, axis=-1),
            _entropy(xp, store),
            # The floor keeps the root's gradient finite where one of them is 0.
            xp.sum(xp.sqrt(head * store + 1e-12), axis=-1),
            best,
            best - mean,
        ],
        axis=-1,
    )


def _gate(
    xp: Any, head: Array, store: Array, similarities: Array, parameters: MixingScalars
) -> Array:
    weights, bias = parameters.gate_weights, parameters.gate_bias
    if isinstance(weights, tuple):
        if isinstance(bias, float) and not any(weights):
            return xp.full_like(head[:, 0], _constant_share(bias))
        weights = xp.asarray(weights, dtype=head.dtype)
    features = _gate_features(xp, head, store, similarities)
    return _sigmoid(xp, xp.matmul(features, weights) + bias)


def _constant_share(bias: float) -> float:
    return 0.5 * (math.tanh(0.5 * bias) + 1.0)


def _softmax(xp: Any, scores: Array) -> Array:
    exponents = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return exponents / xp.sum(exponents, axis=-1, keepdims=True)


def _sigmoid(xp: Any, scores: Array) -> Array:
    """By tanh, which overflows nowhere."""
    return 0.5 * (xp.tanh(0.5 * scores) + 1.0)


def _entropy(xp: Any, distribution: Array) -> Array:
    """(b,): as a share of the largest that so many labels allow."""
    # A probability of 0 adds nothing; the floor keeps its logarithm finite.
    floor = xp.full_like(distribution, 1e-12)
    bits = -xp.sum(distribution * xp.log(xp.maximum(distribution, floor)), axis=-1)
    return bits / math.log(max(distribution.shape[-1], 2))

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.platform.errors import InvalidConfig
from services.student.mixing import (
    FEATURES,
    MixingParameters,
    head_distribution,
    mix,
    neighbour_weights,
    store_distribution,
)

Floats = NDArray[np.float32]

GATED = MixingParameters(
    k=5,
    similarity_temperature=0.07,
    head_temperature=1.3,
    gate_weights=tuple(0.5 - 0.3 * position for position in range(len(FEATURES))),
    gate_bias=0.2,
)


def scores(
    rows: int = 6, k: int = 5, labels: int = 4, head_labels: int = 4, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, head_labels)).astype(np.float32) * 3
    similarities = -np.sort(-rng.uniform(-0.2, 1, size=(rows, k))).astype(np.float32)
    neighbour_labels = rng.dirichlet(np.ones(labels) * 0.3, size=(rows, k)).astype(np.float32)
    return logits, similarities, neighbour_labels


def test_torch_and_numpy_give_the_same_numbers() -> None:
    logits, similarities, neighbour_labels = scores()
    similarities[1, 3:] = -np.inf
    similarities[2] = -np.inf
    in_numpy = mix(logits, similarities, neighbour_labels, GATED)
    in_torch = mix(*map(torch.from_numpy, (logits, similarities, neighbour_labels)), GATED)
    for one, other in zip(in_numpy, in_torch, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other.numpy(), atol=2e-6)


def test_answers_are_distributions_and_the_weight_is_the_stores_share() -> None:
    logits, similarities, neighbour_labels = scores()
    mixed = mix(logits, similarities, neighbour_labels, GATED)
    for distribution in (mixed.probabilities, mixed.student, mixed.store):
        np.testing.assert_allclose(distribution.sum(axis=-1), 1, atol=1e-6)
    share = mixed.weight[:, None]
    assert np.all((share > 0) & (share < 1))
    np.testing.assert_allclose(
        mixed.probabilities, share * mixed.store + (1 - share) * mixed.student, atol=1e-6
    )


def test_a_constant_gate_gives_every_text_the_same_share() -> None:
    logits, similarities, neighbour_labels = scores()
    parameters = MixingParameters(gate_bias=math.log(0.3 / 0.7))
    np.testing.assert_allclose(
        mix(logits, similarities, neighbour_labels, parameters).weight, 0.3, atol=1e-6
    )


def test_nearer_neighbours_weigh_more_and_padding_nothing() -> None:
    similarities = np.array([[0.9, 0.8, -np.inf]], dtype=np.float32)
    weights = neighbour_weights(similarities, MixingParameters(similarity_temperature=0.1))
    np.testing.assert_allclose(weights[0, 0] / weights[0, 1], math.e, rtol=1e-5)
    assert weights[0, 2] == 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_an_answer_does_not_depend_on_padding_or_on_the_rest_of_the_batch() -> None:
    logits, similarities, neighbour_labels = scores()
    whole = mix(logits, similarities, neighbour_labels, GATED)
    for row in range(len(logits)):
        here = slice(row, row + 1)
        padded_similarities = np.pad(similarities[here], ((0, 0), (0, 3)), constant_values=-np.inf)
        padded_labels = np.pad(neighbour_labels[here], ((0, 0), (0, 3), (0, 0)))
        alone = mix(logits[here], padded_similarities, padded_labels, GATED)
        np.testing.assert_allclose(alone.probabilities[0], whole.probabilities[row], atol=1e-6)


def test_without_a_neighbour_the_head_answers_alone() -> None:
    logits, similarities, neighbour_labels = scores(rows=2)
    similarities[0] = -np.inf
    mixed = mix(logits, similarities, neighbour_labels, GATED)
    assert mixed.weight[0] == 0
    np.testing.assert_allclose(
        mixed.probabilities[0], head_distribution(logits, GATED)[0], atol=1e-7
    )
    np.testing.assert_allclose(mixed.store[0], 0.25, atol=1e-7)


def test_labels_that_the_head_never_saw_get_what_the_store_gives_them() -> None:
    logits, similarities, neighbour_labels = scores(labels=6, head_labels=4)
    for bias in (-20.0, 0.0, 20.0):
        parameters = replace(GATED, gate_weights=(0.0,) * len(FEATURES), gate_bias=bias)
        mixed = mix(logits, similarities, neighbour_labels, parameters)
        np.testing.assert_allclose(mixed.probabilities.sum(axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(mixed.probabilities[:, 4:], mixed.store[:, 4:], atol=1e-6)
        assert np.all(mixed.student[:, 4:] == 0)


def test_half_precision_soft_labels_are_read_as_they_lie_in_the_release() -> None:
    _, similarities, neighbour_labels = scores()
    half = store_distribution(similarities, neighbour_labels.astype(np.float16), GATED)
    assert half.dtype == np.float32
    np.testing.assert_allclose(
        half, store_distribution(similarities, neighbour_labels, GATED), atol=1e-3
    )
    np.testing.assert_allclose(half.sum(axis=-1), 1, atol=1e-6)


def test_extreme_scores_stay_finite() -> None:
    logits, similarities, neighbour_labels = scores()
    extreme = replace(
        GATED, similarity_temperature=1e-3, gate_weights=(1e4,) * len(FEATURES), gate_bias=-1e4
    )
    mixed = mix(logits * 1e4, similarities, neighbour_labels, extreme)
    assert all(np.isfinite(part).all() for part in mixed)


def test_gradients_reach_the_temperatures_inputs() -> None:
    logits, similarities, neighbour_labels = (torch.from_numpy(part) for part in scores())
    logits.requires_grad_()
    similarities.requires_grad_()
    mixed = mix(logits, similarities, neighbour_labels, GATED)
    (-mixed.probabilities[:, 0].log().mean()).backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(similarities.grad).all()
    assert logits.grad.abs().sum() > 0
    assert similarities.grad.abs().sum() > 0


def test_gradients_reach_the_parameters_past_padding() -> None:
    logits, similarities, neighbour_labels = (torch.from_numpy(part) for part in scores())
    similarities[1, 3:] = -math.inf
    similarities[2] = -math.inf
    free = torch.ones(3, requires_grad=True)
    scalars = SimpleNamespace(
        similarity_temperature=0.1 * free[0],
        head_temperature=free[1],
        gate_weights=(0.0,) * len(FEATURES),
        gate_bias=free[2],
    )
    mixed = mix(logits, similarities, neighbour_labels, scalars)
    (-mixed.probabilities[:, 0].log().mean()).backward()
    assert torch.isfinite(free.grad).all()
    assert (free.grad != 0).all()


def test_parameters_survive_json() -> None:
    written = json.loads(json.dumps(asdict(GATED)))
    written["gate_weights"] = tuple(written["gate_weights"])
    assert MixingParameters(**written) == GATED


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"similarity_temperature": 0.0},
        {"head_temperature": math.nan},
        {"gate_weights": (1.0,)},
        {"gate_bias": math.inf},
    ],
)
def test_parameters_that_no_mixing_can_use_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        MixingParameters(**wrong)

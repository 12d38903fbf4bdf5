"""Likelihoods in slices: torch's own log-softmax and entropy, and their gradients, at the same precision."""

import pytest
import torch

from offline.teacher import likelihood as module
from offline.teacher.likelihood import likelihood, slices


def reference(
    logits: torch.Tensor, ids: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    distribution = torch.log_softmax(logits.float() / temperature, dim=-1)
    logprobs = distribution.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return logprobs, -(distribution.exp() * distribution).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_values_and_gradients_are_those_of_log_softmax(
    temperature: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ON_PROCESSOR", rows * 50)
    torch.manual_seed(0)
    logits = (5 * torch.randn(4, 6, 50)).requires_grad_()
    ids = torch.randint(50, (4, 6))
    weights, others = torch.randn(4, 6), torch.randn(4, 6)
    gradients = []
    for compute in (likelihood, reference):
        logprobs, entropies = compute(logits, ids, temperature)
        loss = (weights * logprobs + others * entropies).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        gradients.append((logprobs, entropies, gradient))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_gradient_is_right_where_only_one_of_the_two_is_used() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(7, 30, requires_grad=True), torch.randint(30, (7,))
    for place in (0, 1):
        ours, theirs = (
            torch.autograd.grad(compute(logits, ids, 1.0)[place].sum(), logits)[0]
            for compute in (likelihood, reference)
        )
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_logits_stay_as_they_are_and_gradients_have_their_number_format() -> None:
    logits = torch.randn(5, 40).bfloat16().requires_grad_()
    before = logits.detach().clone()
    logprobs, entropies = likelihood(logits, torch.arange(5), 0.5)
    assert logprobs.dtype == entropies.dtype == torch.float32
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(logits, before)


def test_large_logits_lose_no_more_than_by_log_softmax() -> None:
    torch.manual_seed(0)
    centred, ids = torch.randn(9, 40), torch.randint(40, (9,))
    for offset in (-3000.0, 100.0):
        logits = (centred + offset).requires_grad_()
        exact = logits.detach().double().requires_grad_()
        _, ours = likelihood(logits, ids)
        distribution = torch.log_softmax(exact, dim=-1)
        theirs = -(distribution.exp() * distribution).sum(-1)
        assert torch.allclose(ours.double(), theirs, atol=1e-5)
        (gradient,) = torch.autograd.grad(ours.sum(), logits)
        (expected,) = torch.autograd.grad(theirs.sum(), exact)
        assert torch.allclose(gradient.double(), expected, atol=1e-5)


def test_what_is_impossible_makes_no_nan() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 20)
    logits[:, 3] = -torch.inf
    logits.requires_grad_()
    logprobs, entropies = likelihood(logits, torch.arange(6) + 4)
    (gradient,) = torch.autograd.grad(logprobs.sum() + entropies.sum(), logits)
    rest = torch.cat([logits[:, :3], logits[:, 4:]], dim=1)
    expected = reference(rest, torch.arange(6) + 3, 1.0)
    assert torch.allclose(logprobs, expected[0], atol=1e-6)
    assert torch.allclose(entropies, expected[1], atol=1e-6)
    assert bool(gradient.isfinite().all())
    assert not gradient[:, 3].any()


def test_slices_cover_all_rows_even_of_a_vocabulary_larger_than_a_slice() -> None:
    logits = torch.empty(3, module._ON_PROCESSOR + 1)
    assert [(part.start, part.stop) for part in slices(logits)] == [(0, 1), (1, 2), (2, 3)]

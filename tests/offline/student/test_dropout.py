"""Dropout by random bytes: the share that is left out, the mean that is kept, and nothing outside of training."""

import pytest
import torch

from offline.student.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_that_share_is_left_out_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    kept = Dropout(rate)(torch.ones(1000, 301))
    share = float((kept == 0).float().mean())
    # Five standard deviations of a share of 301,000 draws, and half a step of 1 / 256.
    assert share == pytest.approx(rate, abs=0.0046 + 1 / 512)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)
    values = kept.unique()
    assert len(values) == 2, "each number is left out or scaled"
    assert float(values[1]) == pytest.approx(1 / (1 - rate), rel=0.03)


def test_neighbours_are_left_out_apart_from_each_other() -> None:
    torch.manual_seed(0)
    out = (Dropout(0.5)(torch.ones(4096, 64)) == 0).float() - 0.5
    for distance in (1, 2, 4, 8, 64):
        flat = out.flatten()
        together = float((flat[:-distance] * flat[distance:]).mean()) * 4
        assert abs(together) < 0.01, distance


def test_gradients_pass_where_a_number_was_kept() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(20, 20, requires_grad=True)
    kept = Dropout(0.3)(hidden)
    kept.sum().backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, kept.detach())


def test_the_same_seed_leaves_out_the_same_and_nothing_is_left_out_outside_of_training() -> None:
    module, hidden = Dropout(0.5), torch.randn(30, 7)
    torch.manual_seed(1)
    first = module(hidden)
    torch.manual_seed(1)
    assert torch.equal(module(hidden), first)
    assert not torch.equal(module(hidden), first)
    assert module.train(False)(hidden) is hidden
    assert Dropout(0.0)(hidden) is hidden

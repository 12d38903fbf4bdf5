"""Pairs: no end before the second text, no separator before the first, in drawing and in what PPO compares."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from offline.teacher.generator import Generator
from offline.teacher.pair_order import PairOrder, separator_written
from offline.teacher.policy import assess
from offline.teacher.sampling import SamplingConfig
from offline.teacher.writing import write

Make = Callable[..., Generator]
END, SEPARATOR = 0, (7,)


@pytest.mark.parametrize(
    ("separator", "ids", "written"),
    [
        ((7,), [1, 7, 2], [False, False, True, True]),
        ((7,), [7, 7], [False, True, True]),
        ((7,), [1, 2], [False, False, False]),
        ((7,), [], [False]),
        ((7, 8), [7, 1, 7, 8, 2], [False, False, False, False, True, True]),
        ((7, 8), [7, 8], [False, False, True]),
        ((7, 8), [7], [False, False]),
    ],
)
def test_the_separator_is_written_with_its_last_token(
    separator: tuple[int, ...], ids: list[int], written: list[bool]
) -> None:
    found = separator_written(torch.tensor([ids], dtype=torch.int64).reshape(1, -1), separator)
    assert found.tolist() == [written]


def test_where_a_pair_would_end_it_separates_until_its_second_text_has_begun() -> None:
    order = PairOrder(END, SEPARATOR)
    logits = torch.randn(2, 5, 9)
    before = logits.clone()
    ids = torch.tensor([[1, 7, 2, 3], [1, 2, 3, 7]])
    held = order(logits, ids, 0)
    assert torch.equal(logits, before)
    # Before each place: nothing, 1, 1 7, 1 7 2, 1 7 2 3; nothing, 1, 1 2, 1 2 3, 1 2 3 7.
    assert torch.isinf(held[..., END]).tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    may_end = ~torch.isinf(held[..., END])
    assert torch.equal(held[..., END][may_end], logits[..., END][may_end])
    separates = [
        [-torch.inf, "both", "own", "own", "own"],
        [-torch.inf, "both", "both", "both", "own"],
    ]
    for row, expected in enumerate(separates):
        for place, what in enumerate(expected):
            own, end = logits[row, place, 7], logits[row, place, END]
            said = {"own": own, "both": (own.exp() + end.exp()).log()}.get(
                str(what), torch.tensor(-torch.inf)
            )
            torch.testing.assert_close(held[row, place, 7], said)
    rest = [token for token in range(9) if token not in (END, 7)]
    assert torch.equal(held[..., rest], logits[..., rest])
    # A part of the places gives the part of it.
    assert torch.equal(order(logits[:, 2:], ids, 2), held[:, 2:])


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_pairs_are_drawn_whole_and_assessed_by_the_distribution_they_were_drawn_from(
    tiny_generator: Make, kind: str, temperature: float
) -> None:
    generator = tiny_generator(kind, pair=True, max_tokens=20)
    order = generator.framing.order
    assert order is not None
    torch.manual_seed(1)
    prompts = torch.randn(3, 5, generator.model.dimensions, requires_grad=True)
    labels = np.arange(240) % 3
    source = torch.Generator().manual_seed(0)
    sampling = SamplingConfig(temperature=temperature)
    written = write(generator, prompts.detach(), labels, sampling, source)
    sampled = written.sampled
    assert 0 < int(sampled.complete.sum()) < 240
    for ids, length, ended in zip(
        sampled.ids.tolist(), sampled.lengths.tolist(), sampled.complete.tolist(), strict=True
    ):
        text = ids[:length]
        assert text[0] != order.separator[0]
        if ended:
            at = text.index(order.separator[0])
            assert text[at + 1] != order.end
    ids, mask, rows = sampled.ids.clone(), sampled.mask, torch.from_numpy(labels)
    seen = assess(generator.model, prompts, rows, ids, temperature, order=order)
    torch.testing.assert_close(seen.logprobs[mask], sampled.logprobs[mask], rtol=1e-3, atol=1e-3)
    loose = assess(generator.model, prompts, rows, ids, temperature)
    assert (loose.logprobs[mask] < seen.logprobs[mask] - 1e-3).any(), "it is another one"
    (seen.logprobs + seen.entropy)[mask].sum().backward()
    assert prompts.grad is not None
    assert bool(prompts.grad.isfinite().all())
    assert bool(seen.entropy[mask].isfinite().all())


def test_single_texts_may_end_anywhere(tiny_generator: Make) -> None:
    assert tiny_generator().framing.order is None

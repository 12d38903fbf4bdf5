"""Pairs: no end before the second text, no separator before the first, in drawing and in what PPO compares."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from offline.teacher.generator import Generator
from offline.teacher.pair_order import PairOrder, separator_progress
from offline.teacher.policy import assess
from offline.teacher.sampling import SamplingConfig
from offline.teacher.writing import write

Make = Callable[..., Generator]
END, SEPARATOR = 0, (7,)


@pytest.mark.parametrize(
    ("separator", "ids", "written", "progress"),
    [
        ((7,), [1, 7, 2], [0, 0, 1, 1], [0, 0, 0, 0]),
        ((7,), [7, 7], [0, 1, 1], [0, 0, 0]),
        ((7,), [], [0], [0]),
        ((7, 8), [7, 1, 7, 8, 2], [0, 0, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]),
        ((7, 8), [7], [0, 0], [0, 1]),
        ((3, 5, 5), [1, 3, 5, 3, 5, 5], [0, 0, 0, 0, 0, 0, 1], [0, 0, 1, 2, 1, 2, 0]),
        ((5, 5, 6), [5, 5, 5], [0, 0, 0, 0], [0, 1, 2, 2]),
    ],
)
def test_how_far_the_separator_has_come(
    separator: tuple[int, ...], ids: list[int], written: list[int], progress: list[int]
) -> None:
    tokens = torch.tensor([ids], dtype=torch.int64).reshape(1, -1)
    found, next_piece = separator_progress(tokens, separator)
    assert found.int().tolist() == [written]
    assert next_piece.tolist() == [progress]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_where_a_pair_would_end_it_separates_until_its_second_text_has_begun(
    temperature: float,
) -> None:
    order = PairOrder(END, SEPARATOR)
    logits = torch.randn(2, 5, 9)
    before = logits.clone()
    ids = torch.tensor([[1, 7, 2, 3], [1, 2, 3, 7]])
    held = order(logits, ids, 0, temperature)
    assert torch.equal(logits, before)
    # Before each place: nothing, 1, 1 7, 1 7 2, 1 7 2 3; nothing, 1, 1 2, 1 2 3, 1 2 3 7.
    assert torch.isinf(held[..., END]).tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    may_end = ~torch.isinf(held[..., END])
    assert torch.equal(held[..., END][may_end], logits[..., END][may_end])
    separates = [["no", "both", "own", "own", "own"], ["no", "both", "both", "both", "own"]]
    for row, expected in enumerate(separates):
        for place, what in enumerate(expected):
            own, end = logits[row, place, 7], logits[row, place, END]
            if temperature == 0:
                both = max(own, end)
            else:
                both = temperature * ((own / temperature).exp() + (end / temperature).exp()).log()
            said = {"own": own, "both": both, "no": torch.tensor(-torch.inf)}[what]
            torch.testing.assert_close(held[row, place, 7], said)
    rest = [token for token in range(9) if token not in (END, 7)]
    assert torch.equal(held[..., rest], logits[..., rest])
    # A part of the places gives the part of it.
    assert torch.equal(order(logits[:, 2:], ids, 2, temperature), held[:, 2:])


def test_a_separator_of_several_tokens_is_written_piece_by_piece() -> None:
    order = PairOrder(END, (3, 5, 5))
    wants_to_end = torch.full((1, 1, 9), -30.0)
    wants_to_end[..., END] = 0.0
    written = [1]
    for _ in range(4):
        ids = torch.tensor([written])
        written.append(int(order(wants_to_end, ids, len(written), 1.0).argmax()))
    assert written[:4] == [1, 3, 5, 5]
    assert written[4] != END, "the second text has a token at least"
    assert int(order(wants_to_end, torch.tensor([[1, 3, 5, 5, 2]]), 5, 1.0).argmax()) == END


def test_a_first_text_may_begin_as_the_separator_does_but_not_be_empty() -> None:
    order = PairOrder(END, (3, 5))
    logits = torch.zeros(1, 3, 9)
    held = order(logits, torch.tensor([[3, 5]]), 0, 1.0)
    assert held[0, 0, 3] == 0, "nothing but the end is held back there, and its share goes nowhere"
    assert held[0, 1, 5] == -torch.inf
    assert held[0, 1, 3] == 0
    held = order(logits, torch.tensor([[3, 4]]), 0, 1.0)
    assert held[0, 2, 3] > 0


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

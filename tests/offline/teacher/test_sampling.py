"""Scoring and sampling behind prompts."""

from collections.abc import Callable

import pytest
import torch

from offline.teacher.generator import Generator
from offline.teacher.prompted import Continuation
from offline.teacher.sampling import draw, sample

KINDS = ("gpt2", "llama", "qwen2", "bert", "t5", "bart")
Make = Callable[..., Generator]


def rates_of(model: torch.nn.Module) -> list[float]:
    rates = [getattr(part, "dropout", None) for part in model.modules()]
    return [rate for rate in rates if isinstance(rate, float)]


def prompts_of(generator: Generator, count: int = 3, tokens: int = 5) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, tokens, generator.model.dimensions) * 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_one_pass_over_prompt_and_text(tiny_generator: Make, kind: str) -> None:
    generator = tiny_generator(kind)
    prompts = prompts_of(generator).requires_grad_()
    rows = torch.tensor([2, 0, 2, 1])
    ids = torch.randint(5, 30, (4, 7))
    scored = generator.model.score(prompts, rows, ids)
    model = generator.model.model
    if model.config.is_encoder_decoder:
        start = torch.full((4, 1), model.config.decoder_start_token_id)
        whole = model(
            inputs_embeds=prompts[rows],
            decoder_input_ids=torch.cat([start, ids[:, :-1]], dim=1),
            output_hidden_states=True,
        )
        expected, hidden = whole.logits, whole.decoder_hidden_states[-1]
    else:
        embeddings = torch.cat([prompts[rows], generator.model.embed(ids)], dim=1)
        whole = model(inputs_embeds=embeddings, output_hidden_states=True)
        expected, hidden = whole.logits[:, 4:-1], whole.hidden_states[-1][:, 4:-1]
    torch.testing.assert_close(scored.logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored.hidden, hidden, rtol=1e-4, atol=1e-5)
    (ours,) = torch.autograd.grad(scored.logits.square().mean(), prompts)
    (theirs,) = torch.autograd.grad(expected.square().mean(), prompts)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_samples_are_the_same_with_and_without_cache(
    tiny_generator: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny_generator(kind)
    prompts = prompts_of(generator, 8)
    # Half of them stand behind one prompt, and end together: then they are dropped.
    rows = torch.where(torch.arange(96) % 2 == 0, 0, torch.arange(96) % 8)
    kept: list[int] = []
    keep = Continuation.keep
    monkeypatch.setattr(
        Continuation, "keep", lambda texts, rows: (kept.append(len(rows)), keep(texts, rows))
    )
    first = sample(
        generator.model, prompts, rows, end=0, max_tokens=10,
        generator=torch.Generator(), temperature=0,
    )  # fmt: skip
    end = int(first.ids[0, 3])
    cached, anew = (
        sample(
            generator.model, prompts, rows, end=end, max_tokens=10,
            generator=torch.Generator(), temperature=0, cached=cached,
        )
        for cached in (True, False)
    )  # fmt: skip
    assert torch.equal(cached.ids, anew.ids)
    assert torch.equal(cached.lengths, anew.lengths)
    assert bool(cached.complete.any())
    assert kept
    assert all(count < 96 and count % 16 == 0 for count in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_agree_with_and_without_cache(tiny_generator: Make, kind: str) -> None:
    generator = tiny_generator(kind)
    prompts, rows = prompts_of(generator), torch.tensor([2, 0, 0, 1, 2])
    cached, anew = (
        Continuation(generator.model, prompts, rows, cached=cached) for cached in (True, False)
    )
    torch.testing.assert_close(cached.logits, anew.logits, rtol=1e-4, atol=1e-4)
    for place in range(5):
        # As in sampling: rows that have ended are dropped before the next token of the others.
        kept = torch.tensor([3, 0, 4] if place == 2 else range(len(cached.logits)))
        tokens = torch.randint(5, 30, (len(kept),))
        for texts in (cached, anew):
            texts.keep(kept)
            texts.append(tokens)
        torch.testing.assert_close(cached.logits, anew.logits, rtol=1e-4, atol=1e-4)
    assert len(cached.logits) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_changes_neither_logits_nor_gradients(
    tiny_generator: Make, kind: str
) -> None:
    generator = tiny_generator(kind)
    model = generator.model.model
    assert any(
        value > 0
        for name, value in model.config.to_dict().items()
        if "drop" in name and isinstance(value, float)
    ) or kind in ("llama", "qwen2"), "a model that would drop values out in training"
    prompts, rows = prompts_of(generator).requires_grad_(), torch.tensor([2, 0, 2, 1])
    ids = torch.randint(5, 30, (4, 7))
    results, rates = [], rates_of(model)
    for checkpointing in (False, True):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            scored = generator.model.score(prompts, rows, ids, checkpointing=checkpointing)
        (gradient,) = torch.autograd.grad(
            scored.logits.log_softmax(-1).square().mean() + scored.hidden.square().mean(), prompts
        )
        results.append((scored.logits.detach(), gradient, sum(kept)))
    (logits, gradient, size), (again, recomputed, less) = results
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(recomputed, gradient, rtol=1e-3, atol=1e-5)
    assert less < size / 2, "what is kept for the gradient"
    assert not any(part.training for part in model.modules())
    assert not any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    assert rates_of(model) == rates


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_that_the_model_gives_the_sample(
    tiny_generator: Make, kind: str
) -> None:
    generator = tiny_generator(kind)
    prompts, rows = prompts_of(generator), torch.arange(30) % 3
    drawn = sample(
        generator.model, prompts, rows, end=2, max_tokens=12,
        generator=torch.Generator().manual_seed(3), temperature=0.7,
    )  # fmt: skip
    assert len(set(drawn.lengths.tolist())) > 2, "rows should end at different places"
    logits = generator.model.score(prompts, rows, drawn.ids).logits / 0.7
    expected = torch.log_softmax(logits, -1).gather(-1, drawn.ids.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(drawn.logprobs, expected * drawn.mask, rtol=1e-4, atol=1e-4)


def test_the_same_seed_draws_the_same_and_another_does_not(tiny_generator: Make) -> None:
    generator = tiny_generator()

    def ids(seed: int) -> torch.Tensor:
        source = torch.Generator().manual_seed(seed)
        return sample(
            generator.model, prompts_of(generator), torch.arange(9) % 3, end=2, max_tokens=8,
            generator=source,
        ).ids  # fmt: skip

    assert torch.equal(ids(1), ids(1))
    assert not torch.equal(ids(1), ids(2))


def test_nothing_is_drawn_after_the_end(tiny_generator: Make) -> None:
    generator = tiny_generator()
    drawn = sample(
        generator.model, prompts_of(generator), torch.arange(60) % 3, end=2, max_tokens=12,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert bool((drawn.ids[~drawn.mask] == 2).all())
    assert bool((drawn.logprobs[~drawn.mask] == 0).all())
    for ids, length, complete in zip(
        drawn.ids.tolist(), drawn.lengths.tolist(), drawn.complete.tolist(), strict=True
    ):
        assert complete == (ids[length - 1] == 2)
        assert 2 not in ids[: length - 1]


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = draw(logits, uniform, 1.0, 1.0)
    shares = torch.bincount(tokens, minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, logits[0][tokens])


def test_top_p_keeps_the_smallest_set_and_renormalises_it() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(5000, 3)
    uniform = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = draw(logits, uniform, 1.0, 0.6)
    assert set(tokens.tolist()) == {1, 2}
    torch.testing.assert_close(
        logprobs.exp(), torch.tensor([0.0, 0.625, 0.375])[tokens], rtol=1e-4, atol=1e-6
    )


def test_a_uniform_number_next_to_one_still_draws_a_token() -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = draw(logits, torch.tensor([1 - 2**-24]), 1.0, 1.0)
    assert int(tokens) < 5000
    assert bool(torch.isfinite(logprobs).all())

"""PPO on a soft prompt: its parts, and that it raises what it is told to."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import register_optimizer_step_pre_hook

from offline.teacher import comparison
from offline.teacher.advantages import (
    KLController,
    LabelBaselines,
    explained_variance,
    generalised_advantages,
    normalised,
)
from offline.teacher.generator import Generator
from offline.teacher.policy import policy_loss, value_loss
from offline.teacher.ppo import Improved, PPOConfig, Trainer, improve
from offline.teacher.rewards import Reward, RewardBatch, RewardConfig, reward_term
from offline.teacher.sampling import SamplingConfig
from offline.teacher.text_memory import TrainingTexts
from offline.teacher.writing import Written, write

Make = Callable[..., Generator]
TRUE = torch.ones(1, 1, dtype=torch.bool)


class ColourLabeller:
    """Takes a text for label 0 the more of its words are `red`, for label 1 the more are `blue`."""

    labels = ("red", "blue")
    identity = "colours"
    parameters = 0

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        counts = [[text.split().count("red"), text.split().count("blue"), 0.5] for text in texts]
        embeddings = np.array(counts, dtype=np.float32)
        return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))

    def soft_labels(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        progress: object = None,
    ) -> NDArray[np.float32]:
        if embeddings is None:
            embeddings = self.embed(texts, pairs)
        scores = np.exp(3 * embeddings[:, :2])
        return np.asarray(scores / scores.sum(1, keepdims=True), dtype=np.float32)


def colour_reward(weights: dict[str, float]) -> Reward:
    labeller = ColourLabeller()
    texts = ["red sky", "red sun", "blue sea", "blue rain"]
    labels = np.array([0, 0, 1, 1])
    training = TrainingTexts.of(texts, labels, labeller.embed(texts), labeller.labels)
    return Reward(RewardConfig(weights=weights), labeller, labeller.labels, training)


def run_ppo(generator: Generator, config: PPOConfig, seed: int = 0) -> Improved:
    torch.manual_seed(0)
    prompts = torch.randn(2, 4, generator.model.dimensions) * 0.3
    return improve(
        prompts,
        generator,
        colour_reward({"accuracy": 1.0}),
        config,
        seed=seed,
        report=lambda done, total, figures: None,
    )


QUICK = PPOConfig(
    steps=30, batch_size=64, minibatch_size=32, memory=0, evaluate_every=10, learning_rate=3e-2,
    shared_learning_rate=1e-2, kl_target=0, kl_coefficient=0.0, entropy=0.0, step_kl=1.0,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart"])
def test_ppo_raises_the_reward_that_each_label_asks_for(tiny_generator: Make, kind: str) -> None:
    generator = tiny_generator(kind, max_tokens=6)
    before = {name: tensor.clone() for name, tensor in generator.model.model.state_dict().items()}
    rates = {"learning_rate": 0.2, "shared_learning_rate": 0.1, "relative_rates": True, "steps": 20}
    improved = run_ppo(generator, QUICK.model_copy(update={} if kind == "gpt2" else rates))
    held_out = [row["held_out_reward"] for row in improved.rows if "held_out_reward" in row]
    assert improved.best_step > 0
    # Random weights write a colour by chance; both labels want their own in every word.
    assert held_out[-1] > held_out[0] + 0.2, held_out
    agreement = [row["label_agreement"] for row in improved.rows if "label_agreement" in row]
    # Rounds of 64 samples: a single one is a seventh off now and then.
    assert np.mean(agreement[-5:]) > np.mean(agreement[:2]) + 0.15, agreement
    after = generator.model.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_value_head_learns_to_expect_the_return(tiny_generator: Make) -> None:
    config = QUICK.model_copy(update={"steps": 20, "value_learning_rate": 1e-2})
    rows = run_ppo(tiny_generator("gpt2", max_tokens=6), config).rows[1:]
    assert rows[0]["explained_variance"] == 0.0, "it starts as a constant"
    assert np.mean([row["explained_variance"] for row in rows[-5:]]) > 0.05


def test_a_high_kl_coefficient_holds_the_prompt_where_it_was(tiny_generator: Make) -> None:
    generator = tiny_generator("gpt2", max_tokens=6)
    free = run_ppo(generator, QUICK.model_copy(update={"steps": 12}))
    held = run_ppo(generator, QUICK.model_copy(update={"steps": 12, "kl_coefficient": 2.0}))
    assert free.rows[-1]["kl"] > 2 * abs(held.rows[-1]["kl"])


def test_the_same_seed_gives_the_same_prompts_to_the_last_bit(tiny_generator: Make) -> None:
    config = QUICK.model_copy(update={"steps": 3, "memory": 16, "entropy": 0.01})
    first, again, other = (
        run_ppo(tiny_generator("llama", max_tokens=6), config, seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.prompts, again.prompts)
    assert first.rows == again.rows
    assert first.rows != other.rows


def test_a_run_that_only_gets_worse_keeps_the_tuned_prompt(tiny_generator: Make) -> None:
    @reward_term("test_falls_with_every_call")
    def falls(batch: RewardBatch) -> NDArray[np.float32]:
        calls.append(len(batch.texts))
        return np.full(len(batch.texts), -len(calls), dtype=np.float32)

    calls: list[int] = []
    generator = tiny_generator("gpt2", max_tokens=6)
    prompts = torch.randn(2, 4, generator.model.dimensions)
    improved = improve(
        prompts,
        generator,
        colour_reward({"test_falls_with_every_call": 1.0}),
        QUICK.model_copy(update={"steps": 2, "evaluate_every": 1}),
        seed=0,
        report=lambda done, total, figures: None,
    )
    assert improved.best_step == 0
    assert torch.equal(improved.prompts, prompts)


def test_rates_rise_over_the_warm_up_and_a_round_of_none_moves_no_further(
    tiny_generator: Make,
) -> None:
    def moved(warm_up: int, number: int) -> float:
        generator = tiny_generator("gpt2")
        torch.manual_seed(0)
        prompts = torch.randn(2, 4, generator.model.dimensions) * 0.3
        config = QUICK.model_copy(update={"warm_up": warm_up, "epochs": 1, "minibatch_size": 64})
        trainer = Trainer(prompts, generator, colour_reward({"accuracy": 1.0}), config, seed=0)
        before = trainer.prompt.fixed()
        trainer.step(number)
        return float((trainer.prompt.fixed() - before).abs().max())

    whole = moved(0, 1)
    assert whole > 0
    assert moved(10, 1) == pytest.approx(whole / 10, rel=1e-3)
    assert moved(10, 10) == moved(10, 25) == whole


def tiny_trainer(
    generator: Generator, weights: dict[str, float] | None = None, **changes: Any
) -> Trainer:
    """A trainer of `QUICK` with these changes; without weights the colours are rewarded."""
    torch.manual_seed(0)
    prompts = torch.randn(2, 4, generator.model.dimensions) * 0.3
    reward = colour_reward({"accuracy": 1.0} if weights is None else weights)
    return Trainer(prompts, generator, reward, QUICK.model_copy(update=changes), seed=0)


def test_no_pass_follows_one_that_left_the_policy_further_than_step_kl(
    tiny_generator: Make,
) -> None:
    def first_round(**changes: Any) -> dict[str, float]:
        return tiny_trainer(tiny_generator("gpt2", max_tokens=6), **changes).step(1)

    # 64 samples in minibatches of 32: two updates a pass. The first update is made at no distance at all.
    apart = first_round(epochs=1)["step_kl"]
    assert apart > 0
    assert first_round(epochs=4, step_kl=1e9)["updates"] == 8
    assert first_round(epochs=4, step_kl=1e-12)["updates"] == 2, "a pass is made to its end"
    # It is the mean over the pass's tokens that counts.
    assert first_round(epochs=4, step_kl=0.99 * apart)["updates"] == 2
    assert first_round(epochs=4, step_kl=1.01 * apart)["updates"] == 4


def test_the_entropy_bonus_alone_spreads_what_is_written(tiny_generator: Make) -> None:
    def spread(entropy: float, rounds: int) -> tuple[list[float], float]:
        """The rounds' entropies in nats, and how far the prompt has moved."""
        generator = tiny_generator("gpt2", max_tokens=6)
        trainer = tiny_trainer(generator, weights={}, entropy=entropy)
        before = trainer.prompt.fixed()
        entropies = [trainer.step(number)["entropy"] for number in range(1, rounds + 1)]
        return entropies, float((trainer.prompt.fixed() - before).abs().max())

    # Nothing is rewarded, so that nothing else can move the prompt.
    assert spread(0.0, rounds=1)[1] == 0.0
    entropies, moved = spread(0.1, rounds=6)
    assert moved > 0
    assert min(entropies[-2:]) > entropies[0] + 0.1, entropies


def test_every_round_steers_the_kl_coefficient_by_its_own_kl(tiny_generator: Make) -> None:
    target, rate = 0.5, 0.5
    generator = tiny_generator("gpt2", max_tokens=6)
    config = QUICK.model_copy(
        update={"steps": 8, "kl_coefficient": 0.01, "kl_target": target, "kl_rate": rate}
    )
    rows = run_ppo(generator, config).rows[1:]
    before = config.kl_coefficient
    risen: list[bool] = []
    for row in rows:
        # Formula 6 of docs/ppo.md.
        error = float(np.clip(row["kl"] / target - 1, -0.2, 0.2))
        assert row["kl_coefficient"] == pytest.approx(before * (1 + rate * error), rel=1e-6)
        risen.append(row["kl_coefficient"] > before)
        before = row["kl_coefficient"]
    assert rows[0]["kl"] < target < rows[-1]["kl"]
    assert not risen[0], "the first round's samples are the tuned prompt's own"
    assert risen[-1]


def test_a_huge_gradient_of_the_value_head_does_not_shorten_the_prompt_s(
    tiny_generator: Make,
) -> None:
    clip = 0.01
    norms: list[tuple[float, float]] = []

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # The value head's group is the last.
        *prompt, head = (
            torch.cat([parameter.grad.flatten() for parameter in group["params"]])
            for group in optimizer.param_groups
        )
        norms.append((float(torch.cat(prompt).norm()), float(head.norm())))

    # Advantages are normalised, so a thousandfold reward is one for the value head's gradient alone.
    trainer = tiny_trainer(
        tiny_generator("gpt2", max_tokens=6), weights={"accuracy": 1e3}, gradient_clip=clip
    )
    handle = register_optimizer_step_pre_hook(keep)
    try:
        figures = trainer.step(1)
    finally:
        handle.remove()
    assert figures["gradient_norm"] > clip, "there is something to clip"
    assert [prompt for prompt, _ in norms] == pytest.approx([clip] * 4, rel=1e-3)
    assert [head for _, head in norms] == pytest.approx([clip] * 4, rel=1e-3)


def test_within_a_round_the_value_head_has_no_part_in_the_prompt_s_steps(
    tiny_generator: Make,
) -> None:
    def moved(value_learning_rate: float) -> torch.Tensor:
        trainer = tiny_trainer(
            tiny_generator("gpt2", max_tokens=6),
            weights={"accuracy": 1e3},
            value_learning_rate=value_learning_rate,
        )
        trainer.step(1)
        return trainer.prompt.fixed()

    assert torch.equal(moved(1e-6), moved(0.1))


def test_equal_prompts_are_compared_once_and_told_under_both_names(
    tiny_generator: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny_generator("gpt2")
    prompts = torch.randn(2, 4, generator.model.dimensions)
    written: list[int] = []

    def counting(*arguments: Any) -> Written:
        found = write(*arguments)
        written.append(len(found.texts))
        return found

    monkeypatch.setattr(comparison, "write", counting)
    found = comparison.compare(
        {"name_prefix": prompts, "tuned_prompt": prompts.clone(), "ppo": -10 * prompts},
        generator,
        colour_reward({"accuracy": 1.0}),
        ColourLabeller(),
        ["red", "blue"],
        ["red sky"],
        [],
        samples=8,
        sampling=SamplingConfig(),
        seed=0,
    )
    assert written == [8, 8]
    assert found["name_prefix"] == found["tuned_prompt"]
    assert found["ppo"] != found["tuned_prompt"]


def test_the_log_has_every_figure_a_practitioner_looks_at(tiny_generator: Make) -> None:
    improved = run_ppo(tiny_generator(max_tokens=6), QUICK.model_copy(update={"steps": 1}))
    assert set(improved.rows[-1]) >= {
        "step", "reward", "reward_accuracy", "label_agreement", "kl", "kl_coefficient", "entropy",
        "clip_fraction", "step_kl", "explained_variance", "policy_loss", "value_loss", "length",
        "distinct_1", "distinct_2", "self_bleu", "complete", "gradient_norm", "updates",
        "held_out_reward", "held_out_label_agreement",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in improved.rows[-1].values())


def test_advantages_are_the_discounted_sums_of_the_paper() -> None:
    rewards = torch.tensor([[0.1, 0.2, 1.0, 9.0], [0.5, -9.0, 9.0, 9.0]])
    values = torch.tensor([[0.3, 0.4, 0.6, 5.0], [0.2, 5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    advantages, returns = generalised_advantages(rewards, values, mask, discount=0.9, smoothing=0.8)
    third = 1.0 - 0.6
    second = 0.2 + 0.9 * 0.6 - 0.4 + 0.72 * third
    first = 0.1 + 0.9 * 0.4 - 0.3 + 0.72 * second
    expected = torch.tensor([[first, second, third, 0], [0.5 - 0.2, 0, 0, 0]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns[mask], (expected + values)[mask])


def test_with_lambda_one_the_return_is_the_sum_of_what_follows() -> None:
    rewards = torch.rand(5, 6)
    mask = torch.arange(6).unsqueeze(0) < torch.tensor([1, 3, 6, 2, 5]).unsqueeze(1)
    _, returns = generalised_advantages(
        rewards, torch.rand(5, 6), mask, discount=1.0, smoothing=1.0
    )
    following = (rewards * mask).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns[mask], following[mask])


def test_advantages_are_normalised_over_tokens_not_padding() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])
    scaled = normalised(values, mask)
    assert float(scaled[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(scaled[mask].std()) == pytest.approx(1, abs=1e-4)
    assert bool((scaled[~mask] == 0).all())


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.1, 1.0, True), (1.5, 1.0, False), (0.5, 1.0, True), (0.5, -1.0, False), (1.5, -1.0, True)],
)
def test_the_objective_has_no_slope_where_clipping_says_so(
    ratio: float, advantage: float, slope: bool
) -> None:
    logprobs = torch.full((1, 1), float(np.log(ratio)), requires_grad=True)
    loss = policy_loss(logprobs, torch.zeros(1, 1), torch.full((1, 1), advantage), TRUE, 0.2)
    (gradient,) = torch.autograd.grad(loss.total, logprobs)
    assert bool(gradient.abs() > 0) == slope
    assert float(loss.clipped) == (abs(ratio - 1) > 0.2)
    assert float(loss.divergence) == pytest.approx(ratio - 1 - np.log(ratio), rel=1e-4)


def test_a_value_that_ran_ahead_of_the_clip_is_not_pushed_further() -> None:
    values = torch.tensor([[0.9]], requires_grad=True)
    loss = value_loss(values, torch.tensor([[0.0]]), torch.tensor([[1.0]]), TRUE, 0.2)
    assert loss.item() == pytest.approx((0.2 - 1.0) ** 2 / 2)
    (gradient,) = torch.autograd.grad(loss, values)
    assert float(gradient) == 0.0


def test_a_hard_label_is_measured_against_itself() -> None:
    baselines = LabelBaselines(np.full(2, np.nan), momentum=0.5)
    labels = np.array([0, 0, 1, 1])
    baselines.centre(np.array([1.0, 1.0, 0.0, 0.0], dtype=np.float32), labels)
    centred = baselines.centre(np.array([1.0, 0.8, 0.2, 0.0], dtype=np.float32), labels)
    assert centred.tolist() == pytest.approx([0.0, -0.2, 0.2, 0.0])
    assert baselines.means.tolist() == pytest.approx([0.95, 0.05])


def test_the_kl_coefficient_follows_the_target() -> None:
    controller = KLController(0.1, target=2.0, rate=0.5)
    controller.update(10.0)
    assert controller.coefficient == pytest.approx(0.11)
    controller.update(0.0)
    assert controller.coefficient == pytest.approx(0.099)
    fixed = KLController(0.1, target=0.0, rate=0.5)
    fixed.update(10.0)
    assert fixed.coefficient == 0.1


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant() -> None:
    returns = torch.randn(50)
    assert explained_variance(returns + 3, returns) == pytest.approx(1)
    assert explained_variance(torch.zeros(50), returns) == pytest.approx(0)

"""One PPO run's state and its rounds: sample, reward, update the prompt and the value head."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from offline.processor import rounded
from offline.teacher.advantages import (
    KLController,
    LabelBaselines,
    explained_variance,
    generalised_advantages,
    normalised,
)
from offline.teacher.diversity import distinct_n, self_bleu
from offline.teacher.generator import Generator
from offline.teacher.policy import ValueHead, assess, by_length, policy_loss, value_loss
from offline.teacher.ppo_checkpoint import Checkpoint
from offline.teacher.ppo_config import PPOConfig
from offline.teacher.rewards import Reward, Rewarded
from offline.teacher.sampling import SamplingConfig
from offline.teacher.soft_labels import joined
from offline.teacher.soft_prompt import SoftPrompt
from offline.teacher.text_memory import LabelledTexts
from offline.teacher.writing import Written, balanced_labels, write


@dataclass(frozen=True, slots=True)
class Round:
    """A round's samples with all that the updates need: (n,) labels and lengths, else (n, t)."""

    labels: Tensor
    lengths: Tensor
    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, rows: Tensor) -> "Round":
        """Some of the samples, cut to the longest of them."""
        longest = rounded(int(self.lengths[rows].max()))
        parts = [getattr(self, field.name)[rows] for field in fields(self)]
        return Round(*(part[:, :longest] if part.dim() > 1 else part for part in parts))


class Trainer:
    """The state of a PPO run: prompt, value head, optimizer, baselines, recent samples, random source.

    Begin it with `begin`, or with `restore` from what `checkpoint` gave.
    """

    def __init__(
        self, prompts: Tensor, generator: Generator, reward: Reward, config: PPOConfig, seed: int
    ) -> None:
        self._config, self._generator, self._reward = config, generator, reward
        self._reference = prompts.detach().clone().float()
        # No shared tokens: each label may move all of its own, and the offset moves them together.
        self.prompt = SoftPrompt(self._reference[0, :0], self._reference)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._value_head = ValueHead(generator.model.hidden_dimensions())
        device = generator.model.device
        self.prompt.to(device)
        self._value_head.to(device)
        self._reference = self._reference.to(device)
        groups = self.prompt.groups(
            config.learning_rate, config.shared_learning_rate, relative=config.relative_rates
        )
        groups.append(
            {"params": list(self._value_head.parameters()), "lr": config.value_learning_rate}
        )
        self._optimizer = torch.optim.Adam(groups)
        # The value head, which comes last, has no warm-up.
        self._rates = [group["lr"] for group in groups[:-1]]
        self._baselines = LabelBaselines(np.full(len(prompts), np.nan), config.baseline_momentum)
        self._controller = KLController(config.kl_coefficient, config.kl_target, config.kl_rate)
        self._random = torch.Generator().manual_seed(seed)
        self._evaluation_seed = seed + 1
        self._turn = 0
        self._recent = LabelledTexts.none()

    def begin(self) -> None:
        """Fill the memory with samples of the tuned prompt."""
        if self._config.memory:
            _, self._recent = self._rewarded(self._write(self._config.memory))

    def checkpoint(self) -> Checkpoint:
        """All that the next rounds depend on, beside what the trainer is made from."""
        tensors = {
            **{f"prompt.{name}": value for name, value in self.prompt.state_dict().items()},
            **{f"value.{name}": value for name, value in self._value_head.state_dict().items()},
            **{
                f"optimizer.{index}.{name}": value
                for index, state in self._optimizer.state_dict()["state"].items()
                for name, value in state.items()
            },
            "baselines": torch.from_numpy(self._baselines.means),
            "random": self._random.get_state(),
            "recent.labels": torch.from_numpy(self._recent.labels),
            "recent.embeddings": torch.from_numpy(self._recent.embeddings),
        }
        return Checkpoint(
            {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
            {
                "turn": self._turn,
                "kl_coefficient": self._controller.coefficient,
                "recent": [list(words) for words in self._recent.words],
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on as the run that `checkpoint` was taken of would have."""
        tensors, values = checkpoint.tensors, checkpoint.values
        self.prompt.load_state_dict(_below(tensors, "prompt"))
        self._value_head.load_state_dict(_below(tensors, "value"))
        moments: dict[int, dict[str, Any]] = {}
        for path, tensor in _below(tensors, "optimizer").items():
            index, name = path.split(".")
            moments.setdefault(int(index), {})[name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._baselines.means = tensors["baselines"].numpy().copy()
        self._controller.coefficient = values["kl_coefficient"]
        self._random.set_state(tensors["random"])
        self._turn = values["turn"]
        recent = _below(tensors, "recent")
        self._recent = LabelledTexts.of_words(
            values["recent"], recent["labels"].numpy(), recent["embeddings"].numpy()
        )

    def evaluate(self) -> dict[str, float]:
        """Figures of held-out samples, drawn with the same seed each time."""
        labels = balanced_labels(self._config.evaluation_samples, len(self._reference))
        source = torch.Generator().manual_seed(self._evaluation_seed)
        prompts = self.prompt.fixed()
        written = write(self._generator, prompts, labels, self._config.sampling, source)
        self._recent, kept = LabelledTexts.none(), self._recent
        rewarded, _ = self._rewarded(written)
        self._recent = kept
        return {
            "held_out_reward": float(rewarded.total.mean()),
            "held_out_label_agreement": float(rewarded.agreement.mean()),
        }

    def step(self, number: int) -> dict[str, float]:
        """One round: sample, reward, update; its figures.

        Args:
            number: of the round, from 1, which says how far the rates have risen.
        """
        risen = min(1.0, number / self._config.warm_up) if self._config.warm_up else 1.0
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate * risen
        written = self._write(self._config.batch_size)
        rewarded, samples = self._rewarded(written)
        self._recent = self._recent.followed_by(samples, self._config.memory)
        centred = self._baselines.centre(rewarded.total, written.labels)
        round_, figures = self._round(written, centred)
        figures |= self._update(round_)
        self._controller.update(figures["kl"])
        texts = joined(written.texts, written.pairs)
        return {
            "reward": float(rewarded.total.mean()),
            **{f"reward_{name}": float(part.mean()) for name, part in rewarded.parts.items()},
            "label_agreement": float(rewarded.agreement.mean()),
            **figures,
            "kl_coefficient": self._controller.coefficient,
            "length": float(written.sampled.lengths.float().mean()),
            "complete": float(written.complete.mean()),
            "distinct_1": distinct_n(texts, 1),
            "distinct_2": distinct_n(texts, 2),
            "self_bleu": self_bleu(texts, list(map(str, written.labels)), seed=0),
        }

    def _write(self, count: int) -> Written:
        """Samples of the distribution that is optimised: at the temperature, without top-p."""
        labels = balanced_labels(count, len(self._reference), self._turn)
        self._turn += count
        sampling = SamplingConfig(temperature=self._config.sampling.temperature)
        return write(self._generator, self.prompt.fixed(), labels, sampling, self._random)

    def _rewarded(self, written: Written) -> tuple[Rewarded, LabelledTexts]:
        return self._reward(
            written.texts, written.pairs, written.labels, written.complete, self._recent
        )

    @torch.no_grad()
    def _round(
        self, written: Written, rewards: NDArray[np.float32]
    ) -> tuple[Round, dict[str, float]]:
        """Log-probabilities, values, advantages and returns of the samples, before any update."""
        config, model, sampled = self._config, self._generator.model, written.sampled
        labels = torch.from_numpy(written.labels).to(model.device)
        mask, ids, order = sampled.mask, sampled.ids, self._generator.framing.order
        logprobs, reference, entropy, values = (
            torch.zeros_like(sampled.logprobs) for _ in range(4)
        )
        for rows in by_length(sampled.lengths, config.chunk_size):
            longest = rounded(int(sampled.lengths[rows].max()))
            part = ids[rows, :longest]
            temperature = config.sampling.temperature
            now = assess(model, self.prompt(), labels[rows], part, temperature, order=order)
            tuned = assess(model, self._reference, labels[rows], part, temperature, order=order)
            logprobs[rows, :longest] = now.logprobs
            reference[rows, :longest] = tuned.logprobs
            entropy[rows, :longest] = now.entropy
            values[rows, :longest] = self._value_head(now.hidden)
        apart = (logprobs - reference) * mask
        token_rewards = -self._controller.coefficient * apart
        last = (sampled.lengths - 1).unsqueeze(1)
        token_rewards.scatter_add_(1, last, torch.from_numpy(rewards).to(model.device).unsqueeze(1))
        advantages, returns = generalised_advantages(
            token_rewards, values, mask, discount=config.discount, smoothing=config.smoothing
        )
        round_ = Round(
            labels=labels,
            lengths=sampled.lengths,
            ids=ids,
            mask=mask,
            logprobs=logprobs,
            values=values,
            advantages=normalised(advantages, mask),
            returns=returns,
        )
        return round_, {
            "kl": float(apart.sum(1).mean()),
            "entropy": float(entropy[mask].mean()),
            "explained_variance": explained_variance(values[mask], returns[mask]),
        }

    def _update(self, round_: Round) -> dict[str, float]:
        """Epochs of minibatches on one round's samples; means over all tokens seen."""
        config = self._config
        totals = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "step_kl": 0.0}
        tokens, updates, gradient = 0.0, 0, 0.0
        for _ in range(config.epochs):
            order = torch.randperm(len(round_.labels), generator=self._random)
            epoch_kl = epoch_tokens = 0.0
            for rows in torch.split(order.to(round_.labels.device), config.minibatch_size):
                figures, count = self._accumulate(round_.rows(rows))
                # Apart, so that a large value loss does not shorten the prompt's steps.
                norm = clip_grad_norm_(self.prompt.parameters(), config.gradient_clip)
                clip_grad_norm_(self._value_head.parameters(), config.gradient_clip)
                self._optimizer.step()
                self._optimizer.zero_grad()
                for name, value in figures.items():
                    totals[name] += value
                tokens, updates, gradient = tokens + count, updates + 1, gradient + float(norm)
                epoch_kl, epoch_tokens = epoch_kl + figures["step_kl"], epoch_tokens + count
            if epoch_kl / epoch_tokens > config.step_kl:
                break
        means = {name: value / tokens for name, value in totals.items()}
        return {**means, "updates": float(updates), "gradient_norm": gradient / updates}

    def _accumulate(self, part: Round) -> tuple[dict[str, float], float]:
        """Gradients of a minibatch, a chunk at a time; summed figures and the number of tokens."""
        config, count = self._config, float(part.mask.sum())
        totals = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "step_kl": 0.0}
        for rows in by_length(part.lengths, config.chunk_size):
            chunk = part.rows(rows)
            mask = chunk.mask
            seen = assess(
                self._generator.model,
                self.prompt(),
                chunk.labels,
                chunk.ids,
                config.sampling.temperature,
                order=self._generator.framing.order,
                checkpointing=config.gradient_checkpointing,
            )
            policy = policy_loss(seen.logprobs, chunk.logprobs, chunk.advantages, mask, config.clip)
            # The value head reads the model, it does not pull at the prompt.
            values = self._value_head(seen.hidden.detach())
            value = value_loss(values, chunk.values, chunk.returns, mask, config.value_clip)
            entropy = seen.entropy[mask].sum()
            loss = (policy.total + value - config.entropy * entropy) / count
            loss.backward()  # type: ignore[no-untyped-call]
            totals["policy_loss"] += policy.total.item()
            totals["value_loss"] += value.item()
            totals["clip_fraction"] += policy.clipped.item()
            totals["step_kl"] += policy.divergence.item()
        return totals, count


def _below(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"{part}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }

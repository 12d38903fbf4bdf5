"""What must hold for every kind of model: the base model is neither changed nor optimised."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offline.teacher.generation import GenerateConfig, shards, write_shard
from offline.teacher.generator import Generator
from offline.teacher.ppo import PPOConfig, improve
from offline.teacher.prompt_files import load_prompts, save_prompts
from offline.teacher.rewards import Reward, RewardConfig
from offline.teacher.sampling import SamplingConfig
from offline.teacher.soft_prompt import SoftPromptConfig, name_prompt, tune
from offline.teacher.text_memory import TrainingTexts

Make = Callable[..., Generator]
KINDS = ("gpt2", "llama", "qwen2", "bert", "t5", "bart")
LABELS = ("colour", "animal")
TEXTS = ["red sky", "blue sea", "green grass", "a red sun", "dog runs", "old cat", "bird sings"]
OF = [0, 0, 0, 0, 1, 1, 1]


class LengthLabeller:
    """Takes long texts for animals."""

    labels = LABELS
    identity = "length"
    parameters = 0

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        counts = np.array([[len(text.split()), 3.0] for text in texts], dtype=np.float32)
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True))

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        share = embeddings[:, 0] / embeddings.sum(1)
        return np.stack([1 - share, share], axis=1)


class Optimizers:
    """As a report: looks at every optimizer in memory, and at the gradients of the base model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self.elements = 0

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        base = {tensor.data_ptr() for tensor in self._model.parameters()}
        assert all(tensor.grad is None for tensor in self._model.parameters())
        found = [part for part in gc.get_objects() if issubclass(type(part), torch.optim.Optimizer)]
        held = [
            tensor for part in found for group in part.param_groups for tensor in group["params"]
        ]
        assert held
        assert not base & {tensor.data_ptr() for tensor in held if tensor.numel()}
        self.elements = max(
            self.elements,
            *(
                sum(tensor.numel() for state in part.state.values() for tensor in state.values())
                for part in found
            ),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_tuned_improved_saved_and_loaded_the_base_model_stays_as_it_was(
    tiny_generator: Make, tmp_path: Path, kind: str, checkpointing: bool
) -> None:
    generator = tiny_generator(kind, max_tokens=8)
    model = generator.model.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    watch = Optimizers(model)
    prompt = name_prompt(generator, LABELS, shared=2, own=0)
    start = prompt.fixed()
    tune(
        prompt,
        generator,
        [generator.framing.encode(text) for text in TEXTS],
        OF,
        SoftPromptConfig(epochs=2, batch_size=4, gradient_checkpointing=checkpointing),
        seed=0,
        report=watch,
    )
    labeller = LengthLabeller()
    training = TrainingTexts.of(TEXTS, np.array(OF), labeller.embed(TEXTS), LABELS)
    improved = improve(
        prompt.fixed(),
        generator,
        Reward(RewardConfig(), labeller, LABELS, training),
        PPOConfig(
            steps=2,
            batch_size=16,
            minibatch_size=8,
            memory=8,
            evaluate_every=1,
            evaluation_samples=8,
            gradient_checkpointing=checkpointing,
        ),
        seed=0,
        report=watch,
    )
    # Two moments and a count for what is trained: the prompts and a small value head.
    trained = start.numel() + start[0].numel() + 32 * 64 + 64 * 3 + 32 * 2 + 1
    assert 0 < watch.elements <= 2 * trained + 100 < sum(map(torch.numel, model.parameters()))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    save_prompts(improved.prompts, LABELS, "tiny", tmp_path, task_type=generator.model.task_type)
    (work,) = shards(GenerateConfig(samples=20, shard_size=20), len(LABELS), seed=0)
    first, again = (
        write_shard(work, other, prompts, LABELS, SamplingConfig())
        for other, prompts in (
            (generator, improved.prompts),
            (tiny_generator(kind, max_tokens=8), load_prompts(tmp_path, LABELS)),
        )
    )
    assert first == again, "a model and a prompt that were loaded anew write the same"


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_tunes_to_the_same_prompt(tiny_generator: Make, kind: str) -> None:
    def tuned(checkpointing: bool) -> torch.Tensor:
        generator = tiny_generator(kind)
        prompt = name_prompt(generator, LABELS, shared=2, own=0)
        texts = [generator.framing.encode(text) for text in TEXTS]
        config = SoftPromptConfig(
            epochs=3, learning_rate=1e-3, gradient_checkpointing=checkpointing
        )
        tune(
            prompt, generator, texts, OF, config, seed=0,
            report=lambda done, total, figures: None,
        )  # fmt: skip
        return prompt.fixed()

    # Adam turns rounding errors of tiny gradients into steps: 3 steps of at most 1e-3 are told apart.
    apart = (tuned(True) - tuned(False)).abs()
    assert float(apart.mean()) < 1e-4, float(apart.max())

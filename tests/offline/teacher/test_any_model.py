"""What must hold for every kind of model: the base model is neither changed nor optimised."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerBase,
)

from offline.teacher.generation import GenerateConfig, shards, write_shard
from offline.teacher.generator import Generator
from offline.teacher.language_model import prompted
from offline.teacher.ppo import PPOConfig, improve
from offline.teacher.prompt_files import load_prompts, save_prompts
from offline.teacher.rewards import Reward, RewardConfig
from offline.teacher.sampling import sample
from offline.teacher.soft_prompt import SoftPromptConfig, name_prompt, tune
from offline.teacher.text_memory import TrainingTexts
from services.platform.errors import InvalidConfig

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
        write_shard(work, other, prompts, LABELS)
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


WIDE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
TALL = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 64, "decoder_start_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, dict[str, object]] = {
    # A window that slides past the prompt, and embeddings that are scaled on their way in.
    "gemma2": {**WIDE, "sliding_window": 6},
    # Embeddings of another width than the layers.
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16,
    },
    "qwen3_moe": {**WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mt5": {
        "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "pegasus": TALL,
    "mbart": TALL,
}  # fmt: skip


def family(kind: str, sizes: Mapping[str, object], tokenizer: PreTrainedTokenizerBase) -> Any:
    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ids, **sizes)
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return loader.from_config(config)


@pytest.mark.parametrize("kind", FAMILIES)
def test_other_families_read_the_same_with_and_without_cache(
    tiny_generator: Make, kind: str
) -> None:
    framing = tiny_generator().framing
    model = prompted(family(kind, FAMILIES[kind], framing.tokenizer), framing)
    prompts = torch.randn(3, 5, model.dimensions).requires_grad_()
    rows, ids = torch.tensor([2, 0, 2, 1]), torch.randint(5, 30, (4, 9))
    cached, whole, checkpointed = (
        model.score(prompts, rows, ids),
        model.read_whole(prompts, rows, ids[:, :-1], hidden=True),
        model.score(prompts, rows, ids, checkpointing=True),
    )
    assert cached.hidden.shape[-1] == model.hidden_dimensions()
    (expected,) = torch.autograd.grad(whole.logits.log_softmax(-1).square().mean(), prompts)
    for scored in (cached, checkpointed):
        torch.testing.assert_close(scored.logits, whole.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scored.hidden, whole.hidden, rtol=1e-4, atol=1e-4)
        (gradient,) = torch.autograd.grad(scored.logits.log_softmax(-1).square().mean(), prompts)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
    first, again = (
        sample(
            model, prompts.detach(), torch.arange(12) % 3, end=2, max_tokens=14,
            generator=torch.Generator(), temperature=0, cached=cached,
        ).ids
        for cached in (True, False)
    )  # fmt: skip
    assert torch.equal(first, again)


def test_a_model_without_keys_and_values_is_refused(tiny_generator: Make) -> None:
    framing = tiny_generator().framing
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
    with pytest.raises(InvalidConfig, match="'mamba' keeps a running state"):
        prompted(family("mamba", sizes, framing.tokenizer), framing)

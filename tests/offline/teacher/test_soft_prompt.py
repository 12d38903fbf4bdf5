"""Soft prompts: where they start, what tuning does, and their files."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from offline.teacher.generator import Generator
from offline.teacher.prompt_files import CONFIG, WEIGHTS, load_prompts, save_prompts
from offline.teacher.sampling import sample
from offline.teacher.soft_prompt import (
    SoftPrompt,
    SoftPromptConfig,
    name_prompt,
    split_by_label,
    tune,
)
from services.platform.errors import CorruptArtifact, IncompatibleArtifacts, InvalidConfig

Make = Callable[..., Generator]
KINDS = ("gpt2", "llama", "qwen2", "bert", "t5", "bart")
NAMES = ["colour", "animal", "the weather"]
TEXTS = {
    0: ["red", "green blue", "the sky is blue", "a red sun", "green grass", "blue sea"],
    1: [
        "the dog runs",
        "a cat sleeps",
        "the bird sings",
        "a big dog",
        "old cat",
        "a new bird runs",
    ],
    2: ["rain", "the sun was big", "rain rain", "a small moon", "very big rain", "the moon"],
}


def examples(generator: Generator) -> tuple[list[list[int]], list[int]]:
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    return [generator.framing.encode(text) for text, _ in rows], [label for _, label in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_the_untuned_prompt_reads_as_the_label_s_words(tiny_generator: Make, kind: str) -> None:
    generator = tiny_generator(kind)
    prompts = name_prompt(generator, NAMES, shared=2, own=0).fixed()
    words = [generator.framing.name(name, prompts.shape[1]) for name in NAMES]
    ids = generator.framing.encode("the sky is blue")
    model = generator.model.model
    if model.config.is_encoder_decoder:
        written = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]] * 3)
        expected = model(input_ids=torch.tensor(words), decoder_input_ids=written).logits
    else:
        texts = torch.tensor([[*name, *ids] for name in words])
        expected = model(input_ids=texts).logits[:, len(words[0]) - 1 : -1]
    scored = generator.model.score(prompts, torch.arange(3), torch.tensor([ids] * 3))
    torch.testing.assert_close(scored.logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", [2, 3])
def test_fewer_tokens_than_a_name_has_are_its_first_ones(tiny_generator: Make, own: int) -> None:
    generator = tiny_generator()
    framing = generator.framing
    names = ["big red sun", "old red sun"]
    prompt = name_prompt(generator, names, shared=2, own=own)
    words = [[*framing.ids(name)[: own - 1], *framing.ids(":")] for name in names]
    assert torch.equal(prompt.own, generator.model.embed(torch.tensor(words)))
    assert not torch.equal(prompt.own[0], prompt.own[1])
    assert torch.equal(prompt.shared, generator.model.embed(torch.full((2,), framing.filler)))


def test_more_tokens_than_the_generator_has_positions_for_are_refused(tiny_generator: Make) -> None:
    generator = tiny_generator(max_tokens=12)
    name_prompt(generator, NAMES, shared=2, own=50)
    with pytest.raises(InvalidConfig, match=r"prompt of 53 tokens .* 64 positions") as refused:
        name_prompt(generator, NAMES, shared=2, own=51)
    assert "soft_prompt.label_tokens" in str(refused.value.hint)


@pytest.mark.parametrize("kind", KINDS)
def test_tuning_raises_the_likelihood_and_leaves_the_model_bit_identical(
    tiny_generator: Make, kind: str
) -> None:
    generator = tiny_generator(kind)
    before = {name: tensor.clone() for name, tensor in generator.model.model.state_dict().items()}
    texts, labels = examples(generator)
    prompt = name_prompt(generator, NAMES, shared=2, own=0)
    # T5's embeddings are five times as large as the others', so its steps are.
    scale = 5 if kind == "t5" else 1
    config = SoftPromptConfig(
        epochs=15,
        batch_size=8,
        held_out=0.2,
        learning_rate=3e-2 * scale,
        shared_learning_rate=1e-2 * scale,
    )
    tuned = tune(
        prompt, generator, texts, labels, config, seed=0, report=lambda done, total, figures: None
    )
    assert tuned.after < tuned.before - 0.1
    assert tuned.after == min(row["held_out_loss"] for row in tuned.rows)
    after = generator.model.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in generator.model.model.parameters())
    assert all(tensor.grad is None for tensor in generator.model.model.parameters())


def test_tuning_keeps_the_epoch_that_the_held_out_texts_like_best(tiny_generator: Make) -> None:
    generator = tiny_generator()
    labels = [label for label in range(3) for _ in range(6)]
    tuned_rows, _ = split_by_label(labels, 0.2, seed=0)
    # Texts that are held out go on where those that are tuned on end: sooner or later a gain there is
    # a loss here.
    texts = [
        generator.framing.encode("red sun" if row in tuned_rows else "red sun cat sleeps moon")
        for row in range(len(labels))
    ]
    prompt = name_prompt(generator, NAMES, shared=2, own=0)
    config = SoftPromptConfig(
        epochs=60, patience=2, held_out=0.2, learning_rate=0.1, shared_learning_rate=0.1
    )
    tuned = tune(
        prompt, generator, texts, labels, config, seed=0, report=lambda done, total, figures: None
    )
    losses = [row["held_out_loss"] for row in tuned.rows]
    assert len(losses) < 61, "it should stop early"
    assert losses.index(min(losses)) == len(losses) - 3, "two epochs after the best one"
    assert tuned.after == min(losses)
    again = tune(
        prompt, generator, texts, labels, config.model_copy(update={"epochs": 0}), seed=0,
        report=lambda done, total, figures: None,
    )  # fmt: skip
    assert again.before == tuned.after, "the prompt that is left is that epoch's"


def test_accumulated_gradients_make_the_step_of_the_whole_batch(tiny_generator: Make) -> None:
    def tuned(batch_size: int, accumulate: int) -> torch.Tensor:
        generator = tiny_generator()
        texts, labels = examples(generator)
        assert len(set(map(len, texts))) > 2, "a mean of the parts' means would be another"
        prompt = name_prompt(generator, NAMES, shared=2, own=0)
        config = SoftPromptConfig(
            epochs=1, batch_size=batch_size, accumulate=accumulate, held_out=0.5, learning_rate=1e-3
        )
        tune(
            prompt, generator, texts, labels, config, seed=0,
            report=lambda done, total, figures: None,
        )  # fmt: skip
        return prompt.fixed()

    torch.testing.assert_close(tuned(9, 1), tuned(3, 3), rtol=0, atol=2e-5)


def test_relative_rates_grow_with_the_embeddings(tiny_generator: Make) -> None:
    start = name_prompt(tiny_generator("t5"), NAMES, shared=2, own=0).fixed()
    size = float(start.square().mean().sqrt())

    def rates(scale: float, relative: bool) -> list[float]:
        prompt = SoftPrompt(start[0, :2] * scale, start[:, 2:] * scale)
        return [group["lr"] for group in prompt.groups(0.2, 0.1, relative=relative)]

    assert rates(1.0, False) == rates(100.0, False) == [0.2, 0.1]
    assert rates(1.0, True) == pytest.approx([0.2 * size, 0.1 * size])
    assert rates(100.0, True) == pytest.approx([20 * size, 10 * size])


def test_a_relative_rate_is_the_absolute_one_that_it_comes_to(tiny_generator: Make) -> None:
    def tuned(rate: float, relative: bool) -> torch.Tensor:
        generator = tiny_generator("t5")
        texts, labels = examples(generator)
        prompt = name_prompt(generator, NAMES, shared=2, own=0)
        size = 1.0 if relative else float(prompt.fixed().square().mean().sqrt())
        config = SoftPromptConfig(
            epochs=2,
            learning_rate=rate * size,
            shared_learning_rate=rate * size,
            relative_rates=relative,
        )
        tune(
            prompt, generator, texts, labels, config, seed=0,
            report=lambda done, total, figures: None,
        )  # fmt: skip
        return prompt.fixed()

    torch.testing.assert_close(tuned(0.02, True), tuned(0.02, False))


def test_every_label_is_tuned_on_and_held_out() -> None:
    labels = [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    tuned, held_out = split_by_label(labels, 0.2, seed=3)
    assert sorted([*tuned, *held_out]) == list(range(len(labels)))
    assert sorted(labels[row] for row in held_out) == [0, 1, 2, 2]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_loads_the_file_and_gives_the_same_logits(
    tiny_generator: Make, tmp_path: Path, kind: str
) -> None:
    generator = tiny_generator(kind)
    torch.manual_seed(2)
    prompts = torch.randn(3, 5, generator.model.dimensions)
    save_prompts(prompts, NAMES, "tiny", tmp_path)
    ids = torch.randint(5, 30, (3, 6))
    ours = generator.model.score(prompts, torch.arange(3), ids).logits
    theirs = peft.PeftModel.from_pretrained(generator.model.model, tmp_path)(
        input_ids=ids, task_ids=torch.arange(3)
    ).logits
    torch.testing.assert_close(theirs[:, 4:-1], ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_loads_an_encoder_decoder_s_file_and_gives_the_same_logits_and_samples(
    tiny_generator: Make, tmp_path: Path, kind: str
) -> None:
    generator = tiny_generator(kind)
    torch.manual_seed(2)
    prompts = torch.randn(3, 5, generator.model.dimensions)
    save_prompts(prompts, NAMES, "tiny", tmp_path, task_type=generator.model.task_type)
    table = load_file(tmp_path / WEIGHTS)["prompt_embeddings"]
    assert table.shape == (5, generator.model.dimensions), "not twice the rows"
    ids = torch.randint(5, 30, (3, 6))
    ours = generator.model.score(prompts, torch.arange(3), ids).logits
    drawn = sample(
        generator.model, prompts, torch.arange(3), end=2, max_tokens=8,
        generator=torch.Generator(), temperature=0,
    )  # fmt: skip
    loaded = peft.PeftModel.from_pretrained(generator.model.model, tmp_path)
    assert isinstance(loaded, peft.PeftModelForSeq2SeqLM)
    nothing = torch.empty(3, 0, dtype=torch.long)
    theirs = loaded(input_ids=nothing, labels=ids, task_ids=torch.arange(3)).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    generated = loaded.generate(
        input_ids=nothing, task_ids=torch.arange(3), max_new_tokens=8, do_sample=False,
        forced_eos_token_id=None,
    )  # fmt: skip
    for row, length in enumerate(drawn.lengths.tolist()):
        assert generated[row, 1 : length + 1].tolist() == drawn.ids[row, :length].tolist()


def test_a_file_with_a_prompt_for_the_decoder_too_is_refused(tmp_path: Path) -> None:
    """PEFT's own default for encoder-decoders: twice the rows, the second half before the decoder."""
    save_prompts(torch.randn(3, 4, 8), NAMES, "tiny", tmp_path, task_type="SEQ_2_SEQ_LM")
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "num_transformer_submodules": 2}))
    with pytest.raises(IncompatibleArtifacts, match="decoder too"):
        load_prompts(tmp_path, NAMES)


def test_a_prompt_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    prompts = torch.randn(3, 4, 8)
    save_prompts(prompts, NAMES, "tiny", tmp_path)
    assert torch.equal(load_prompts(tmp_path, NAMES), prompts)


def test_a_prompt_for_other_labels_is_refused(tmp_path: Path) -> None:
    save_prompts(torch.randn(3, 4, 8), NAMES, "tiny", tmp_path)
    with pytest.raises(IncompatibleArtifacts, match="the weather"):
        load_prompts(tmp_path, ["colour", "animal", "traffic"])


def test_a_damaged_prompt_is_refused(tmp_path: Path) -> None:
    save_prompts(torch.randn(3, 4, 8), NAMES, "tiny", tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(CorruptArtifact, match=str(tmp_path)):
        load_prompts(tmp_path, NAMES)

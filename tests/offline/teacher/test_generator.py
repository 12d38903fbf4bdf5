"""The generator: framing texts, the miniature's warm start, loading any causal model."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from offline.tasks.prepared import Examples
from offline.teacher.encoder import load_encoder
from offline.teacher.framing import Framing, Sample
from offline.teacher.generator import (
    DESCRIPTION,
    SHARED_TOKENS,
    Generator,
    GeneratorConfig,
    describe_generator,
    load_generator,
)
from offline.teacher.miniature import make_miniature, save_miniature
from offline.teacher.prompted import PromptedModel
from offline.teacher.soft_prompt import name_prompt
from offline.teacher.warm_start import warm_start
from services.platform.errors import CorruptArtifact, InvalidConfig, ModelNotFound

Make = Callable[..., Generator]
NAMES = {"red": "red things", "blue": "blue things"}
TEXTS = [
    "I can't open the VPN-client (error 2.5)!",
    "what's wrong with my e-mail, please?",
    "Zyxwv: the printer says 'out of toner'.",
    "12,000 rows were lost at 3:45 pm; who/what did it?",
]


def small_start(texts: list[str]) -> tuple[torch.nn.Module, Framing]:
    model, tokenizer = warm_start(
        texts, encoder="all-MiniLM-L6-v2", tokens=600, layers=2, positions=64, dropout=0.1, seed=0
    )
    return model, Framing(tokenizer, pair=False)


@pytest.fixture(scope="module")
def started() -> tuple[torch.nn.Module, Framing]:
    return small_start(TEXTS)


def test_every_text_of_the_task_can_be_written(started: tuple[torch.nn.Module, Framing]) -> None:
    _, framing = started
    for text in TEXTS:
        sample = framing.decode(framing.encode(text))
        assert sample == Sample(text.lower(), None, True)


def test_an_unseen_word_is_spelt(started: tuple[torch.nn.Module, Framing]) -> None:
    _, framing = started
    assert framing.decode(framing.encode("qqjxk")).text == "qqjxk"


def test_the_warm_start_s_first_token_is_the_encoder_s(
    started: tuple[torch.nn.Module, Framing],
) -> None:
    """A causal mask changes nothing for the first token, nor does a head that starts as the identity."""
    model, framing = small_start(TEXTS)
    source = load_encoder()
    token = framing.tokenizer.convert_tokens_to_ids("printer")
    theirs = source.tokenizer.convert_tokens_to_ids("printer")
    encoder = source.model.encoder.layer[:2]
    hidden = source.model.embeddings(torch.tensor([[theirs]]))
    for layer in encoder:
        hidden = layer(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    model.train(False)
    with torch.no_grad():
        output = model(input_ids=torch.tensor([[token]]), output_hidden_states=True)
        transformed = model.cls.predictions.transform(output.hidden_states[-1])
    torch.testing.assert_close(output.hidden_states[-1], hidden.detach(), rtol=1e-4, atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(
        transformed, hidden - hidden.mean(-1, keepdim=True), dim=-1
    )
    assert float(cosine.detach()) > 0.99


def test_a_vocabulary_is_filled_up_with_neighbours(
    started: tuple[torch.nn.Module, Framing],
) -> None:
    _, framing = started
    vocabulary = framing.tokenizer.get_vocab()
    assert len(vocabulary) == 600
    assert sorted(vocabulary.values()) == list(range(600))
    assert {"printers", "mail"} <= set(vocabulary), "near to `printer` and `e-mail`"


def test_only_a_bert_can_be_started_from(tiny_directory: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidConfig, match=r"'gpt2'.*generator\.model"):
        warm_start(
            TEXTS, encoder=str(tiny_directory("gpt2")), tokens=500, layers=2, positions=64,
            dropout=0.0, seed=0,
        )  # fmt: skip


def miniature(seed: int, directory: Path, epochs: int = 2) -> dict[str, object]:
    texts = ["the red car", "red roses and red wine", "blue whales", "the blue sky is blue"]
    config = GeneratorConfig(
        layers=1,
        vocabulary=500,
        epochs=epochs,
        batch_size=2,
        max_tokens=16,
        precision="float32",
        learning_rate=2e-3,
    )
    made = make_miniature(
        Examples(texts, None, ["red", "red", "blue", "blue"]),
        Examples(["grey cats", "no colour at all"], None, None),
        NAMES,
        config,
        pair=False,
        seed=seed,
        report=lambda done, total, figures: None,
    )
    save_miniature(made, directory, "float32")
    found = describe_generator(config, pair=False, names=list(NAMES.values()), directory=directory)
    (directory / DESCRIPTION).write_text(json.dumps(found))
    return {**found, "loss": made.loss, "steps": made.steps}


def test_the_miniature_learns_its_texts_and_comes_back_frozen(tmp_path: Path) -> None:
    short = miniature(0, tmp_path, epochs=1)
    long = miniature(0, tmp_path, epochs=20)
    assert long["loss"] < short["loss"] - 1.0
    assert long["steps"] == 20 * 3
    generator = load_generator(tmp_path)
    assert not any(tensor.requires_grad for tensor in generator.model.model.parameters())
    assert generator.identity == long["identity"]
    assert generator.parameters == long["parameters"]
    text = generator.framing.encode("blue whales")
    texts = torch.tensor([text, text])
    prompts = generator.model.embed(
        torch.tensor(
            [generator.framing.name(name, generator.name_width) for name in NAMES.values()]
        )
    )
    scored = generator.model.score(prompts, torch.arange(2), texts).logits.log_softmax(-1)
    red, blue = scored.gather(-1, texts.unsqueeze(-1)).sum((1, 2)).tolist()
    assert blue > red + 0.3, "the text was learnt behind its own label's words"


def test_the_same_seed_makes_the_same_miniature_to_the_last_bit(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("first", "again", "other")]
    for directory, seed in zip(directories, (0, 0, 1), strict=True):
        directory.mkdir()
        miniature(seed, directory)
    first, again, other = (
        (directory / "model" / "model.safetensors").read_bytes() for directory in directories
    )
    assert first == again
    assert first != other


def test_the_miniature_has_room_for_names_of_which_a_character_is_several_tokens(
    tmp_path: Path,
) -> None:
    names = {"red": "빨간색 물건들", "blue": "blue"}
    config = GeneratorConfig(layers=1, vocabulary=500, epochs=1, max_tokens=8, precision="float32")
    made = make_miniature(
        Examples(["the red car drives on and on and on", "blue whales"], None, ["red", "blue"]),
        Examples([], None, None),
        names,
        config,
        pair=False,
        seed=0,
        report=lambda done, total, figures: None,
    )
    save_miniature(made, tmp_path, "float32")
    told = describe_generator(config, pair=False, names=list(names.values()), directory=tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps(told))
    generator = load_generator(tmp_path)
    name = generator.framing.ids(names["red"])
    assert len(name) > len(names["red"]) + 2, "its letters are tokens"
    prompt = name_prompt(generator, list(names.values()), shared=SHARED_TOKENS, own=0).fixed()
    longest = torch.tensor([name[:1] * generator.max_tokens])
    scored = generator.model.score(prompt, torch.tensor([0]), longest)
    assert scored.logits.shape[1] == generator.max_tokens


def test_the_miniature_has_room_for_virtual_tokens_beyond_its_names(tmp_path: Path) -> None:
    miniature(0, tmp_path, epochs=1)
    generator = load_generator(tmp_path)
    prompt = name_prompt(generator, list(NAMES.values()), shared=SHARED_TOKENS, own=32).fixed()
    text = torch.tensor([generator.framing.encode("red")[:1] * generator.max_tokens])
    assert generator.model.score(prompt, torch.tensor([0]), text).logits.isfinite().all()
    with pytest.raises(InvalidConfig, match="positions"):
        name_prompt(generator, list(NAMES.values()), shared=SHARED_TOKENS, own=40)


def test_a_model_directory_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    config = GeneratorConfig(model=str(tmp_path / "no-such-model"))
    started = time.monotonic()
    with pytest.raises(ModelNotFound, match="no-such-model does not exist"):
        describe_generator(config, pair=False, names=["a"], directory=tmp_path)
    assert time.monotonic() - started < 5


def test_a_model_with_pickled_weights_alone_is_refused(
    tmp_path: Path, tiny_directory: Callable[[str], Path]
) -> None:
    directory = tiny_directory("gpt2")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    config = GeneratorConfig(model=str(directory))
    with pytest.raises(ModelNotFound, match="no safetensors"):
        describe_generator(config, pair=False, names=["a"], directory=tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "of_the_next_century"}'),
        ("model.safetensors", b"damaged"),
    ],
)
def test_damaged_files_of_a_model_are_an_error_that_names_it(
    tmp_path: Path, tiny_directory: Callable[[str], Path], file: str, content: bytes
) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(tiny_directory("gpt2"), directory)
    (directory / file).write_bytes(content)
    config = GeneratorConfig(model=str(directory))
    with pytest.raises(ModelNotFound, match="damaged cannot be loaded"):
        describe_generator(config, pair=False, names=["a"], directory=tmp_path)


def test_an_encoder_is_no_generator(tmp_path: Path, tiny_directory: Callable[[str], Path]) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=40, dim=16, hidden_dim=16, n_layers=1, n_heads=2)
    DistilBertModel(config).save_pretrained(tmp_path / "encoder")
    for file in tiny_directory("gpt2").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "encoder")
    named = GeneratorConfig(model=str(tmp_path / "encoder"))
    with pytest.raises(InvalidConfig, match="no language model that writes text"):
        describe_generator(named, pair=False, names=["a"], directory=tmp_path)


def test_prompt_and_sample_must_fit_into_the_model(
    tmp_path: Path, tiny_directory: Callable[[str], Path]
) -> None:
    config = GeneratorConfig(model=str(tiny_directory("gpt2")), max_tokens=60)
    with pytest.raises(InvalidConfig, match=r"64\s+positions.*max_tokens"):
        describe_generator(config, pair=False, names=["red"], directory=tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_model_that_is_spread_says_the_same(
    tmp_path: Path, tiny_directory: Callable[[str], Path], kind: str
) -> None:
    """Over whatever there is: here, the one processor."""
    scores = []
    for device in ("cpu", "auto"):
        directory = tmp_path / device
        directory.mkdir()
        config = GeneratorConfig(
            model=str(tiny_directory(kind)), device=device, precision="float32", max_tokens=12
        )
        told = describe_generator(config, pair=False, names=["red"], directory=directory)
        (directory / DESCRIPTION).write_text(json.dumps(told))
        model = load_generator(directory).model
        prompts = model.embed(torch.tensor([[5, 6], [7, 8]]))
        scores.append(model.score(prompts, torch.tensor([1, 0, 1]), torch.tensor([[9, 10]] * 3)))
    torch.testing.assert_close(scores[0].logits, scores[1].logits)


def test_the_miniature_is_not_spread() -> None:
    with pytest.raises(ValueError, match="device: auto spreads a model that is named"):
        GeneratorConfig(device="auto")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_model_in_half_precision_scores_in_float32_and_trains_a_float32_prompt(
    tmp_path: Path, tiny_directory: Callable[[str], Path], kind: str, precision: str
) -> None:
    config = GeneratorConfig(model=str(tiny_directory(kind)), precision=precision, max_tokens=8)
    found = describe_generator(config, pair=False, names=["red"], directory=tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps(found))
    model = load_generator(tmp_path).model
    assert model.dtype == getattr(torch, precision)
    prompts = model.embed(torch.tensor([[5, 6, 7], [8, 9, 10]])).requires_grad_()
    rows, ids = torch.tensor([0, 1, 1]), torch.randint(5, 30, (3, 6))
    scored = model.score(prompts, rows, ids)
    assert scored.logits.dtype == scored.hidden.dtype == torch.float32
    (gradient,) = torch.autograd.grad(scored.logits.log_softmax(-1).square().mean(), prompts)
    assert gradient.dtype == torch.float32
    assert bool(gradient.abs().sum() > 0)
    exact = load_exactly(tiny_directory, kind, tmp_path / "exact")
    expected = exact.score(prompts.detach(), rows, ids).logits
    assert (
        float((scored.logits - expected).detach().abs().max())
        < 0.05 * float(expected.abs().max()) + 0.05
    )


def load_exactly(directory: Callable[[str], Path], kind: str, where: Path) -> PromptedModel:
    where.mkdir()
    config = GeneratorConfig(model=str(directory(kind)), precision="float32", max_tokens=8)
    found = describe_generator(config, pair=False, names=["red"], directory=where)
    (where / DESCRIPTION).write_text(json.dumps(found))
    return load_generator(where).model


def test_a_decoder_that_names_no_start_is_refused(
    tmp_path: Path, tiny_directory: Callable[[str], Path]
) -> None:
    directory = tiny_directory("bart")
    for name in ("config.json", "generation_config.json"):
        told = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({**told, "decoder_start_token_id": None}))
    config = GeneratorConfig(model=str(directory), max_tokens=8)
    with pytest.raises(InvalidConfig, match="decoder_start_token_id"):
        describe_generator(config, pair=False, names=["red"], directory=tmp_path)


@pytest.mark.parametrize(("kind", "fits"), [("bart", False), ("t5", True)])
def test_an_encoder_decoder_needs_room_for_the_longer_of_prompt_and_sample(
    tmp_path: Path, tiny_directory: Callable[[str], Path], kind: str, fits: bool
) -> None:
    model = str(tiny_directory(kind))

    def describe(max_tokens: int) -> None:
        config = GeneratorConfig(model=model, max_tokens=max_tokens)
        describe_generator(config, pair=False, names=["red"], directory=tmp_path)

    describe(63)
    if fits:
        describe(500)
    else:
        with pytest.raises(InvalidConfig, match="64 positions"):
            describe(64)


def test_a_stage_without_its_files_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=DESCRIPTION):
        load_generator(tmp_path)

"""Sequence classifiers as labellers: tuned fully, by LoRA, or used as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from offline.teacher.classifier import ClassifierConfig, columns_of
from offline.teacher.classifier_files import (
    ADAPTER,
    FILES,
    classifier_identity,
    load_classifier,
    save_classifier,
)
from offline.teacher.classifier_tuning import fit_classifier
from offline.teacher.text_scorer import LabelledRows
from services.platform.errors import CorruptArtifact, InvalidConfig

Find = Callable[[str], Path]
LABELS = {"colour": "colour", "animal": "animal"}
TEXTS = (
    "red sky",
    "blue sea",
    "green grass",
    "red sun",
    "dog runs",
    "old cat",
    "bird sings",
    "big dog",
)
GOLD = np.array([0, 0, 0, 0, 1, 1, 1, 1])
NEW = ["blue sky", "a very old dog", "the moon"]


def labelled(pairs: list[str] | None = None) -> LabelledRows:
    return LabelledRows(TEXTS, pairs, GOLD, TEXTS)


def fitted(config: ClassifierConfig, rows: LabelledRows | None = None, seed: int = 0) -> Any:
    return fit_classifier(
        rows or labelled(), LABELS, config, seed=seed, progress=lambda done, total: None
    )


def tuned(directory: Path, tuning: str, **settings: Any) -> ClassifierConfig:
    rate = {"full": 3e-3, "lora": 3e-2}[tuning]
    return ClassifierConfig.model_validate(
        {
            "model": str(directory), "tuning": tuning, "epochs": 12, "batch_size": 4,
            "learning_rate": rate, **settings,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "tuning"), [("bert", "full"), ("bert", "lora"), ("gpt2", "lora"), ("t5", "lora")]
)
def test_a_tuned_classifier_knows_its_rows_and_comes_back_to_the_bit(
    reading_directory: Find, tmp_path: Path, kind: str, tuning: str
) -> None:
    config = tuned(reading_directory(kind), tuning)
    classifier = fitted(config)
    assert (classifier.scores(TEXTS).argmax(1) == GOLD).mean() >= 0.75
    save_classifier(classifier, tmp_path)
    state = torch.get_rng_state()
    again = load_classifier(tmp_path, list(LABELS), classifier.columns, config)
    assert torch.equal(torch.get_rng_state(), state), "loading draws from nobody's source"
    assert np.array_equal(again.scores(NEW), classifier.scores(NEW))
    assert again.parameters == classifier.parameters
    assert classifier_identity(again, 1.0) == classifier_identity(classifier, 1.0)
    written = {path.suffix for path in (tmp_path / FILES).iterdir()}
    assert written == {".json", ".safetensors"}


def test_the_same_seed_tunes_the_same_classifier_and_another_one_another(
    reading_directory: Find,
) -> None:
    config = tuned(reading_directory("bert"), "full", epochs=1)
    first, again, other = (fitted(config, seed=seed).scores(NEW) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_lora_keeps_the_weights_frozen_and_writes_its_own_alone(
    reading_directory: Find, tmp_path: Path
) -> None:
    directory = reading_directory("bert")
    classifier = fitted(tuned(directory, "lora", epochs=2))
    before = load_file(directory / "model.safetensors")
    inside = dict(classifier.model.named_parameters())
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(inside[f"base_model.model.{name}"], before[name])
    save_classifier(classifier, tmp_path)
    kept = load_file(tmp_path / FILES / ADAPTER)
    # The pooler is not in the files of a masked language model: it begins with random weights, too.
    assert {part for key in kept for part in ("lora", "classifier", "pooler") if part in key} == {
        "lora", "classifier", "pooler",
    }  # fmt: skip
    assert not any("intermediate" in key for key in kept)
    assert not (tmp_path / FILES / "README.md").exists()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_both_texts_of_a_pair_count_and_so_does_their_order(
    reading_directory: Find, kind: str
) -> None:
    rows = labelled(list(TEXTS[::-1]))
    classifier = fitted(tuned(reading_directory(kind), "lora", epochs=1), rows)
    there, back, single = (
        classifier.scores(*sides)
        for sides in ((["red"], ["old cat"]), (["old cat"], ["red"]), (["red"],))
    )
    assert np.abs(there - back).max() > 1e-4
    assert np.abs(there - single).max() > 1e-4


def test_a_text_s_scores_do_not_hang_on_its_batch(reading_directory: Find) -> None:
    for kind in ("bert", "gpt2", "t5"):
        classifier = fitted(tuned(reading_directory(kind), "full", epochs=1))
        alone = np.concatenate([classifier.scores([text]) for text in NEW])
        assert np.allclose(classifier.scores(NEW), alone, atol=1e-4)


def given_classifier(source: Path, directory: Path, names: dict[int, str]) -> ClassifierConfig:
    torch.manual_seed(0)
    settings = BertConfig.from_pretrained(source, num_labels=len(names), id2label=names)
    BertForSequenceClassification(settings).save_pretrained(directory)
    for path in source.glob("*token*"):
        (directory / path.name).write_bytes(path.read_bytes())
    return ClassifierConfig(model=str(directory), tuning="none")


def test_a_classifier_as_it_is_gives_its_outputs_in_the_task_s_order(
    reading_directory: Find, tmp_path: Path
) -> None:
    names = {0: "Animal", 1: "WEATHER", 2: "COLOUR"}
    config = given_classifier(reading_directory("bert"), tmp_path, names)
    classifier = fitted(config)
    assert classifier.columns == (2, 0)
    everything = fit_classifier(
        labelled(),
        {name: name for name in ("animal", "weather", "colour")},
        config,
        seed=0,
        progress=lambda done, total: None,
    )
    assert np.array_equal(classifier.scores(NEW), everything.scores(NEW)[:, [2, 0]])


def test_a_classifier_for_other_labels_is_refused_with_what_it_has(
    reading_directory: Find, tmp_path: Path
) -> None:
    config = given_classifier(reading_directory("bert"), tmp_path, {0: "joy", 1: "colour"})
    with pytest.raises(InvalidConfig, match=r"lacks animal, and has joy, colour.*tuning to full"):
        fitted(config)


def test_a_model_without_a_head_is_no_classifier_as_it_is(reading_directory: Find) -> None:
    directory = reading_directory("bert")
    with pytest.raises(InvalidConfig, match=r"no trained classifier: it has no .*classifier\.bias"):
        fitted(ClassifierConfig(model=str(directory), tuning="none"))


def test_layers_that_lora_does_not_find_are_told(reading_directory: Find) -> None:
    config = tuned(reading_directory("bert"), "lora", lora_targets=("no_such_layer",))
    with pytest.raises(InvalidConfig, match="lora_targets"):
        fitted(config)


def test_a_tuned_classifier_that_is_gone_is_told(reading_directory: Find, tmp_path: Path) -> None:
    for tuning in ("full", "lora"):
        config = tuned(reading_directory("bert"), tuning)
        with pytest.raises(CorruptArtifact, match="holds no tuned classifier"):
            load_classifier(tmp_path, list(LABELS), (0, 1), config)


SMALLEST = {
    "hidden_size": 8,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "vocab_size": 16,
}


@pytest.mark.parametrize(
    ("outputs", "labels", "columns"),
    [
        ({0: "C#", 1: "C++", 2: "C"}, ("C", "C++", "C#"), [2, 1, 0]),
        ({0: "no weather", 1: "Weather"}, ("weather", "no_weather"), [1, 0]),
    ],
)
def test_names_that_differ_in_signs_alone_are_told_apart(
    outputs: dict[int, str], labels: tuple[str, ...], columns: list[int]
) -> None:
    model = BertForSequenceClassification(BertConfig(**SMALLEST, id2label=outputs))
    assert (
        columns_of(model, {name: name for name in labels}, ClassifierConfig(model="here"))
        == columns
    )


def test_two_labels_on_one_output_are_refused() -> None:
    model = BertForSequenceClassification(BertConfig(**SMALLEST, id2label={0: "c", 1: "other"}))
    with pytest.raises(InvalidConfig, match=r"C and C\+\+ are both taken for the output 'c'"):
        columns_of(model, {"C": "C", "C++": "C++"}, ClassifierConfig(model="here"))

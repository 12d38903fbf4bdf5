"""A language model asked for labels' words, causal and encoder-decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from offline.teacher.calibration import softmax
from offline.teacher.template import Template
from offline.teacher.text_scorer import LabelledRows
from offline.teacher.verbaliser import (
    CONTENT_FREE,
    Verbaliser,
    fit_verbaliser,
    load_for_verbaliser,
    verbaliser_identity,
)
from offline.teacher.verbaliser_config import VerbaliserConfig
from services.platform.errors import InvalidConfig

Find = Callable[[str], Path]
LABELS = {"colour": "colour", "animal": "animal"}
TEXTS = ["red sky", "blue sea", "green grass", "dog runs", "old cat", "bird sings"]
GOLD = np.array([0, 0, 0, 1, 1, 1])
WORDS = {"colour": "red sky", "animal": "a very big dog"}
NEW = ["red sun", "the cat sleeps", "moon", "blue sky"]
PLAIN = {"template": "the {text} is :", "length_normalised": False, "contextual": False}


def verbaliser(
    directory: Path, *, pair: bool = False, seed: int = 0, **settings: Any
) -> Verbaliser:
    config = VerbaliserConfig.model_validate(
        {"model": str(directory), "precision": "float32", **settings}
    )
    rows = LabelledRows(TEXTS, TEXTS[::-1] if pair else None, GOLD, TEXTS)
    return fit_verbaliser(load_for_verbaliser(config), rows, LABELS, config, seed=seed)


def by_hand(directory: Path, kind: str, read: str, words: str) -> float:
    """Log-probability of the words behind what is read, in one pass without anything kept."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    target = tokenizer(words, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        if kind == "t5":
            model = AutoModelForSeq2SeqLM.from_pretrained(directory)
            logits = model(
                input_ids=tokenizer(read, return_tensors="pt")["input_ids"],
                decoder_input_ids=torch.tensor([[0, *target[:-1]]]),
            ).logits[0]
        else:
            model = AutoModelForCausalLM.from_pretrained(directory)
            before = tokenizer(read)["input_ids"]
            ids = torch.tensor([[*before, *target]])
            logits = model(input_ids=ids).logits[0, len(before) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    return float(logprobs[torch.arange(len(target)), torch.tensor(target)].sum())


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_scores_are_the_log_probabilities_of_the_words_behind_the_template(
    reading_directory: Find, kind: str
) -> None:
    directory = reading_directory(kind)
    found = verbaliser(directory, words=WORDS, **PLAIN).scores(NEW)
    expected = [
        [by_hand(directory, kind, f"the {text} is :", words) for words in WORDS.values()]
        for text in NEW
    ]
    assert np.allclose(found, expected, atol=1e-3)
    normalised = verbaliser(directory, words=WORDS, **{**PLAIN, "length_normalised": True})
    assert np.allclose(normalised.scores(NEW), np.array(expected) / [2, 4], atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_labels_of_one_token_need_no_second_reading_and_score_the_same(
    reading_directory: Find, kind: str
) -> None:
    directory = reading_directory(kind)
    found = verbaliser(directory, **PLAIN).scores(NEW)
    expected = [
        [by_hand(directory, kind, f"the {text} is :", words) for words in LABELS] for text in NEW
    ]
    assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_text_s_scores_do_not_hang_on_its_batch(reading_directory: Find, kind: str) -> None:
    asked = verbaliser(reading_directory(kind), words=WORDS)
    alone = np.concatenate([asked.scores([text]) for text in NEW])
    assert np.allclose(asked.scores(NEW), alone, atol=1e-4)
    told: list[tuple[int, int]] = []
    asked.scores(NEW, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)


def test_texts_without_content_favour_no_label(reading_directory: Find) -> None:
    directory = reading_directory("gpt2")
    blank = list(CONTENT_FREE)
    plain = verbaliser(directory, contextual=False)
    raw = softmax(plain.scores(blank).astype(np.float64)).mean(0)
    assert abs(raw[0] - 0.5) > 0.02
    calibrated = verbaliser(directory)
    corrected = softmax(calibrated.scores(blank).astype(np.float64) + np.log(raw))
    assert np.allclose(corrected.mean(0), raw, atol=1e-5)
    assert np.allclose(plain.scores(NEW) - calibrated.scores(NEW), np.log(raw), atol=1e-5)


def test_examples_stand_before_the_text_the_same_number_of_each_label(
    reading_directory: Find,
) -> None:
    directory = reading_directory("gpt2")
    config = {"template": "{text} is", "shots": 2}
    shown, again = (verbaliser(directory, **config).asked.examples for _ in range(2))
    assert shown == again
    assert [sum(label == of for *_, label in shown) for of in (0, 1)] == [2, 2]
    assert all(TEXTS.index(text) in np.flatnonzero(label == GOLD) for text, _, label in shown)
    first, other = (verbaliser(directory, seed=seed, **config) for seed in (0, 5))
    assert np.abs(first.scores(NEW) - other.scores(NEW)).max() > 1e-4
    assert verbaliser_identity(first, 1.0) != verbaliser_identity(other, 1.0)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_both_texts_of_a_pair_count(reading_directory: Find, kind: str) -> None:
    asked = verbaliser(reading_directory(kind), pair=True, shots=1)
    there, back = asked.scores(["red sky"], ["old cat"]), asked.scores(["old cat"], ["red sky"])
    assert np.abs(there - back).max() > 1e-4


def test_long_texts_are_cut_and_the_template_stays(reading_directory: Find) -> None:
    asked = verbaliser(reading_directory("gpt2"), max_tokens=4)
    first, second = "red sky the sun", "red sky the sun and the old moon"
    assert np.array_equal(asked.scores([first]), asked.scores([second]))
    assert not np.array_equal(asked.scores([first]), asked.scores(["red sky the sea"]))


def test_an_empty_text_behind_a_bare_template_gets_scores(reading_directory: Find) -> None:
    for kind in ("gpt2", "t5"):
        asked = verbaliser(reading_directory(kind), template="{text}")
        assert np.isfinite(asked.scores(["", "red"])).all()
        assert asked.scores([]).shape == (0, 2)


def test_a_text_that_finds_no_room_is_told(reading_directory: Find) -> None:
    asked = verbaliser(reading_directory("gpt2"), max_tokens=100)
    with pytest.raises(InvalidConfig, match=r"64\s+positions.*max_tokens"):
        asked.scores(["red " * 80])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": {"colour": "animal"}}, r"same tokens as 'animal' has.*words"),
        ({"words": {"color": "red"}}, r"names 'color', which is no label.*colour, animal"),
        ({"template": "is it?"}, r"lacks \{text\}"),
        ({"template": "{text} {pair}:"}, r"unknown \{pair\}.*holds \{text\}"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    reading_directory: Find, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        verbaliser(reading_directory("gpt2"), **settings)


def test_a_model_that_writes_nothing_is_refused(reading_directory: Find, tmp_path: Path) -> None:
    for path in reading_directory("bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = (tmp_path / "config.json").read_text().replace('"bert"', '"vit"')
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(InvalidConfig, match="no language model that writes text"):
        load_for_verbaliser(VerbaliserConfig(model=str(tmp_path), precision="float32"))


def test_texts_cannot_break_the_template() -> None:
    template = Template.of("{labels}: {text} {pair} end:", ["a", "b"], pair=True, asks=False)
    assert template("one\n\ntwo {pair}", "{labels}") == "a, b: one two {pair} {labels} end:"
    assert template.tail == " end:"
    listed = Template.of(None, ["a", "b"], pair=False, asks=True)
    assert listed("x", None).startswith("Which category does the text belong to: a, b?")

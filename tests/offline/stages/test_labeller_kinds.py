"""The stage `labeller` with every kind of labeller, on tiny models with random weights."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from offline.configs.loading import load_config
from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.stages import labeller as stage
from offline.stages import prepare
from offline.tasks.config import TaskConfig
from offline.teacher.classifier_files import classifier_identity
from offline.teacher.labeller import (
    LabellerConfig,
    load_cross_fitted,
    load_judge,
    load_labeller,
)
from offline.teacher.verbaliser import verbaliser_identity
from services.platform.errors import InvalidConfig, ModelNotFound

Find = Callable[[str], Path]
TEXTS = {
    "colour": ("red sky", "blue sea", "green grass", "red sun", "blue moon", "green sea"),
    "animal": ("dog runs", "old cat", "bird sings", "big dog", "the cat sleeps", "a small bird"),
}
NEW = ["the red rain", "a new dog", "big bird"]
OTHER = ["dog", "sun", "sky"]


def config(find: Find, **settings: Any) -> LabellerConfig:
    return LabellerConfig.model_validate(
        {
            "encoder": {"model": str(find("bert")), "pooling": "mean"},
            "strengths": (1.0,),
            "folds": 2,
            "judge": {"word_features": 16, "character_features": 16},
            **settings,
        }
    )


def classifier(find: Find, kind: str, tuning: str, **settings: Any) -> LabellerConfig:
    own = {"model": str(find(kind)), "tuning": tuning, "epochs": 1, "batch_size": 4, **settings}
    return config(find, kind="classifier", classifier=own)


def verbaliser(find: Find, kind: str, **settings: Any) -> LabellerConfig:
    own = {"model": str(find(kind)), "precision": "float32", **settings}
    return config(find, kind="verbaliser", verbaliser=own)


def run(
    root: Path,
    settings: LabellerConfig,
    *,
    pair: bool = False,
    texts_of: Mapping[str, Sequence[str]] = TEXTS,
) -> tuple[Path, dict[str, Any]]:
    """The directory of the stage and its metrics."""
    rows = [
        {"text": text, "label": label, **({"text_pair": text[::-1]} if pair else {})}
        for label, texts in texts_of.items()
        for text in texts
    ]
    root.mkdir(exist_ok=True)
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    new = [{"text": "the moon", "text_pair": "x", "label": "colour"}]
    (root / "test.jsonl").write_text("\n".join(map(json.dumps, new)))
    task = {
        "name": "words",
        "labels": list(TEXTS),
        "data": {"directory": root, "train": "train.jsonl", "test": "test.jsonl"},
        "fields": {"text_pair": "text_pair"} if pair else {},
    }
    prepared, directory = root / "prepare", root / "labeller"
    for path in (prepared, directory):
        path.mkdir()
    quiet = StageContext(prepared, 0, lambda *_: None)
    prepare.run({}, TaskConfig.model_validate(task), quiet)
    metrics = stage.run(
        {"prepare": prepared}, settings, StageContext(directory, 0, lambda *_: None)
    )
    return directory, metrics


MAKES: dict[str, Callable[[Find], LabellerConfig]] = {
    "BERT, all weights": lambda find: classifier(find, "bert", "full"),
    "GPT-2, LoRA": lambda find: classifier(find, "gpt2", "lora"),
    "T5, LoRA": lambda find: classifier(find, "t5", "lora"),
    "GPT-2, asked": lambda find: verbaliser(find, "gpt2", shots=1),
    "T5, asked": lambda find: verbaliser(find, "t5"),
}


@pytest.mark.parametrize(
    ("name", "pair"),
    [*((name, False) for name in MAKES), ("BERT, all weights", True), ("T5, asked", True)],
)
def test_every_kind_is_measured_calibrated_and_comes_back(
    reading_directory: Find, tmp_path: Path, name: str, pair: bool
) -> None:
    settings = MAKES[name](reading_directory)
    directory, metrics = run(tmp_path, settings, pair=pair)
    found = json.loads((directory / "labeller.json").read_text())
    assert found["kind"] == settings.kind
    assert {"accuracy", "nll", "ece"} <= found["cross_fitted"].keys()
    assert metrics["nll"] == found["cross_fitted"]["nll"]
    assert load_cross_fitted(directory).shape == (12, 2)

    labeller, judge = load_labeller(directory), load_judge(directory)
    pairs = OTHER if pair else None
    soft = labeller.soft_labels(NEW, pairs)
    assert soft.dtype == np.float32
    assert np.allclose(soft.sum(1), 1, atol=1e-5)
    assert np.array_equal(load_labeller(directory).soft_labels(NEW, pairs), soft)
    # What was fitted is what was loaded: the name is a hash of it.
    model = labeller.scorer.model  # type: ignore[attr-defined]
    names = {"classifier": classifier_identity, "verbaliser": verbaliser_identity}
    assert names[settings.kind](model, found["temperature"]) == labeller.identity
    assert metrics["parameters"] == labeller.parameters == model.parameters
    # Embeddings are the encoder's, whatever scores.
    assert np.array_equal(labeller.embed(NEW, pairs), judge.embed(NEW, pairs))
    assert np.array_equal(
        labeller.soft_labels(NEW, pairs, embeddings=judge.embed(NEW, pairs)), soft
    )


@pytest.mark.parametrize("name", ["GPT-2, LoRA", "GPT-2, asked"])
def test_every_kind_writes_the_same_bytes_again_and_nothing_pickled(
    reading_directory: Find, tmp_path: Path, name: str
) -> None:
    settings = MAKES[name](reading_directory)
    first, again = (hash_files(run(tmp_path / part, settings)[0]) for part in ("one", "two"))
    assert first == again
    assert {Path(path).suffix for path in first} == {".json", ".safetensors"}


def test_a_model_that_is_not_there_fails_before_anything_is_read(
    reading_directory: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for settings in (
        classifier(reading_directory, "bert", "full", model="someone/no-such-classifier"),
        verbaliser(reading_directory, "gpt2", model="someone/no-such-model"),
    ):
        started = time.monotonic()
        with pytest.raises(
            ModelNotFound, match=r"(?s)someone/no-such.*local cache.*name that directory"
        ):
            stage.run({}, settings, StageContext(tmp_path, 0, lambda *_: None))
        assert time.monotonic() - started < 30


def test_a_labeller_that_knows_nothing_is_told(reading_directory: Find, tmp_path: Path) -> None:
    # The same texts of both labels: whatever is said of one is right half of the time.
    same = dict.fromkeys(TEXTS, TEXTS["animal"])
    with capture_logs() as logs:
        _, metrics = run(tmp_path, verbaliser(reading_directory, "gpt2"), texts_of=same)
    assert metrics["accuracy"] == 0.5
    (told,) = [entry for entry in logs if entry["event"] == "labeller_knows_nothing"]
    assert told["most_frequent"] == 0.5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("kind: verbaliser", "kind 'verbaliser' needs a section verbaliser"),
        ("kind: classifier", r"`classifier: \{model: …\}`"),
        ("verbaliser: {model: gpt2}", "kind is 'encoder': set kind: verbaliser"),
        ("kind: head", "'encoder', 'classifier' or 'verbaliser', given 'head'"),
        ("classifyer: {model: x}", "unknown key 'classifyer'. Did you mean 'classifier'"),
        (
            "kind: classifier\nclassifier: {model: x, tunning: lora}",
            r"unknown key 'classifier\.tunning'. Did you mean 'tuning'",
        ),
    ],
)
def test_what_a_section_lacks_is_told(tmp_path: Path, section: str, message: str) -> None:
    path = tmp_path / "labeller.yaml"
    path.write_text(section)
    with pytest.raises(InvalidConfig, match=message):
        load_config(LabellerConfig, path)

"""The stages that write samples, one after the other: generator, soft prompt, PPO, generate."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.stages import comparison, generate, generator, labeller, ppo, soft_prompt
from offline.tasks.examples import SCHEMA, write_examples
from offline.teacher.generation import GenerateConfig, left_out_of
from offline.teacher.generator import GeneratorConfig, load_generator
from offline.teacher.labeller import LabellerConfig
from offline.teacher.ppo import PPOConfig
from offline.teacher.soft_prompt import SoftPromptConfig
from services.platform.errors import ModelNotFound

LABELS = {"colour": "colour", "animal": "animal"}
TEXTS = {
    "colour": ["red sky", "the sea is blue", "green grass", "a very red sun", "blue rain", "blue"],
    "animal": ["the dog runs", "a cat sleeps", "the bird sings", "big dog", "old cat", "new bird"],
}
QUICK = PPOConfig(
    steps=2,
    batch_size=8,
    minibatch_size=8,
    memory=8,
    evaluate_every=1,
    evaluation_samples=8,
    comparison_samples=16,
)


def prepared(directory: Path, *, pair: bool) -> Path:
    """What the stage `prepare` leaves."""
    directory.mkdir()
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    table = pa.table(
        {
            "text": [text for text, _ in rows],
            "text_pair": ["the moon" if pair else None for _ in rows],
            "label": [label for _, label in rows],
        },
        SCHEMA,
    )
    for split in ("train", "judge"):
        write_examples(table, directory / f"{split}.parquet")
    for split in ("validation", "unlabelled"):
        write_examples(SCHEMA.empty_table(), directory / f"{split}.parquet")
    description = {"name": "toy", "labels": LABELS, "pair": pair}
    (directory / "task.json").write_text(json.dumps(description))
    return directory


def run_all(root: Path, model: Path | None, *, pair: bool = False, seed: int = 0) -> dict[str, Any]:
    """Every stage's directory and metrics, by its name."""
    root.mkdir()
    done: dict[str, Path] = {"prepare": prepared(root / "prepare", pair=pair)}
    metrics: dict[str, Any] = {}
    sections = {
        "labeller": (labeller, LabellerConfig(strengths=(1.0,), folds=2)),
        "generator": (
            generator,
            GeneratorConfig(
                model=None if model is None else str(model),
                precision="float32",
                max_tokens=12,
                layers=1,
                vocabulary=500,
                epochs=2,
            ),
        ),
        "soft_prompt": (soft_prompt, SoftPromptConfig(epochs=2)),
        "ppo": (ppo, QUICK),
        "comparison": (comparison, QUICK),
        "generate": (generate, GenerateConfig(samples=40, shard_size=16)),
    }
    for name, (stage, config) in sections.items():
        directory = root / name
        directory.mkdir()
        context = StageContext(directory, seed, lambda done, total, figures: None)
        metrics[name] = stage.run(done, config, context)
        done[name] = directory
    return {"metrics": metrics, **done}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "t5", "bart"])
def test_any_model_goes_the_whole_way(
    tmp_path: Path, tiny_directory: Callable[[str], Path], kind: str
) -> None:
    model = tiny_directory(kind)
    before = hash_files(model)
    done = run_all(tmp_path / "run", model)
    assert hash_files(model) == before
    assert not (done["generator"] / "model").exists(), "a named model is not copied"
    assert {path.name for path in done["ppo"].iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "labels.json", "log.jsonl",
        "events.out.tfevents.retrikt",
    }  # fmt: skip
    compared = json.loads((done["comparison"] / "comparison.json").read_text())
    assert list(compared) == ["name_prefix", "tuned_prompt", "ppo"]
    for figures in compared.values():
        assert set(figures) >= {
            "reward", "reward_parts", "label_agreement", "label_agreement_judge", "self_bleu",
            "distinct", "copies", "copies_unlabelled", "length", "samples",
        }  # fmt: skip
    rows = [json.loads(line) for line in (done["ppo"] / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    samples = pq.read_table(done["generate"] / "samples.parquet")
    assert samples.column_names == ["text", "text_pair", "label", "logprob"]
    told = json.loads((done["generator"] / "generator.json").read_text())
    assert samples.schema.metadata[b"generator"].decode() == told["identity"]
    figures = done["metrics"]["generate"]
    assert samples.num_rows == figures["samples"] > 0
    assert left_out_of(samples) == {why: figures[why] for why in ("incomplete", "empty")}
    assert set(samples["label"].to_pylist()) <= set(LABELS)
    task_type = "SEQ_2_SEQ_LM" if kind in ("t5", "bart") else "CAUSAL_LM"
    adapter = json.loads((done["ppo"] / "adapter_config.json").read_text())
    assert adapter["task_type"] == task_type
    with warnings.catch_warnings():
        # PEFT asks transformers by an old name.
        warnings.simplefilter("ignore", FutureWarning)
        loaded = load_generator(done["generator"])
        peft.PeftModel.from_pretrained(loaded.model.model, done["ppo"])


def test_the_miniature_goes_the_whole_way_with_pairs(tmp_path: Path) -> None:
    done = run_all(tmp_path / "run", None, pair=True)
    assert (done["generator"] / "model" / "model.safetensors").is_file()
    samples = pq.read_table(done["generate"] / "samples.parquet")
    assert samples["text_pair"].null_count == 0


def test_the_same_inputs_and_seed_write_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (
        run_all(tmp_path / name, None, seed=seed)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    for stage in ("generator", "soft_prompt", "ppo", "comparison", "generate"):
        assert hash_files(first[stage]) == hash_files(again[stage]), stage
        assert hash_files(first[stage]) != hash_files(other[stage]), stage


@pytest.mark.parametrize(
    ("batch_size", "steps", "told"), [(230, 1, True), (231, 1, False), (64, 0, False)]
)
def test_rounds_with_few_samples_of_a_label_are_told(
    batch_size: int, steps: int, told: bool
) -> None:
    config = PPOConfig(batch_size=batch_size, steps=steps)
    with capture_logs() as logs:
        ppo.warn_of_few_samples(config, labels=77)
    assert [line["event"] for line in logs] == ["few_samples_a_label"] * told
    assert not told or "ppo.batch_size to 231" in logs[0]["hint"]


def test_a_missing_model_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "generator").mkdir()
    context = StageContext(tmp_path / "generator", 0, lambda done, total, figures: None)
    inputs = {"prepare": prepared(tmp_path / "prepare", pair=False)}
    with pytest.raises(ModelNotFound, match="no-such-model"):
        generator.run(inputs, GeneratorConfig(model="./no-such-model"), context)
    assert not any((tmp_path / "generator").iterdir())

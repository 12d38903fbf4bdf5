"""The ready sections for real teachers: they fit a task's configuration, and say at once what cannot be loaded."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import offline.configs
from offline.configs.run import RunConfig, load_run_config
from offline.pipeline.stage import StageContext
from offline.stages import labeller
from offline.teacher.generator import describe_generator
from offline.teacher.labeller import LabellerConfig
from services.platform.errors import ModelNotFound

CONFIGS = Path(offline.configs.__file__).parent
TEACHERS = sorted(path.stem for path in (CONFIGS / "teachers").glob("*.yaml"))
TASK = """
task:
  name: notes
  labels: [praise, complaint]
  data: {directory: ., train: train.jsonl, test: test.jsonl}
"""


def beside_a_task(directory: Path, teacher: str) -> RunConfig:
    """What `cat task.yaml teachers/….yaml > run.yaml` makes."""
    path = directory / "run.yaml"
    path.write_text(TASK + (CONFIGS / "teachers" / f"{teacher}.yaml").read_text(encoding="utf-8"))
    return load_run_config(str(path))


def test_there_are_teachers_of_every_kind() -> None:
    assert {"smollm2-360m", "flan-t5-large", "flan-t5-xl", "qwen2.5-7b", "roberta-large"} == {
        *TEACHERS
    }


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_teacher_fits_a_task_and_says_in_seconds_that_the_hub_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = beside_a_task(tmp_path, teacher)
    named: list[Any] = []
    started = time.monotonic()
    if config.generator.model is not None:
        named.append(config.generator.model)
        with pytest.raises(
            ModelNotFound, match=f"(?s){config.generator.model}.*name that directory"
        ):
            describe_generator(
                config.generator.model_copy(update={"device": "cpu"}),
                pair=False,
                names=["praise"],
                directory=tmp_path,
            )
    if config.labeller.kind != "encoder":
        named.append(config.labeller.kind)
        with pytest.raises(ModelNotFound, match="name that directory"):
            labeller.run({}, config.labeller, StageContext(tmp_path, 0, lambda *_: None))
    assert named
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("teacher", TEACHERS)
def test_no_batch_of_samples_is_larger_than_the_shards_that_memory_is_worked_out_for(
    tmp_path: Path, teacher: str
) -> None:
    config = beside_a_task(tmp_path, teacher)
    if config.generator.model is not None:
        ppo = config.ppo
        batches = (ppo.batch_size, ppo.memory, ppo.evaluation_samples, ppo.comparison_samples)
        assert max(batches) <= config.generate.shard_size <= 512


def test_the_labellers_that_the_docs_show_can_be_read() -> None:
    text = (CONFIGS.parents[1] / "docs" / "teachers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found = [LabellerConfig.model_validate(yaml.safe_load(block)["labeller"]) for block in blocks]
    assert {config.kind for config in found} == {"classifier", "verbaliser"}

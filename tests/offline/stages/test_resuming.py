"""The writing stages killed in the middle: the next run goes on where they were and ends the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from offline.pipeline.chain import Chain
from offline.pipeline.manifest import StageManifest
from offline.pipeline.ray_engine import RayEngine
from offline.pipeline.release_stages import STAGES
from offline.pipeline.stage import Report
from offline.store.knowledge import KnowledgeConfig
from offline.tasks.config import DataConfig, TaskConfig
from offline.teacher.generation import GenerateConfig
from offline.teacher.generator import GeneratorConfig
from offline.teacher.labeller import LabellerConfig
from offline.teacher.ppo import PPOConfig
from offline.teacher.ppo_checkpoint import Checkpoint, Checkpoints, run_fingerprint
from offline.teacher.soft_prompt import SoftPromptConfig

TEXTS = {
    "colour": ["red sky", "the sea is blue", "green grass", "a very red sun", "blue rain", "blue"],
    "animal": ["the dog runs", "a cat sleeps", "the bird sings", "big dog", "old cat", "new bird"],
}
ROUNDS, SHARDS = 6, 6


def chain(root: Path, model: Path, upto: str = "generate") -> Chain:
    """A toy task's stages, with a tiny model."""
    root.mkdir(exist_ok=True)
    rows = [
        json.dumps({"text": text, "label": label})
        for label, texts in TEXTS.items()
        for text in texts
    ]
    (root / "train.jsonl").write_text("\n".join(rows))
    (root / "test.jsonl").write_text(json.dumps({"text": "unseen moon", "label": "colour"}))
    sections: dict[str, Any] = {
        "task": TaskConfig(
            name="toy",
            labels={label: label for label in TEXTS},
            data=DataConfig(directory=root, train="train.jsonl", test="test.jsonl"),
        ),
        "labeller": LabellerConfig(strengths=(1.0,), folds=2),
        "generator": GeneratorConfig(model=str(model), precision="float32", max_tokens=12),
        "soft_prompt": SoftPromptConfig(epochs=2),
        "ppo": PPOConfig(
            steps=ROUNDS,
            batch_size=16,
            minibatch_size=8,
            memory=16,
            evaluate_every=2,
            evaluation_samples=8,
            comparison_samples=16,
            checkpoint_every=1,
        ),
        "generate": GenerateConfig(samples=16 * SHARDS, shard_size=16),
        "knowledge": KnowledgeConfig(),
    }
    return Chain(STAGES, root / "stages", sections, {}).upto(upto)


class Recorder:
    """Notes the work that each stage reports; kills its own process after some of it."""

    def __init__(self, stage: str = "", done: int = 0) -> None:
        self._stage, self._done = stage, done
        self.seen: dict[str, list[int]] = {}

    def reused(self, stage: str, key: str) -> None:
        pass

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
        pass

    def working(self) -> AbstractContextManager[Callable[[str], Report]]:
        return nullcontext(self._report)

    def _report(self, stage: str) -> Report:
        def report(done: int, total: int, figures: Mapping[str, float]) -> None:
            self.seen.setdefault(stage, []).append(done)
            if (stage, done) == (self._stage, self._done):
                os.kill(os.getpid(), signal.SIGKILL)

        return report


PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_resuming as toy

root, model, stage, done = sys.argv[2:]
toy.chain(Path(root), Path(model)).run(0, toy.Recorder(stage, int(done)))
"""


def start(root: Path, model: Path, stage: str = "", done: int = 0) -> subprocess.Popen[bytes]:
    """Run the chain in a process of its own, which kills itself after that much of a stage's work."""
    here = Path(__file__).parent
    return subprocess.Popen([sys.executable, "-c", PROGRAM, here, root, model, stage, str(done)])


def contents(done: Mapping[str, StageManifest]) -> dict[str, str]:
    return {name: manifest.content for name, manifest in done.items()}


def test_killed_in_ppo_and_in_generate_a_run_goes_on_and_writes_the_same_bytes(
    tmp_path: Path, tiny_directory: Callable[[str], Path]
) -> None:
    model = tiny_directory("t5")
    whole = contents(chain(tmp_path / "whole", model).run(0, Recorder()))
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", killed, ignore=shutil.ignore_patterns("ppo", "generate"))
    process = start(killed, model)
    # At whatever instant after the second round's checkpoint, another's writing or removal included.
    while process.poll() is None and not list(killed.glob("stages/ppo/.partial-*/round-000002")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (partial,) = killed.glob("stages/ppo/.partial-*")
    newest = max(partial.glob("round-*"))
    assert {path.name for path in newest.iterdir()} == {"state.safetensors", "state.json"}
    reached = int(newest.name.removeprefix("round-"))
    for name in ("resumed", "damaged"):
        shutil.copytree(killed, tmp_path / name)

    recorder = Recorder()
    assert contents(chain(tmp_path / "resumed", model).run(0, recorder)) == whole
    assert recorder.seen["ppo"] == list(range(reached + 1, ROUNDS + 1)), "no round is run twice"
    assert not list((tmp_path / "resumed" / "stages").glob("*/.*")), "nothing half done is left"

    for state in (tmp_path / "damaged").glob("stages/ppo/.partial-*/*/state.safetensors"):
        damaged = bytearray(state.read_bytes())
        damaged[-100] ^= 1
        state.write_bytes(damaged)
    recorder = Recorder()
    assert contents(chain(tmp_path / "damaged", model).run(0, recorder)) == whole
    assert recorder.seen["ppo"] == list(range(1, ROUNDS + 1)), "a damaged state is not gone on from"

    assert start(killed, model, "generate", 16 * 3).wait() == -signal.SIGKILL
    (partial,) = killed.glob("stages/generate/.partial-*")
    assert len(list(partial.glob("*.shard"))) == 3
    recorder = Recorder()
    assert contents(chain(killed, model).run(0, recorder)) == whole
    assert list(recorder.seen) == ["generate"], "PPO had finished by then"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(900)
def test_on_ray_a_run_writes_the_same_bytes(
    tmp_path: Path, tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its workers would give way to every other process of the machine, the other tests' among them.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    model = tiny_directory("gpt2")
    here = chain(tmp_path / "here", model, "knowledge").run(0, Recorder())
    made_before = shutil.ignore_patterns("generate", "knowledge")
    shutil.copytree(tmp_path / "here", tmp_path / "there", ignore=made_before)
    recorder = Recorder()
    on_ray = replace(chain(tmp_path / "there", model, "knowledge"), engine=RayEngine())
    there = on_ray.run(0, recorder)
    assert contents(there) == contents(here)
    assert there["knowledge"].metrics["items"] > 0
    assert set(recorder.seen) == {"generate", "knowledge"}
    assert sorted(recorder.seen["generate"]) == [16 * (n + 1) for n in range(SHARDS)]


def test_a_checkpoint_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    saved = Checkpoint({"best": torch.ones(2, 3)}, {"rows": []})
    prompts = torch.randn(2, 3, 4)
    runs = [
        run_fingerprint(prompts, "model", PPOConfig(), 0),
        run_fingerprint(prompts, "model", PPOConfig(), 1),
        run_fingerprint(prompts + 1, "model", PPOConfig(), 0),
        run_fingerprint(prompts, "model", PPOConfig(clip=0.1), 0),
        run_fingerprint(prompts, "other", PPOConfig(), 0),
    ]
    Checkpoints(tmp_path, runs[0]).save(1, saved)
    assert [Checkpoints(tmp_path, run).load() is None for run in runs] == [False, *[True] * 4]

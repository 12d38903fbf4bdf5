"""A PPO run's state on disk: safetensors and JSON, so that a run that was killed goes on where it was."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from offline.teacher.ppo_config import PPOConfig
from services.platform.durable_files import rename_into_place
from services.platform.file_hash import hash_file

log = structlog.get_logger(__name__)

TENSORS = "state.safetensors"
VALUES = "state.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after some round.

    Attributes:
        tensors: by name.
        values: what else there is, as JSON.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Checkpoints:
    """The newest checkpoint of one run, in a directory of its own.

    A checkpoint is written aside and renamed, then the one before is removed: a run that is killed
    at any instant leaves a whole one.
    """

    def __init__(self, directory: Path, run: str) -> None:
        """Keep checkpoints of the run with this fingerprint in `directory`."""
        self._directory, self._run = directory, run

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / f"round-{step:06d}"
        aside = self._directory / f".{target.name}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
        }
        save_file(tensors, aside / TENSORS)
        values = {
            "format": _FORMAT,
            "run": self._run,
            "sha256": hash_file(aside / TENSORS),
            "values": checkpoint.values,
        }
        (aside / VALUES).write_text(json.dumps(values), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        rename_into_place(aside, target)
        for path in self._directory.iterdir():
            if path != target:
                shutil.rmtree(path, ignore_errors=True)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint of this run; None where there is none that can be used."""
        for directory in sorted(self._directory.glob("round-*"), reverse=True):
            try:
                values = json.loads((directory / VALUES).read_text(encoding="utf-8"))
                if (values["format"], values["run"]) != (_FORMAT, self._run):
                    log.warning("checkpoint_of_another_run", path=str(directory))
                    continue
                if values["sha256"] != hash_file(directory / TENSORS):
                    log.warning("checkpoint_damaged", path=str(directory))
                    continue
                return Checkpoint(load_file(directory / TENSORS), values["values"])
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                log.warning("checkpoint_damaged", path=str(directory), reason=repr(error))
        return None


def run_fingerprint(prompts: Tensor, generator: str, config: PPOConfig, seed: int) -> str:
    """Hash of what a run starts from: a checkpoint is only taken up by the run that wrote it."""
    digest = hashlib.sha256(prompts.detach().cpu().float().contiguous().numpy().tobytes())
    digest.update(json.dumps([generator, seed, config.model_dump(mode="json")]).encode())
    return digest.hexdigest()

"""What stages read from outside of the tree of stages, by content: data, models, a user's own modules.

Configurations name these things; a name stays when what it stands for changes. A file or a directory
counts by the hash of its files. What the hub holds counts by its commit, the one that would be loaded: of a
model that in the local cache goes first, of a data set that on the hub. Where neither is to be had, the name
alone counts, which is logged.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from offline.pipeline.code_hash import user_code_hash
from offline.pipeline.hub import current_data_set, current_model, of_the_hub
from offline.pipeline.manifest import hash_json
from offline.pipeline.stage import Stage
from offline.tasks.config import DataConfig
from offline.tasks.examples import data_set_of
from offline.teacher.pretrained import cached_model, model_directory
from services.platform.errors import ModelNotFound
from services.platform.file_hash import hash_file

if TYPE_CHECKING:
    from offline.configs.run import RunConfig

log = structlog.get_logger(__name__)

_OF_STUDENTS = ("student", "baselines")
"""Sections of the stages that train students."""


def outside_hashes(config: "RunConfig", stages: Sequence[Stage]) -> dict[str, dict[str, str]]:
    """By stage and name, the hash or commit of everything outside that its result hangs on.

    A stage that reads the directory of one that names a model opens that model too: what the directory
    holds of it is its name. Of the encoder that a student starts from, its own directory holds the weights.
    """
    named = {
        stage: {key: model_hash(name) for key, name in models.items()}
        for stage, models in teacher_models(config).items()
    }
    named["prepare"] = data_hashes(config.task.data)
    start = config.student.encoder
    students = {} if start is None else {"student.encoder.model": model_hash(start.model)}
    found: dict[str, dict[str, str]] = {}
    for stage in stages:
        found[stage.name] = dict(named.get(stage.name, {}))
        if stage.section in _OF_STUDENTS:
            found[stage.name].update(students)
        for model_stage in ("labeller", "generator"):
            if model_stage in stage.inputs:
                found[stage.name].update(named[model_stage])
        if stage.section == "ppo":
            found[stage.name].update(module_hashes(config.ppo.reward.modules))
    return found


def teacher_models(config: "RunConfig") -> dict[str, dict[str, str]]:
    """By stage, every model that the stage loads, by the key that names it."""
    generator = config.generator
    return {
        "labeller": config.labeller.models(),
        "generator": {"generator.encoder": generator.encoder}
        if generator.model is None
        else {"generator.model": generator.model},
    }


def data_hashes(data: DataConfig) -> dict[str, str]:
    """Of every split's source; a file that is missing has none, as reading it will tell."""
    directory = data.directory or Path()
    found: dict[str, str] = {}
    for split, source in data.sources().items():
        if source.startswith("hf:"):
            try:
                name, config, _ = data_set_of(source, directory)
            except ValueError:
                continue
            path = Path(name)
            known = directory_hash(path) if path.is_dir() else _data_set_commit(name, config)
            found[f"task.data.{split}"] = known
        elif (path := data.path(source)).is_file():
            found[f"task.data.{split}"] = _file_hash(path)
    return found


def model_hash(name: str) -> str:
    """Of the model that `model_directory` would load for that name."""
    if of_the_hub(name):
        return _model_commit(name)
    try:
        return directory_hash(model_directory(name))
    except ModelNotFound:
        return "absent"


def module_hashes(modules: Sequence[str]) -> Mapping[str, str]:
    """Of the code of each module, and of the user's other modules that it imports."""
    return {
        f"ppo.reward.modules.{module}": user_code_hash(module) or "absent" for module in modules
    }


def directory_hash(directory: Path) -> str:
    """Of the names and contents of all files below a directory; hidden ones do not count."""
    files = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            files[relative.as_posix()] = _file_hash(path)
    return hash_json(files)


def _file_hash(path: Path) -> str:
    found = path.stat()
    return _hash_as_it_is(path.resolve(), found.st_size, found.st_mtime_ns, found.st_ino)


@cache
def _hash_as_it_is(path: Path, size: int, changed: int, inode: int) -> str:
    """Hashed once in a process for as long as nobody writes it: models are large."""
    return hash_file(path)


@cache
def _model_commit(name: str) -> str:
    cached = cached_model(name)
    return _told(name, _current_commit(current_model, name) if cached is None else cached.name)


@cache
def _data_set_commit(name: str, config: str | None) -> str:
    current = _current_commit(current_data_set, name)
    return _told(name, current or _cached_data_set(name, config))


def _cached_data_set(name: str, config: str | None) -> str | None:
    """Commit of the copy that `datasets` falls back on when the hub is away: the one written last."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, last = name.split("/")
    folder = "___".join([*owner, camelcase_to_snakecase(last)])
    copies = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / folder
    found = [
        path
        for path in copies.glob(f"{config or '*'}/*/*")
        if path.is_dir() and not path.name.endswith(".incomplete")
    ]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def _current_commit(ask: Callable[[str], Any], name: str) -> str | None:
    try:
        commit: str | None = ask(name).sha
    except Exception as error:
        # A hub that is away, and a name that it does not know, are told by the stage that loads it.
        log.info("hub_did_not_answer", name=name, reason=str(error)[:200])
        return None
    return commit


def _told(name: str, commit: str | None) -> str:
    if commit is None:
        log.warning("known_by_name_alone", name=name)
        return f"name {name}"
    return f"commit {commit}"

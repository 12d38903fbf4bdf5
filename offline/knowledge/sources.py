"""The stages that a release came from: its labelled rows, its labeller, the columns of its data.

A release is tied to them by content alone: the index stage whose candidate has the same student, the student
stage that it read, and what that one read.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import structlog
from pydantic import ValidationError

from offline.knowledge.journal import item_keys
from offline.pipeline.manifest import MANIFEST, StageManifest
from offline.stages.index import CANDIDATE
from offline.tasks.config import FieldsConfig
from offline.tasks.examples import SCHEMA, read_examples
from offline.tasks.prepared import Examples
from services.platform.errors import CorruptArtifact
from services.releases.manifest import ReleaseManifest, read_release_manifest

if TYPE_CHECKING:
    from offline.teacher.labeller import Labeller

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Labelling:
    """A labeller as edits need it.

    Attributes:
        identity: as knowledge items name it.
        labels: that it knows.
    """

    identity: str
    labels: tuple[str, ...]
    directory: Path

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> list[dict[str, float]]:
        """Its calibrated probability of each label, of each text."""
        labeller = _loaded(self.directory)
        found = labeller.soft_labels(texts, pairs)
        return [dict(zip(labeller.labels, map(float, row), strict=True)) for row in found]


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """A stage's results, and the section of the configuration that they were made with."""

    directory: Path
    config: Any


@dataclass(frozen=True, slots=True)
class Sources:
    """Finished stages that a release came from, as far as they are here (any more).

    Attributes:
        stages: by name, those that its student was made from.
        fields: names of the columns of the task's data.
    """

    stages: Mapping[str, FinishedStage]
    fields: FieldsConfig

    def directory(self, stage: str) -> Path | None:
        found = self.stages.get(stage)
        return None if found is None else found.directory

    def split(self, name: str) -> pa.Table | None:
        """The rows of a split; None where they are not here: a purge may have deleted them."""
        prepare = self.directory("prepare")
        if prepare is None:
            return None
        with suppress(FileNotFoundError):
            return read_examples(prepare / f"{name}.parquet")
        return None

    def held_out(self, labels: Collection[str], keys: Collection[str], *, pair: bool) -> Examples:
        """The validation rows that have one of the labels and none of the keys; none where they are not here."""
        table = self.split("validation")
        if table is None:
            log.warning("not_measured", reason="the validation rows are not here")
            table = SCHEMA.empty_table()
        texts, pairs = table["text"].to_pylist(), table["text_pair"].to_pylist()
        named, inside = table["label"].to_pylist(), set(keys)
        rows = [
            row
            for row, key in enumerate(item_keys(texts, pairs))
            if key not in inside and named[row] in labels
        ]
        return Examples(
            [texts[row] for row in rows],
            [pairs[row] for row in rows] if pair else None,
            [named[row] for row in rows],
        )

    def labelling(self) -> Labelling | None:
        """The labeller; None where it is not here."""
        directory = self.directory("labeller")
        if directory is None:
            return None
        from offline.teacher.head import read_description
        from offline.teacher.labeller import DESCRIPTION

        if not (directory / DESCRIPTION).exists():
            return None
        told = read_description(directory / DESCRIPTION)
        return Labelling(told["identity"], tuple(told["labels"]), directory)


def sources_of(task_directory: Path, release: ReleaseManifest) -> Sources:
    """What a release came from, as far as it is in the task's directory."""
    stages = task_directory / "stages"
    for path, index in _finished(stages, "index"):
        with suppress(CorruptArtifact):
            if read_release_manifest(path / CANDIDATE).bundle_sha256 != release.bundle_sha256:
                continue
            found: dict[str, FinishedStage] = {}
            _trace(stages, {"student": index.inputs.get("student")}, found)
            if "student" in found:
                prepare = found.get("prepare")
                fields = {} if prepare is None else prepare.config.get("fields", {})
                return Sources(found, FieldsConfig.model_validate(fields))
    return Sources({}, FieldsConfig())


def _trace(stages: Path, inputs: Mapping[str, str | None], found: dict[str, FinishedStage]) -> None:
    """Add the stages with this content, and those that they were made from."""
    for stage, content in inputs.items():
        if stage in found:
            continue
        for path, manifest in _with_content(stages, stage, content)[:1]:
            found[stage] = FinishedStage(path, manifest.config)
            _trace(stages, manifest.inputs, found)


def forget_labellers() -> None:
    """Let go of the labellers that were asked; they are loaded anew where they are asked again."""
    _loaded.cache_clear()


@functools.lru_cache(maxsize=2)
def _loaded(directory: Path) -> "Labeller":
    from offline.teacher.labeller import load_labeller

    return load_labeller(directory)


def _with_content(
    stages: Path, stage: str, content: str | None
) -> list[tuple[Path, StageManifest]]:
    return [found for found in _finished(stages, stage) if found[1].content == content]


def _finished(stages: Path, stage: str) -> list[tuple[Path, StageManifest]]:
    """Directories and manifests of a stage's results, the newest first; their files are not checked."""
    found = []
    for path in (stages / stage).glob(f"[!.]*/{MANIFEST}"):
        with suppress(OSError, ValidationError):
            found.append((path.parent, StageManifest.model_validate_json(path.read_bytes())))
    return sorted(found, key=lambda one: one[1].created_at, reverse=True)

"""The stages that a release came from: its labelled rows, its labeller, the columns of its data.

A release is tied to them by content alone: the index stage whose candidate has the same student, the student
stage that it read, and what that one read.
"""

import functools
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
class Sources:
    """Directories of finished stages; None where they are not here (any more).

    Attributes:
        prepare: with the splits of the task's data.
        labeller: with the labeller.
        fields: names of the columns of the task's data.
    """

    prepare: Path | None
    labeller: Path | None
    fields: FieldsConfig

    def split(self, name: str) -> pa.Table | None:
        """The rows of a split; None where they are not here: a purge may have deleted them."""
        if self.prepare is None:
            return None
        with suppress(FileNotFoundError):
            return read_examples(self.prepare / f"{name}.parquet")
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
        if self.labeller is None:
            return None
        from offline.teacher.head import read_description
        from offline.teacher.labeller import DESCRIPTION

        if not (self.labeller / DESCRIPTION).exists():
            return None
        told = read_description(self.labeller / DESCRIPTION)
        return Labelling(told["identity"], tuple(told["labels"]), self.labeller)


def sources_of(task_directory: Path, release: ReleaseManifest) -> Sources:
    """What a release came from, as far as it is in the task's directory."""
    stages = task_directory / "stages"
    for path, index in _finished(stages, "index"):
        with suppress(CorruptArtifact):
            if read_release_manifest(path / CANDIDATE).bundle_sha256 != release.bundle_sha256:
                continue
            for _, student in _with_content(stages, "student", index.inputs.get("student")):
                prepare = _with_content(stages, "prepare", student.inputs.get("prepare"))
                labeller = _with_content(stages, "labeller", student.inputs.get("labeller"))
                fields = prepare[0][1].config.get("fields", {}) if prepare else {}
                return Sources(
                    prepare[0][0] if prepare else None,
                    labeller[0][0] if labeller else None,
                    FieldsConfig.model_validate(fields),
                )
    return Sources(None, None, FieldsConfig())


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

"""Knowledge gaps from the log to groups: read, left out what the live release knows by now, embedded, grouped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline.gaps.grouping import Group, group_gaps
from offline.gaps.reading import Gap, read_gaps
from offline.tasks.normal_form import letters_and_digits
from services.platform.durable_files import full_disk_told, replacing
from services.platform.errors import InvalidConfig
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import BUNDLE, KNOWLEDGE

Vectors = Literal["encoder", "student"]


@dataclass(frozen=True, slots=True)
class GapReport:
    """Groups of gaps, and what they were made from.

    Attributes:
        lines: read from the logs.
        skipped: lines that are none.
        texts: distinct ones.
        known: of these, those that are in the live release's knowledge by now, and in no group.
        release: that is live.
        vectors: what the texts were compared by.
        groups: the most asked first.
    """

    lines: int
    skipped: int
    texts: int
    known: int
    release: str | None
    vectors: str
    groups: list[Group]

    def as_dict(self, examples: int) -> dict[str, Any]:
        """For JSON; each group with its first texts alone."""
        return {
            "lines": self.lines,
            "skipped": self.skipped,
            "texts": self.texts,
            "known": self.known,
            "release": self.release,
            "vectors": self.vectors,
            "groups": [
                {
                    "group": number,
                    "texts": len(group.gaps),
                    "asked": group.asked,
                    "words": group.words,
                    "signs": group.signs,
                    "labels": group.labels,
                    "student_and_store": group.alone,
                    "similarity": group.similarity,
                    "cohesion": group.cohesion,
                    "examples": [
                        {"text": gap.text, "text_pair": gap.pair, "asked": gap.asked}
                        for gap in group.gaps[:examples]
                    ],
                }
                for number, group in enumerate(self.groups, start=1)
            ],
        }


def report_gaps(
    logs: Sequence[Path],
    task_dir: Path,
    *,
    vectors: Vectors = "encoder",
    groups: int | None = None,
    least_asked: int = 1,
) -> GapReport:
    """Group what the store knew little about.

    Args:
        logs: of the students of one task.
        task_dir: the task's directory.
        vectors: compare the texts by the packaged sentence encoder, or by the live student's query vectors.
        groups: how many; chosen where it is not given.
        least_asked: leave out texts that were kept less often.

    Raises:
        InvalidData: see `read_gaps`.
        InvalidConfig: the student's vectors are asked for and no release is live.
        CorruptArtifact: the live release is damaged.
    """
    read = read_gaps(logs)
    releases = ReleaseDirectory(task_dir / "releases")
    live = releases.live()
    directory = None if live is None else releases.path(live.release)
    known = _known(directory)
    unknown = [gap for gap in read.gaps if letters_and_digits(gap.text, gap.pair) not in known]
    kept = [gap for gap in unknown if gap.asked >= least_asked]
    return GapReport(
        lines=read.lines,
        skipped=read.skipped,
        texts=len(read.gaps),
        known=len(read.gaps) - len(unknown),
        release=live.release if live else None,
        vectors=vectors,
        groups=group_gaps(kept, _embed(kept, vectors, directory), groups),
    )


def write_texts(path: Path, groups: Mapping[int, Group]) -> int:
    """Write groups' texts as JSON lines (`text`, `text_pair`, `group`, `asked`); how many there are.

    A task reads such a file as its unlabelled texts, `retrikt knowledge add` as new items.

    Raises:
        StorageFull, InvalidConfig: it cannot be written.
    """
    count = 0
    try:
        with full_disk_told(path), replacing(path) as file:
            for number, group in groups.items():
                for gap in group.gaps:
                    row: dict[str, Any] = {"text": gap.text}
                    if gap.pair is not None:
                        row["text_pair"] = gap.pair
                    row |= {"group": number, "asked": gap.asked}
                    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                    count += 1
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}.") from error
    return count


def _known(release: Path | None) -> set[str]:
    """Forms of the texts in a release's knowledge file."""
    if release is None:
        return set()
    table = pq.read_table(release / KNOWLEDGE, columns=["text", "text_pair"])
    return {
        letters_and_digits(text, pair)
        for text, pair in zip(
            table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True
        )
    }


def _embed(gaps: Sequence[Gap], vectors: Vectors, release: Path | None) -> NDArray[np.float32]:
    """(n, d), of unit length."""
    if not gaps:
        return np.zeros((0, 1), np.float32)
    texts = [gap.text for gap in gaps]
    pairs = [gap.pair or "" for gap in gaps] if any(gap.pair is not None for gap in gaps) else None
    if vectors == "student":
        return _by_student(texts, pairs, release)
    from offline.teacher.encoder import load_encoder  # torch takes seconds to import

    embedded = load_encoder().embed(texts, pairs)
    lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
    unit: NDArray[np.float32] = embedded / np.maximum(lengths, 1e-12)
    return unit


def _by_student(
    texts: list[str], pairs: list[str] | None, release: Path | None
) -> NDArray[np.float32]:
    from services.student.bundle import load_bundle
    from services.student.encoder import OnnxEncoder

    if release is None:
        raise InvalidConfig(
            "No release is live, so there is no student whose vectors could be taken.",
            hint="Leave --vectors out.",
        )
    return OnnxEncoder.of_bundle(load_bundle(release / BUNDLE)).encode(texts, pairs)[1]

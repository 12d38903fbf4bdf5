"""What an edit does to a release's answers: on held-out rows, and on the labels that came with edits.

Neighbours are searched for exactly, in the knowledge file itself: no store version has to be built to judge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline.knowledge.asking import AskedKnowledge
from offline.store.gate import ROUNDING, ReleaseConfig, reasons_against
from offline.tasks.prepared import Examples
from services.releases.manifest import BUNDLE, KNOWLEDGE, read_release_manifest
from services.store.knowledge_file import read_knowledge
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder
from services.student.predictor import open_edited, open_lexical


@dataclass(frozen=True, slots=True)
class Recall:
    """How often the rows of a label are answered with it.

    Attributes:
        rows: of the label.
        recall: share of them.
    """

    rows: int
    recall: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A release's answers.

    Attributes:
        labels: of the release.
        held_out: (n,) answers on the held-out rows, as positions in `labels`.
        left_out: of each label that the student does not know: its items, each without itself and its like.
    """

    labels: tuple[str, ...]
    held_out: NDArray[np.int64]
    left_out: Mapping[str, Recall]

    def accuracy(self, held_out: Examples) -> float:
        """Share of right answers on the held-out rows that it was asked about."""
        right = [
            self.labels[answer] == label
            for answer, label in zip(self.held_out, held_out.labels or [], strict=True)
        ]
        return float(np.mean(right))


def measure(release: Path, held_out: Examples) -> Measured:
    """Ask a release about held-out rows, and about the items of the labels that came with edits.

    Args:
        release: directory of the release, or of a candidate.
        held_out: rows that are not knowledge.
    """
    bundle = load_bundle(release / BUNDLE)
    manifest = read_release_manifest(release)
    balances = manifest.balances
    asked = AskedKnowledge(
        OnnxEncoder.of_bundle(bundle),
        bundle.manifest,
        read_knowledge(release / KNOWLEDGE),
        open_lexical(release, bundle.manifest),
        open_edited(release, bundle.manifest, manifest),
    )
    answers = np.empty(0, np.int64)
    if len(held_out):
        answers = asked.answers(asked.scores(held_out.texts, held_out.pairs), balances)
    return Measured(asked.knowledge.metadata.labels, answers, _left_out(asked, balances))


def reasons(
    candidate: Measured, live: Measured, held_out: Examples, config: ReleaseConfig
) -> tuple[str, ...]:
    """Why an edited release should not go live; empty when nothing speaks against it.

    As for any release, accuracy and the recall of each label on the held-out rows must not fall too far. A label
    that came with edits has no held-out rows: its own items stand for them, left out one at a time. A new
    one has to be found often enough (`added_recall`), one that was there before must not lose too much.
    """
    places = np.array(
        [candidate.labels.index(name) if name in candidate.labels else -1 for name in live.labels]
    )
    gold = np.array([candidate.labels.index(name) for name in held_out.labels or []], np.int64)
    found = reasons_against(
        candidate.held_out, places[live.held_out], gold, candidate.labels, config
    )
    return (*found, *_reasons_of_labels(candidate.left_out, live.left_out, config))


def _reasons_of_labels(
    candidate: Mapping[str, Recall], live: Mapping[str, Recall], config: ReleaseConfig
) -> list[str]:
    found = []
    for label, now in candidate.items():
        if now.rows < config.label_rows:
            continue
        before = live.get(label)
        how = (
            f"of the {now.rows} items of {label!r}, each looked up without itself, {now.recall:.2f}"
        )
        if before is None or before.rows < config.label_rows:
            if now.recall < config.added_recall - ROUNDING:
                found.append(
                    f"{how} are recognised, less than the {config.added_recall} asked for: more sentences "
                    f"of it may help"
                )
        elif before.recall - now.recall > config.label_drop + ROUNDING:
            found.append(
                f"{how} are recognised, where it was {before.recall:.2f}: more than the allowed drop "
                f"of {config.label_drop}"
            )
    return found


def _left_out(asked: AskedKnowledge, balances: Sequence[float]) -> dict[str, Recall]:
    found = {}
    by_label = asked.items_by_label()
    for position, (label, rows) in list(enumerate(by_label.items()))[asked.known :]:
        answers = asked.answers(asked.scores_of_left_out(rows), balances)
        found[label] = Recall(len(rows), float(np.mean(answers == position)))
    return found

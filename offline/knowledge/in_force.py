"""Applying edits to a release's files: to the live ones, when an edit is made, and to a run's, so that they last."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import structlog

from offline.knowledge.added_words_fit import FittedItems, fit_added_words
from offline.knowledge.asking import AskedKnowledge
from offline.knowledge.balances import fit_balances
from offline.knowledge.editable import EditableKnowledge, Relabeller
from offline.knowledge.journal import Edit, Journal, item_keys, loose_forms
from offline.knowledge.sources import Sources, sources_of
from offline.store.index import write_lexical
from offline.tasks.prepared import Examples
from services.platform.errors import CorruptArtifact, IncompatibleArtifacts, NotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    BUNDLE,
    EDITED,
    KNOWLEDGE,
    SOFT_LABELS,
    ReleaseManifest,
    read_release_manifest,
    write_release_manifest,
)
from services.store.knowledge_file import (
    Knowledge,
    read_knowledge,
    version_manifest,
    write_knowledge,
)
from services.student.added_words import AddedWords
from services.student.bundle import BundleManifest, load_bundle
from services.student.corrections import Corrections, corrections_of
from services.student.edited import EditedAnswers
from services.student.encoder import OnnxEncoder
from services.student.predictor import open_edited

log = structlog.get_logger(__name__)


def edits_in_force(task_directory: Path) -> list[Edit]:
    """The edits that the live release's knowledge holds, the oldest first.

    What was deleted for good stays so: where the live release is from before a purge, the purge comes first.
    Where the live release cannot be read, it is those of the newest release that can be and that passed its
    gate; without one, the edits that the journal's last one was made after, and that one.

    Raises:
        CorruptArtifact: the journal cannot be read, or lacks one of them.
    """
    journal = Journal(task_directory)
    releases = ReleaseDirectory(task_directory / "releases")
    try:
        pointer = releases.live()
        ids = () if pointer is None else releases.get(pointer.release).edits
    except (CorruptArtifact, NotFound) as error:
        passed = [manifest for manifest in releases.list() if not manifest.gate]
        every = journal.read()
        last = (*every[-1].after, every[-1].id) if every else ()
        ids = passed[-1].edits if passed else last
        log.warning("live_release_unreadable", reason=str(error), edits=list(ids))
    purges = [edit for edit in journal.read() if edit.purge == "done" and edit.id not in ids]
    return [*purges, *journal.named(ids)]


@contextmanager
def with_edits(candidate: Path, task_directory: Path) -> Iterator[Path]:
    """The candidate of a release with the edits in force applied; itself where there are none.

    Probabilities that are by another labeller than the candidate's are asked for anew, and added texts that
    are now rows of the test split are left out.

    Args:
        candidate: a release's files, as `offline.store.index.write_candidate` lays them out.
        task_directory: of the task.

    Raises:
        CorruptArtifact: see `edits_in_force`.
        IncompatibleArtifacts: the edits are of single texts and the task is of pairs, or the reverse.
    """
    edits = edits_in_force(task_directory)
    if not edits:
        yield candidate
        return
    manifest = read_release_manifest(candidate)
    sources = sources_of(task_directory, manifest)
    test = sources.split("test")
    measured_on: set[str] = set()
    if test is None:
        log.warning("not_compared", reason="the test rows are not here")
    else:
        measured_on = set(loose_forms(test["text"].to_pylist(), test["text_pair"].to_pylist()))
    labelling = sources.labelling()
    again = None
    if labelling is not None:
        again = Relabeller(labelling.identity, labelling.probabilities)
    with tempfile.TemporaryDirectory(prefix="retrikt-release-") as folder:
        edited = Path(folder) / "candidate"
        write_edited(
            candidate,
            edited,
            [_without(edit, measured_on) for edit in edits],
            sources,
            edits=[edit.id for edit in edits],
            again=again,
        )
        log.info("edits_applied", edits=len(edits))
        yield edited


def held_out_rows(candidate: Path, task_directory: Path) -> Examples:
    """The validation rows that an edited candidate can be judged on: none that an edit made an item."""
    manifest = read_release_manifest(candidate)
    knowledge = read_knowledge(candidate / KNOWLEDGE)
    keys = item_keys(knowledge.table["text"].to_pylist(), knowledge.table["text_pair"].to_pylist())
    sources = sources_of(task_directory, manifest)
    return sources.held_out(manifest.labels, keys, pair=knowledge.metadata.pair)


def write_edited(
    source: Path,
    directory: Path,
    applied: Sequence[Edit],
    sources: Sources,
    *,
    edits: Sequence[str],
    earlier: Sequence[Edit] = (),
    again: Relabeller | None = None,
) -> ReleaseManifest:
    """Write the files of an edited release: the same student, its knowledge with edits applied.

    Args:
        source: directory of a release, or of a candidate.
        directory: is made.
        applied: the edits, in order.
        sources: that the release came from; its validation rows are what the balances are fitted on.
        edits: ids of all edits that the knowledge then holds.
        earlier: those of them that the source holds already; read where it does not tell itself which items
            they brought, as a release from before there were corrections.
        again: asked where an edit's probabilities are by another labeller.

    Raises:
        InvalidData: no item is left.
        IncompatibleArtifacts: an edit is of single texts and the task is of pairs, or the reverse.
    """
    present = read_release_manifest(source)
    bundle = load_bundle(source / BUNDLE)
    encoder = OnnxEncoder.of_bundle(bundle)
    knowledge = read_knowledge(source / KNOWLEDGE)
    for edit in applied:
        if any((item.text_pair is not None) != knowledge.metadata.pair for item in edit.added):
            raise IncompatibleArtifacts(
                f"The edit {edit.id} adds {'single texts' if knowledge.metadata.pair else 'pairs'}, "
                f"the task {present.task} is of {'pairs' if knowledge.metadata.pair else 'single texts'}.",
                hint="Move the journal of the edits out of the task's directory, or restore the task.",
            )
    before = open_edited(source, bundle.manifest, present)
    editable = EditableKnowledge(
        knowledge,
        bundle.manifest.labels,
        lambda texts, pairs: encoder.encode(texts, pairs)[1],
        again,
        _edited_rows(knowledge, earlier)
        if before.corrections is None
        else before.corrections.items.tolist(),
    )
    for edit in applied:
        editable.apply(edit)
    finished = editable.finished()
    directory.mkdir()
    shutil.copytree(source / BUNDLE, directory / BUNDLE)
    write_knowledge(directory / KNOWLEDGE, finished)
    np.save(directory / SOFT_LABELS, finished.soft_labels.astype(np.float16))
    lexical = write_lexical(directory, finished, bundle.manifest)
    edited = EditedAnswers(
        None if lexical is None else _added_words(finished, bundle.manifest),
        _corrections(finished, editable, encoder, bundle.manifest),
    )
    edited.save(directory / EDITED)
    held_out = sources.held_out(bundle.manifest.labels, editable.keys, pair=finished.metadata.pair)
    return write_release_manifest(
        directory,
        task=present.task,
        labels=finished.metadata.labels,
        store_version=version_manifest(directory / KNOWLEDGE).version,
        encoder_fingerprint=present.encoder_fingerprint,
        items=len(finished),
        metrics={},
        edits=edits,
        balances=fit_balances(
            AskedKnowledge(encoder, bundle.manifest, finished, lexical, edited), held_out
        ),
    )


def _edited_rows(knowledge: Knowledge, edits: Sequence[Edit]) -> list[int]:
    """Rows of the items that these edits added or relabelled."""
    if not edits:
        return []
    edited: dict[str, str | None] = {}
    for edit in edits:
        for key in edit.removed:
            edited.pop(key, None)
        edited |= {item.key: "generated" if item.generator else "manual" for item in edit.added}
        edited |= {item.key: None for item in edit.relabelled if item.key not in edited}
    table = knowledge.table
    keys = item_keys(table["text"].to_pylist(), table["text_pair"].to_pylist())
    origins = table["origin"].to_pylist()
    # A sample does not displace an item that was there.
    return [
        row
        for row, (key, origin) in enumerate(zip(keys, origins, strict=True))
        if key in edited and edited[key] in (None, origin)
    ]


def _added_words(knowledge: Knowledge, bundle: BundleManifest) -> AddedWords | None:
    """Where the knowledge has labels that the student does not know."""
    pairs = knowledge.table["text_pair"].to_pylist() if knowledge.metadata.pair else None
    items = FittedItems(knowledge.table["text"].to_pylist(), pairs, knowledge.soft_labels)
    return fit_added_words(items, known=len(bundle.labels), most_words=bundle.max_tokens)


def _corrections(
    knowledge: Knowledge,
    editable: EditableKnowledge,
    encoder: OnnxEncoder,
    bundle: BundleManifest,
) -> Corrections | None:
    """By the items that edits added or relabelled, where there are any."""
    rows = np.array([row for row, key in enumerate(editable.keys) if key in editable.edited])
    if not len(rows):
        return None
    table = knowledge.table.take(rows)
    pairs = table["text_pair"].to_pylist() if knowledge.metadata.pair else None
    logits, _ = encoder.encode(table["text"].to_pylist(), pairs)
    values = corrections_of(knowledge.soft_labels[rows], logits, bundle.mixing)
    return Corrections(rows.astype(np.int64), values)


def _without(edit: Edit, test: set[str]) -> Edit:
    """The edit without the added texts that have one of these loose forms."""
    loose = loose_forms([item.text for item in edit.added], [item.text_pair for item in edit.added])
    kept = tuple(item for item, form in zip(edit.added, loose, strict=True) if form not in test)
    if len(kept) < len(edit.added):
        log.warning("test_rows_left_out", edit=edit.id, added=len(edit.added) - len(kept))
    return edit.model_copy(update={"added": kept})

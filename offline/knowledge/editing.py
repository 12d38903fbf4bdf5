"""Making an edit: drafted against the live release, judged, noted in the journal, and released.

Everything is checked before anything is written. The journal comes before the release, the release before the
live pointer: killed at any instant, an edit is in force as a whole or not at all.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from offline.knowledge.drafts import Draft
from offline.knowledge.in_force import edits_in_force, write_edited
from offline.knowledge.items import Items
from offline.knowledge.journal import Edit, Journal
from offline.knowledge.measuring import Measured, measure, reasons
from offline.knowledge.outcome import Edited
from offline.knowledge.purge import Purged, purge
from offline.knowledge.sources import Sources, sources_of
from offline.pipeline.chain import run_lock
from offline.pipeline.progress import NO_DISPLAY, ProgressDisplay, step
from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.publish import open_backend, publish
from offline.tasks.prepared import Examples
from services.platform.errors import (
    CorruptArtifact,
    InvalidConfig,
    InvalidInput,
    ReleaseNotFound,
    VersionNotFound,
)
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import EDITED, ReleaseManifest

log = structlog.get_logger(__name__)

DraftedBy = Callable[[Items, Sources], Draft]
"""Drafts an edit of the live release's items."""


@dataclass(frozen=True, slots=True)
class EditSettings:
    """How edits are released.

    Attributes:
        store: where the store versions are.
        release: the gate's thresholds, and whether to activate.
        dry_run: say what would be done; write nothing.
        force: go live whatever the gate says.
    """

    store: StoreConfig = field(default_factory=StoreConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    dry_run: bool = False
    force: bool = False


def edit_knowledge(
    task_directory: Path,
    drafted_by: DraftedBy,
    settings: EditSettings,
    *,
    ids_of: str | None = None,
    by_id: bool = False,
    display: ProgressDisplay = NO_DISPLAY,
) -> Edited:
    """Make one edit of the live release's knowledge, and release what comes of it.

    Args:
        task_directory: of the task.
        drafted_by: drafts the edit.
        settings: how it is released.
        ids_of: the release that the draft's ids are of, where the caller knows.
        by_id: the draft tells items by id, which are those of the release that is live now.
        display: is told of the steps that take long, but for the labeller's look at the texts.

    Raises:
        AlreadyRunning: a run, or another edit, works in the task's directory.
        ReleaseNotFound: nothing is live.
        InvalidInput: the edit cannot be made; nothing is written then.
        CorruptArtifact: the live release, or the journal, is damaged.
        StorageFull, StoreUnavailable: the live release stays.
    """
    started = time.perf_counter()
    if settings.dry_run:
        items = _live_items(task_directory, ids_of)
        draft = drafted_by(items, sources_of(task_directory, items.release))
        return _timed(_told(items, draft, "planned"), started)
    with run_lock(task_directory, held_by="run or edit", hint="Wait for it to end."):
        _check_store(task_directory, settings.store)
        finished = _finish_purges(task_directory, settings, display)
        if finished is not None and by_id:
            raise InvalidInput(
                "An earlier purge was cut short, and was finished just now; nothing else was done.",
                hint="Ids may be others than you saw: look again, and repeat the command.",
            )
        items = _live_items(task_directory, ids_of)
        sources = sources_of(task_directory, items.release)
        draft = drafted_by(items, sources)
        if draft.edit is None:
            return _timed(_told(items, draft, "nothing"), started)
        edited = _release(task_directory, items, sources, draft, draft.edit, settings, display)
        if draft.edit.purge is not None and edited.outcome in ("activated", "unchanged", "nothing"):
            purged = _finish_purges(task_directory, settings, display) or Purged((), (), (), (), 0)
            edited = replace(edited, purged=asdict(purged))
            if not draft.ids and not any(asdict(purged).values()):
                told = (
                    "no such text was found, neither in the live release nor in what else is kept"
                )
                edited = replace(edited, warnings=(*edited.warnings, told))
    log.info("knowledge_edited", outcome=edited.outcome, release=edited.release, edit=edited.edit)
    return _timed(edited, started)


def _check_store(task_directory: Path, store: StoreConfig) -> None:
    """Refuse to edit where the store that is named is not the one that serves the live release."""
    releases = ReleaseDirectory(task_directory / "releases")
    live = releases.live()
    if live is None:
        return
    version = releases.get(live.release).store_version
    backend = open_backend(task_directory, store)
    try:
        backend.manifest(version)
    except VersionNotFound as error:
        where = store.url if store.backend == "server" else str(task_directory / "store")
        raise InvalidConfig(
            f"The live release's store version {version} is not in {where}.",
            hint="Name the configuration that it was made with: --config CONFIG. "
            "Where it was lost, `retrikt rebuild CONFIG --store-only` makes it anew.",
        ) from error
    finally:
        backend.close()


def _live_items(task_directory: Path, ids_of: str | None) -> Items:
    items = Items.of(task_directory)
    if ids_of is not None and ids_of != items.release.release:
        raise InvalidInput(
            f"The ids are of the release {ids_of}, the live one is {items.release.release}.",
            hint="Items have other ids there: look them up with `retrikt knowledge list`.",
        )
    return items


def _release(
    task_directory: Path,
    items: Items,
    sources: Sources,
    draft: Draft,
    edit: Edit,
    settings: EditSettings,
    display: ProgressDisplay,
) -> Edited:
    if edit.purge is not None and not settings.release.activate:
        raise InvalidConfig(
            "A purge needs the release without the texts to go live.",
            hint="Leave release.activate as it is.",
        )
    journal, told = Journal(task_directory), _told(items, draft, "nothing")
    releases = ReleaseDirectory(task_directory / "releases")
    if edit.purge is not None and not draft.ids:
        # The texts are in older releases alone: there is nothing to release, but something to delete.
        journal.append(edit)
        _put_in_force(releases, items.release, edit)
        return replace(told, edit=edit.id)
    with tempfile.TemporaryDirectory(prefix="retrikt-release-") as folder:
        candidate = Path(folder) / "candidate"
        with step(display, "edit"):
            made = write_edited(
                items.directory,
                candidate,
                [edit],
                sources,
                edits=[*items.release.edits, edit.id],
                earlier=()
                if (items.directory / EDITED).exists()
                else journal.named(items.release.edits),
            )
        _refuse_purged(releases, made)
        inside = [*items.keys, *(item.key for item in edit.added)]
        held_out = sources.held_out(
            items.release.labels, inside, pair=items.knowledge.metadata.pair
        )
        with step(display, "gate"):
            before, now = measure(items.directory, held_out), measure(candidate, held_out)
        found = reasons(now, before, held_out, settings.release)
        warnings = [*draft.warnings, *_too_few(now, settings.release)]
        figures = _figures(before, now, held_out)
        journal.append(edit)
        metrics = {**_metrics(releases, made), "edited_from": items.release.release, **figures}
        with step(display, "release"):
            published = publish(
                candidate,
                metrics,
                held_out,
                task_directory,
                settings.store,
                settings.release,
                judged=found,
                base=items.release.release,
                force=settings.force,
            )
        warnings += [f"released all the same: {reason}" for reason in published.overridden]
        if published.outcome == "unchanged":
            _put_in_force(releases, items.release, edit)
    live = releases.live()
    serves = None if live is None else releases.get(live.release)
    first = made.items - len(edit.added)
    return replace(
        told,
        edit=edit.id,
        outcome=published.outcome,
        release=published.release,
        live=None if serves is None else serves.release,
        store_version=None if serves is None else serves.store_version,
        items=made.items,
        added=tuple(range(first, made.items)),
        new_labels=tuple(label for label in made.labels if label not in items.release.labels),
        gone_labels=tuple(label for label in items.release.labels if label not in made.labels),
        warnings=tuple(warnings),
        reasons=published.reasons,
        **figures,
    )


def _refuse_purged(releases: ReleaseDirectory, made: ReleaseManifest) -> None:
    """A release that was given up for its texts never serves again, by whatever edit it would come back."""
    try:
        purged = releases.get(made.release).purged_at is not None
    except (CorruptArtifact, ReleaseNotFound):
        return
    if purged:
        raise InvalidInput(
            f"The edit would make the release {made.release} again, which was purged for its texts.",
            hint="If they are to come back, add them together with another text: that is another release.",
        )


def _put_in_force(releases: ReleaseDirectory, live: ReleaseManifest, edit: Edit) -> None:
    """Tell the live release, whose knowledge is what came of the edit, that it holds it."""
    with releases.writing():
        releases.write_manifest(live.model_copy(update={"edits": (*live.edits, edit.id)}))


def _told(items: Items, draft: Draft, outcome: str) -> Edited:
    edit, release = draft.edit, items.release
    named: list[str | None] = []
    if edit is not None:
        named = [item.label for item in edit.added] + [item.label for item in edit.relabelled]
    new = dict.fromkeys(label for label in named if label and label not in release.labels)
    planned = release.items
    if edit is not None:
        planned += len(edit.added) - (len(draft.ids) if edit.removed else 0)
    return Edited(
        task=release.task,
        edit=None,
        outcome=outcome,
        base=release.release,
        release=None,
        live=release.release,
        store_version=release.store_version,
        items=planned,
        added=tuple(range(release.items, release.items + len(edit.added))) if edit else (),
        removed=draft.ids if edit and edit.removed else (),
        relabelled=draft.ids if edit and edit.relabelled else (),
        skipped=draft.skipped,
        new_labels=tuple(new),
        labeller=edit.labeller if edit else None,
        written=draft.written,
        warnings=draft.warnings,
    )


def _figures(before: Measured, now: Measured, held_out: Examples) -> dict[str, Any]:
    told: dict[str, Any] = {
        "held_out": None,
        "left_out": {label: asdict(recall) for label, recall in now.left_out.items()},
    }
    if len(held_out):
        told["held_out"] = {
            "rows": len(held_out),
            "accuracy": now.accuracy(held_out),
            "live_accuracy": before.accuracy(held_out),
        }
    return told


def _too_few(now: Measured, config: ReleaseConfig) -> list[str]:
    return [
        f"the label {label!r} has {found.rows} items, too few to judge it by: the gate asks for "
        f"{config.label_rows}"
        for label, found in now.left_out.items()
        if found.rows < config.label_rows
    ]


def _metrics(releases: ReleaseDirectory, made: ReleaseManifest) -> dict[str, Any]:
    """Figures of the release, where it was here before: an edit that is undone makes it anew."""
    try:
        return dict(releases.get(made.release).metrics)
    except ReleaseNotFound:
        return {}


def _finish_purges(
    task_directory: Path, settings: EditSettings, display: ProgressDisplay
) -> Purged | None:
    """Delete what was to be deleted; None where nothing was. Texts that are live again stay."""
    asked = [edit for edit in edits_in_force(task_directory) if edit.purge == "asked"]
    keys = {key for edit in asked for key in edit.removed}
    if keys:
        keys -= set(Items.of(task_directory).keys)
    if not keys:
        return None
    with step(display, "purge"):
        return purge(task_directory, keys, settings.store)


def _timed(edited: Edited, started: float) -> Edited:
    return replace(edited, seconds=round(time.perf_counter() - started, 3))

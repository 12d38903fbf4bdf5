"""What a person wants, as an edit of the live release's items: checked as a whole, written nowhere yet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offline.knowledge.additions import (
    NewItem,
    check_against_held_out,
    checked_label,
    without_duplicates,
)
from offline.knowledge.items import Filter, Items
from offline.knowledge.journal import AddedItem, Edit, RelabelledItem
from offline.knowledge.sources import Labelling, Sources
from offline.pipeline.progress import NO_DISPLAY, ProgressDisplay
from services.platform.errors import InvalidData, NotFound


@dataclass(frozen=True, slots=True)
class Draft:
    """An edit that was not made yet.

    Attributes:
        edit: None where there is nothing to do.
        ids: of the items that are taken out or labelled anew, in the live release.
        skipped: texts that are knowledge already.
        warnings: what a person should know.
        written: figures of samples that were written for it; None where none were asked for.
    """

    edit: Edit | None
    ids: tuple[int, ...] = ()
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    written: Mapping[str, Any] | None = None


def draft_addition(
    items: Items,
    new: Sequence[NewItem],
    sources: Sources,
    *,
    new_labels: bool,
    skip_duplicates: bool,
    ask_labeller: bool,
    samples: int = 0,
    seed: int = 0,
    display: ProgressDisplay = NO_DISPLAY,
) -> Draft:
    """Add texts, and samples for their labels where there are to be any.

    Args:
        items: of the live release.
        new: texts, with labels or without.
        sources: that the release came from.
        new_labels: labels that the release does not have may come in.
        skip_duplicates: leave out what is knowledge already.
        ask_labeller: False does without its probabilities.
        samples: that the run's generator writes for each label of the texts; see `written_samples`.
        seed: of the samples.
        display: is told of the steps of writing them.

    Raises:
        InvalidData: a text or label cannot be used (see `offline.knowledge.additions`), or no samples can be written.
            Nothing is added then.
    """
    pair = items.knowledge.metadata.pair
    for item in new:
        if (item.pair is not None) != pair:
            raise InvalidData(
                f"{item.shown} is {'one text' if pair else 'a pair'}, the task's items are "
                f"{'pairs' if pair else 'single texts'}."
            )
        if item.label is None and not ask_labeller:
            raise InvalidData(
                f"{item.shown} has no label, and the labeller is not asked.",
                hint="Give it a label, or leave --no-labeller out.",
            )
    labels = items.release.labels
    named = [
        None if item.label is None else checked_label(item.label, labels, allow_new=new_labels)
        for item in new
    ]
    by_place = {item.where: label for item, label in zip(new, named, strict=True)}
    kept, skipped = without_duplicates(new, items.keys, skip=skip_duplicates)
    warnings = check_against_held_out(kept, sources)
    if not kept:
        if samples:
            warnings.append("no samples were written, since none of the texts is new")
        return Draft(None, skipped=skipped, warnings=tuple(warnings))
    labeller, given = _asked(
        sources,
        [item.text for item in kept],
        [item.pair or "" for item in kept] if pair else None,
        ask_labeller,
    )
    added = [
        AddedItem(
            text=item.text,
            text_pair=item.pair,
            label=by_place[item.where],
            probabilities=probabilities,
        )
        for item, probabilities in zip(kept, given, strict=True)
    ]
    figures = None
    if samples:
        from offline.knowledge.written_samples import written_samples  # brings the teacher along

        asked = [replace(item, label=by_place[item.where]) for item in kept]
        written = written_samples(items, asked, sources, samples, seed=seed, display=display)
        added += written.items
        figures = written.figures
        warnings += written.warnings
    edit = Edit.now(items.release.edits, labeller=labeller, added=added)
    return Draft(edit, skipped=skipped, warnings=tuple(warnings), written=figures)


def draft_removal(items: Items, ids: Sequence[int], wanted: Filter, *, purge: bool) -> Draft:
    """Take items out: those with the ids, those that fit the filter, and their copies.

    Args:
        items: of the live release.
        ids: of items.
        wanted: empty for none.
        purge: delete their texts from older releases as well; texts that the filter names by key, and by
            nothing else, may then be in older ones alone.

    Raises:
        NotFound: there is no such item, or none that fits.
        InvalidData: no item would be left.
    """
    chosen = {*items.checked(ids), *(items.matching(wanted) if wanted else ())}
    every = items.keys
    keys = {every[identity] for identity in chosen}
    if purge and wanted.keys_alone:
        # An older release need not have the text under the label that is asked for: only the text itself counts.
        keys.update(wanted.keys)
    if not keys:
        raise NotFound(
            f"No item of the release {items.release.release} fits.",
            hint="`retrikt knowledge list` takes the same filters.",
        )
    rows = tuple(row for row, key in enumerate(every) if key in keys)
    if len(rows) == len(every):
        raise InvalidData(f"All {len(every)} items would be taken out.", hint="Keep some of them.")
    edit = Edit.now(items.release.edits, removed=sorted(keys), purge=purge)
    return Draft(edit, rows, warnings=_not_there(wanted.keys, every))


def _not_there(named: Collection[str], there: Sequence[str]) -> tuple[str, ...]:
    """Of several texts that were named, one may be mistyped."""
    missing = len(set(named) - set(there))
    if not missing:
        return ()
    return (f"{missing} of {len(set(named))} texts are not in the live release",)


def draft_relabelling(
    items: Items,
    ids: Sequence[int],
    label: str,
    sources: Sources,
    *,
    new_labels: bool,
    ask_labeller: bool,
) -> Draft:
    """Give items, and their copies, another label. Arguments as those of `draft_addition`.

    Raises:
        NotFound: there is no such item.
        InvalidData: the label cannot be used.
    """
    name = checked_label(label, items.release.labels, allow_new=new_labels)
    every = items.keys
    keys = list(dict.fromkeys(every[identity] for identity in items.checked(ids)))
    first = {key: every.index(key) for key in keys}
    texts = [items.texts[first[key]] for key in keys]
    pairs = [items.pairs[first[key]] or "" for key in keys]
    labeller, given = _asked(
        sources, texts, pairs if items.knowledge.metadata.pair else None, ask_labeller
    )
    relabelled = [
        RelabelledItem(key=key, label=name, probabilities=probabilities)
        for key, probabilities in zip(keys, given, strict=True)
    ]
    rows = tuple(row for row, key in enumerate(every) if key in first)
    return Draft(Edit.now(items.release.edits, labeller=labeller, relabelled=relabelled), rows)


def _asked(
    sources: Sources, texts: Sequence[str], pairs: Sequence[str] | None, ask: bool
) -> tuple[str | None, list[dict[str, float] | None]]:
    if not ask:
        return None, [None] * len(texts)
    labelling: Labelling | None = sources.labelling()
    if labelling is None:
        raise InvalidData(
            "The labeller that the live release came from is not here, so the texts get no soft labels.",
            hint="Edit where the run was made, or say --no-labeller to take the labels as they are given.",
        )
    return labelling.identity, list(labelling.probabilities(texts, pairs))

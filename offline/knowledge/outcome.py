"""What became of an edit, as JSON for whoever called for it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of an edit.

    Attributes:
        task: name of the task.
        edit: its id in the journal; None where nothing was written.
        outcome: `activated`; `refused` by the gate; `added`, where the configuration says not to activate;
            `unchanged`, where the live release is what came of it; `overtaken`, where another release went live
            while it was made; `planned`, of a dry run; `nothing`, where there was nothing to do.
        base: release that it was made on.
        release: that came of it.
        live: release that serves now.
        store_version: that the live release searches.
        items: of the release.
        added, removed, relabelled: items by id: added ones' in the new release, the others' in `base`.
        skipped: texts left out since they are knowledge already.
        new_labels: labels that came with it.
        gone_labels: labels that no item has any more.
        labeller: identity of the one that was asked; None for none.
        written: samples that a generator wrote for the labels: how many were `written`, `kept` by label, and `dropped`
            by reason; None where none were asked for.
        held_out: rows, and accuracy of both releases on them; None where there are none here.
        left_out: of each label that the student does not know: its items, and the share of them that is
            recognised without looking up the item itself.
        purged: what was deleted for good.
        warnings: what a person should know.
        reasons: why the release is not live.
        seconds: that it took.
    """

    task: str
    edit: str | None
    outcome: str
    base: str
    release: str | None
    live: str | None
    store_version: str | None
    items: int
    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    relabelled: tuple[int, ...] = ()
    skipped: int = 0
    new_labels: tuple[str, ...] = ()
    gone_labels: tuple[str, ...] = ()
    labeller: str | None = None
    written: Mapping[str, Any] | None = None
    held_out: Mapping[str, Any] | None = None
    left_out: Mapping[str, Any] | None = None
    purged: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        if self.outcome not in ("refused", "overtaken"):
            return 0
        from offline.rebuild import REFUSED_STATUS  # brings the whole pipeline along

        return REFUSED_STATUS

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

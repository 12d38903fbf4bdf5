"""A sheet of samples that a person can read: a few kept and dropped ones of every label."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline.teacher.quality import REASONS

_KEPT = 6
_DROPPED = 4


def sample_sheet(
    labels: Sequence[str],
    texts: Sequence[str],
    written_for: NDArray[np.int64],
    soft_labels: NDArray[np.float32],
    reasons: Sequence[str | None],
    *,
    left_out: int,
    task: str,
    seed: int,
) -> str:
    """Markdown: for each label six kept samples and four dropped ones, drawn at random.

    Args:
        labels: label names.
        texts: n samples.
        written_for: (n,) the label that each was written for.
        soft_labels: (n, labels) by the labeller.
        reasons: why each was dropped; None for the kept ones.
        left_out: samples that were written beside these, and did not come to their end or have no text.
        task: the task's name.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    dropped = np.array([reason is not None for reason in reasons], dtype=bool)
    lines = [
        f"# Samples of {task}",
        "",
        f"{len(texts) + left_out} were written, {left_out} of them without an end or a text; {int((~dropped).sum())} "
        "are kept.",
        "Drawn at random for each label, of those with both; the numbers are the labeller's probability of its first",
        "label, which is named where it is another than the one that the sample was written for.",
        "",
    ]
    for place, label in enumerate(labels):
        mine = written_for == place
        kept = np.flatnonzero(mine & ~dropped)
        lines += [f"## {label}", "", f"{len(kept)} of {int(mine.sum())} kept.", ""]
        for rows, most in ((kept, _KEPT), (np.flatnonzero(mine & dropped), _DROPPED)):
            for row in np.sort(random.permutation(rows)[:most]):
                lines.append(_line(labels, texts[row], place, soft_labels[row], reasons[row]))
        lines.append("")
    found = sorted({reason for reason in reasons if reason is not None}, key=list(REASONS).index)
    if found:
        lines += ["## Reasons", "", *(f"- `{name}`: {REASONS[name]}" for name in found), ""]
    return "\n".join(lines)


def _line(
    labels: Sequence[str], text: str, place: int, soft_label: NDArray[np.float32], why: str | None
) -> str:
    best = int(soft_label.argmax())
    first = f"{soft_label[best]:.2f}" + ("" if best == place else f" {labels[best]}")
    # A sample is one line of plain text, whatever is in it.
    shown = " / ".join(text.split("\n")).replace("`", "'")
    return f"- {'kept' if why is None else f'dropped, `{why}`'} ({first}): `{shown}`"

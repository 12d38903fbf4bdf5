"""The table that a regime begins with: accuracy by system and task."""

from collections.abc import Sequence

from offline.bench.lines import Group, Line, in_points
from offline.report.evaluation import OURS


def overview(mean: Sequence[Line], by_task: Sequence[tuple[Group, Sequence[Line]]]) -> str:
    """Markdown: a system a line, a task a column; ours minus each on the mean of the tasks, in points.

    Args:
        mean: over all tasks, of the systems that have them all.
        by_task: the lines of each task.
    """
    tasks = [task for (_, task, _), _ in by_task]
    head = ["system", *tasks, f"{OURS} minus it, mean, points (95 %)", "parameters"]
    written = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for line in mean:
        of_tasks = (
            next(found for found in lines if found.system == line.system) for _, lines in by_task
        )
        cells = [line.system, *(found.with_spread("accuracy") for found in of_tasks)]
        if line.system == OURS:
            cells = [f"**{cell}**" for cell in cells]
        cells += [
            "" if line.difference is None else in_points(line.difference),
            f"{line.mean('parameters') / 1e6:.3g} M",
        ]
        written.append("| " + " | ".join(cells) + " |")
    return "\n".join(written) + "\n"

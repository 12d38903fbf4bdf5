"""Which task's directory a command works in: the one that is named, or the only one there is."""

from pathlib import Path
from typing import Annotated

import typer

from services.platform.errors import InvalidConfig

RUNS = Path("runs")

TaskDirectory = Annotated[
    Path | None, typer.Option(help="A task's directory; by default the only one below ./runs.")
]


def task_directory(given: Path | None) -> Path:
    """The directory that is named; the only task with a release below `RUNS` where none is.

    Raises:
        InvalidConfig: it does not exist, or there is no such task, or several.
    """
    if given is not None:
        if not given.is_dir():
            raise InvalidConfig(
                f"The task directory {given} does not exist.",
                hint="Make a release with `retrikt run CONFIG`, or name another with --task-dir.",
            )
        return given
    found = sorted(path.parent for path in RUNS.glob("*/releases"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidConfig(
            f"There is no task with a release below {RUNS}.",
            hint="Make one with `make quickstart` or `retrikt run CONFIG`, or name one with --task-dir.",
        )
    raise InvalidConfig(
        f"There are several tasks below {RUNS}: {', '.join(path.name for path in found)}.",
        hint=f"Name one: --task-dir {found[0]}",
    )

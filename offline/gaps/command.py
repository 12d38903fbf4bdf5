"""`retrikt gaps`: its options, and how its groups are shown."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from offline.task_directory import TaskDirectory, task_directory
from services.platform.errors import InvalidConfig

if TYPE_CHECKING:
    from offline.gaps.grouping import Group
    from offline.gaps.report import GapReport

_FIRST = 3


class Vectors(StrEnum):
    """What texts are compared by."""

    ENCODER = "encoder"
    STUDENT = "student"


def gaps(
    logs: Annotated[
        list[Path],
        typer.Argument(
            help="Files of RETRIKT_STUDENT_GAP_LOG; the full ones beside them are read too."
        ),
    ],
    task_dir: TaskDirectory = None,
    groups: Annotated[
        int | None, typer.Option(min=1, help="How many; chosen where it is not given.")
    ] = None,
    vectors: Annotated[
        Vectors, typer.Option(help="The packaged sentence encoder's, or the live student's.")
    ] = Vectors.ENCODER,
    least_asked: Annotated[
        int, typer.Option(min=1, help="Leave out texts that were kept less often.")
    ] = 1,
    examples: Annotated[int, typer.Option(min=0, help="Texts of a group that are shown.")] = 4,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the texts there, as a task's unlabelled file or `knowledge add` take them."
        ),
    ] = None,
    take: Annotated[
        list[int] | None,
        typer.Option(help="Write this group alone, by its number; may be given several times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Group the texts that the store knows little about, so that the next rebuild can learn of them."""
    from offline.gaps.report import report_gaps, write_texts

    if take and output is None:
        raise InvalidConfig(
            "--take says which groups --output gets.", hint="Name a file: --output."
        )
    report = report_gaps(
        logs,
        task_directory(task_dir),
        vectors=vectors.value,
        groups=groups,
        least_asked=least_asked,
    )
    # Before anything is shown: who pipes it may not read to the end.
    count = None if output is None else write_texts(output, _chosen(report.groups, take))
    if as_json:
        typer.echo(json.dumps(report.as_dict(examples), indent=1, ensure_ascii=False))
        return
    _show(report, examples)
    if count is not None:
        Console(soft_wrap=True).print(f"{count} texts are in {escape(str(output))}")


def _chosen(groups: "list[Group]", take: list[int] | None) -> "dict[int, Group]":
    numbered = dict(enumerate(groups, start=1))
    if not take:
        return numbered
    if wrong := [number for number in take if number not in numbered]:
        raise InvalidConfig(
            f"There is no group {wrong[0]}.", hint=f"They are numbered from 1 to {len(groups)}."
        )
    return {number: numbered[number] for number in take}


def _show(report: "GapReport", examples: int) -> None:
    console = Console(soft_wrap=True)
    console.print(
        f"{report.lines} lines, {report.texts} texts, {report.known} of them in the live release's "
        f"knowledge by now; {len(report.groups)} groups",
        highlight=False,
    )
    for number, group in enumerate(report.groups, start=1):
        console.print(
            f"\n[bold]{number}[/]  {escape(', '.join(group.words))}  "
            f"[dim]{len(group.gaps)} texts, asked {group.asked} times; {_counts(group.signs)}[/]",
            highlight=False,
        )
        first = dict(list(group.labels.items())[:_FIRST])
        console.print(f"   answered {escape(_counts(first))}", highlight=False)
        for student, store, count in group.alone[:_FIRST]:
            told = f"   student {student}, store {store}: {count}"
            console.print(escape(told), style="dim", highlight=False)
        for gap in group.gaps[:examples]:
            shown = gap.text if gap.pair is None else f"{gap.text} | {gap.pair}"
            console.print(f"   “{escape(shown)}”", highlight=False)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())

"""`retrikt bench`: its options. Everything heavy is imported inside the command."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.platform.errors import InvalidConfig

bench_app = typer.Typer(
    help="Measure the student and its peers on the same rows and seeds.", no_args_is_help=True
)

LISTS = ("--tasks", "--seeds", "--systems", "--ablations", "--without", "--k", "--store-size")
"""Options that take several values behind one name."""


class Regime(StrEnum):
    """Whether the left-over training rows, without their labels, are texts to learn from."""

    LABELS = "labels"
    UNLABELLED = "unlabelled"


@bench_app.callback()
def _bench() -> None:
    """Measure the student and its peers on the same rows and seeds."""


@bench_app.command()
def accuracy(
    tasks: Annotated[list[str], typer.Option(help="Folders of --data, or helpdesk.")],
    out: Annotated[Path, typer.Option(help="Gets results.json, outcomes/, table.md, pareto.svg.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with a folder a task: train.jsonl, test.jsonl …")
    ] = None,
    shots: Annotated[str, typer.Option(help="Labelled rows a class, or all.")] = "all",
    regime: Annotated[
        Regime, typer.Option(help="unlabelled: left-over training rows are texts without labels.")
    ] = Regime.LABELS,
    seeds: Annotated[list[int] | None, typer.Option(min=0, help="For example: 0 1 2")] = None,
    systems: Annotated[list[str] | None, typer.Option(help="These alone; else all.")] = None,
    ablations: Annotated[
        list[str] | None,
        typer.Option(
            help="Of ours: no-ppo, no-retrieval-loss, no-gate, no-lexical, no-neighbours, int8."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Ours without an origin of knowledge: generated, unlabelled, train."),
    ] = None,
    k: Annotated[list[int] | None, typer.Option(min=1, help="Ours with k neighbours.")] = None,
    store_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Ours with that many items in the store.")
    ] = None,
    stages: Annotated[
        Path | None, typer.Option(help="Where finished stages are kept; else OUT/stages.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value, for all runs. May be given several times."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Measure finished rows of other code or settings anew."),
    ] = False,
    quick: Annotated[bool, typer.Option(help="Tiny settings: shows that everything runs.")] = False,
) -> None:
    """One row a system, task and seed, then the table. What is measured already is not measured again."""
    from offline.bench.accuracy import Request, run_accuracy
    from offline.bench.variants import variants
    from offline.cli import _console

    request = Request(
        data=data,
        tasks=tuple(dict.fromkeys(tasks)),
        regime="unlabelled" if regime is Regime.UNLABELLED else "labels",
        shots=_shots(shots),
        seeds=tuple(dict.fromkeys(seeds or [0])),
        variants=variants(ablations or [], without or [], k or [], store_size or []),
        systems=systems,
        overrides=overrides or [],
        quick=quick,
        replace=replace,
    )
    run_accuracy(request, out, stages or out / "stages", _console())


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """`bench … --tasks a b` as `bench … --tasks a --tasks b`, the only form that click reads.

    Other commands' arguments stay as they are.
    """
    if not arguments or arguments[0] != "bench":
        return list(arguments)
    spread: list[str] = []
    current: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            current = argument if argument in LISTS else None
            if current is None:
                spread.append(argument)
        elif current is not None:
            spread += [current, argument]
        else:
            spread.append(argument)
    return spread


def _shots(given: str) -> int | None:
    if given == "all":
        return None
    if given.isdigit() and int(given) >= 2:
        return int(given)
    raise InvalidConfig(f"--shots {given}: expected `all`, or at least 2 rows a class.")

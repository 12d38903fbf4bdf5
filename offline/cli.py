"""The command `retrikt`: thin commands over the functions that do the work.

Everything heavy is imported inside the command that needs it, so that `--help`, `release` and `serve`
start at once, and the serving commands work where torch is not installed.
"""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from offline.bench.command import bench_app, spread_lists
from offline.configs.ready import configuration_file
from offline.gaps.command import gaps
from offline.knowledge.commands import app as knowledge_app
from offline.pipeline.engine_kind import EngineKind
from offline.task_directory import RUNS, TaskDirectory, task_directory
from services.platform.errors import InvalidConfig, RetriktError

if TYPE_CHECKING:
    from offline.run import TaskRun

app = typer.Typer(
    help="Move a large language model's knowledge into a searchable store, and serve a student of at "
    "most 2 % of its size that looks things up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
release_app = typer.Typer(
    help="Releases of a task: list, show, switch, go back.", no_args_is_help=True
)
app.add_typer(release_app, name="release")
app.add_typer(knowledge_app, name="knowledge")
app.add_typer(bench_app, name="bench")
app.command()(gaps)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"retrikt {version('retrikt')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version."),
    ] = False,
) -> None:
    pass


def _known(name: str) -> str:
    """Told at once: what reads a configuration takes seconds to be imported."""
    configuration_file(name)
    return name


Config = Annotated[
    str,
    typer.Argument(
        callback=_known,
        help="A YAML file, or the name of a ready configuration (helpdesk, banking77).",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value, over the file. May be given several times."),
]
EngineOption = Annotated[
    EngineKind | None,
    typer.Option(help="Where samples are written and labelled; in place of the configuration's."),
]
Output = Annotated[Path, typer.Option(help="Where the directories of the tasks are.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")]


@app.command()
def run(
    config: Config,
    seed: Annotated[
        int | None, typer.Option(min=0, help="In place of the configuration's.")
    ] = None,
    overrides: Overrides = None,
    engine: EngineOption = None,
    output: Output = RUNS,
    upto: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would run, and why.")] = False,
) -> None:
    """Build a release from task data: every stage that is not up to date, then the report."""
    task = _task_run(config, overrides, engine, output, _console())
    if dry_run:
        _print_plan(task.plan(seed, upto))
        return
    task.run(seed, upto)


@app.command()
def config(
    name: Annotated[
        str, typer.Argument(metavar="CONFIG", callback=_known, help="As `run` takes it.")
    ] = "helpdesk",
    overrides: Overrides = None,
) -> None:
    """Print a configuration with every key and its value, defaults included, as YAML."""
    import yaml

    from offline.configs.run import load_run_config

    settings = load_run_config(name, overrides or [])
    told = settings.model_dump(mode="json")
    # Left out of dumps, as what is made does not depend on them.
    told["task"]["data"] = {"directory": str(settings.task.data.directory), **told["task"]["data"]}
    told["store"] |= {"backend": settings.store.backend, "url": settings.store.url}
    told["store"]["layout"] = settings.store.layout.model_dump(mode="json")
    # The student's own, and refused where it is given again.
    del told["baselines"]["student"]
    typer.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def rebuild(
    config: Config = "helpdesk",
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Write new samples; kept for later rebuilds that are given none."),
    ] = None,
    store_only: Annotated[
        bool,
        typer.Option(
            help="Index the live release's knowledge file into a new version; run nothing."
        ),
    ] = False,
    overrides: Overrides = None,
    engine: EngineOption = None,
    output: Output = RUNS,
) -> None:
    """Bring the live release up to date: what a scheduler calls. Its summary is JSON on standard output.

    Exit status: 0 activated, unchanged, only added, or kept rolled back; 9 refused by the gate; 8 another
    run works in the task's directory; 6 the disk is full; 5 the store, or the Ray cluster, does not answer; 4 files
    are damaged; 3 a model cannot be found, or nothing is live (--store-only); 2 the configuration or the data is wrong.
    """
    from offline.rebuild import rebuild as bring_up_to_date

    if store_only and seed is not None:
        raise InvalidConfig(
            "--store-only writes no samples, so there is nothing to seed.", hint="Leave --seed out."
        )
    if store_only and engine is not None:
        raise InvalidConfig(
            "--store-only runs nothing that an engine could do.", hint="Leave --engine out."
        )
    task = _task_run(config, overrides, engine, output, _console(stderr=True))
    try:
        rebuilt = bring_up_to_date(task, seed=seed, store_only=store_only)
    except RetriktError as error:
        failed = {"task": task.config.task.name, "outcome": "failed", "code": error.code}
        print(json.dumps({**failed, "reasons": [str(error)]}, indent=1))
        raise
    print(rebuilt.as_json())
    if rebuilt.exit_status:
        raise typer.Exit(rebuilt.exit_status)


@app.command()
def evaluate(
    config: Config = "helpdesk",
    seeds: Annotated[list[int] | None, typer.Option(help="For example: --seeds 0 1 2")] = None,
    overrides: Overrides = None,
    engine: EngineOption = None,
    output: Output = RUNS,
) -> None:
    """Run the chain up to the evaluation for several seeds, and write the report over all of them."""
    task = _task_run(config, overrides, engine, output, _console())
    task.evaluate(seeds or [task.config.seed])


@app.command()
def quickstart(output: Output = RUNS) -> None:
    """Run the task `helpdesk` end to end, then ask the served release for a prediction over HTTP."""
    from offline.quickstart import quickstart as start

    start(output, _console())


@app.command()
def serve(
    port: Port = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    task_dir: TaskDirectory = None,
    store_url: Annotated[
        str | None, typer.Option(help="A store service to ask; without it the store is embedded.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that serve on the port; 1 unless set."),
    ] = None,
) -> None:
    """Serve the live release of a task: POST /predict."""
    from services.platform.logs import configure_logs
    from services.platform.settings import load_settings
    from services.student.app import run as run_student
    from services.student.settings import StudentSettings

    settings = load_settings(
        StudentSettings,
        task_dir=task_directory(task_dir),
        host=host,
        port=port,
        store_url=store_url,
        workers=workers,
    )
    configure_logs("student", settings.log_level)
    run_student(settings, on_bound=_say_where)


@app.command()
def store(
    port: Port = 8001,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    task_dir: TaskDirectory = None,
) -> None:
    """Serve the store versions of a task: POST /v1/versions/{version}/search."""
    from services.platform.logs import configure_logs
    from services.platform.settings import load_settings
    from services.store.app import run as run_store
    from services.store.settings import StoreSettings

    settings = load_settings(
        StoreSettings,
        directory=task_directory(task_dir) / "store",
        releases=task_directory(task_dir) / "releases",
        snapshots=task_directory(task_dir) / "snapshots",
        host=host,
        port=port,
    )
    configure_logs("store", settings.log_level)
    run_store(settings, on_bound=_say_where)


@release_app.command("list")
def release_list(task_dir: TaskDirectory = None) -> None:
    """Every release, the newest first."""
    releases = _releases(task_dir)
    live = releases.live()
    table = Table("release", "created", "items", "accuracy", "state")
    for manifest in sorted(releases.list(), key=lambda item: item.created_at, reverse=True):
        state = "live" if live and manifest.release == live.release else ""
        if live and manifest.release == live.previous:
            state = "previous"
        if not state and manifest.gate:
            state = "refused"
        if not manifest.can_serve:
            state = "purged" if manifest.purged_at is not None else "pruned"
        accuracy = manifest.metrics.get("accuracy")
        shown = f"{accuracy:.3f}" if isinstance(accuracy, float) else ""
        table.add_row(manifest.release, manifest.created_at, str(manifest.items), shown, state)
    _console().print(table)


@release_app.command("show")
def release_show(release: str, task_dir: TaskDirectory = None) -> None:
    """The manifest of a release, as JSON."""
    manifest = _releases(task_dir).get(release)
    print(json.dumps(manifest.model_dump(mode="json"), indent=2))


@release_app.command("activate")
def release_activate(release: str, task_dir: TaskDirectory = None) -> None:
    """Make a release the live one; running servers follow within a second."""
    pointer = _releases(task_dir).activate(release)
    print(f"live: {pointer.release} (before: {pointer.previous or 'none'})")


@release_app.command("rollback")
def release_rollback(task_dir: TaskDirectory = None) -> None:
    """Make the release before the live one live again."""
    pointer = _releases(task_dir).rollback()
    print(f"live: {pointer.release} (before: {pointer.previous or 'none'})")


@release_app.command("prune")
def release_prune(
    keep: Annotated[int, typer.Option(min=1, help="Newest releases, and snapshots, that stay.")],
    dry_run: Annotated[bool, typer.Option(help="Say what would go; take nothing.")] = False,
    task_dir: TaskDirectory = None,
    qdrant_url: Annotated[
        str | None,
        typer.Option(
            envvar="RETRIKT_JOBS_QDRANT_URL",
            help="A Qdrant server that has the store versions; else they are in the task's directory.",
        ),
    ] = None,
) -> None:
    """Give up old releases with their store versions, and old snapshots; what serves stays.

    Live, previous and whatever a student still serves stay too. A release that was given up stays in the list.
    """
    from offline.store.clean_up import clean_up_task
    from offline.store.config import StoreConfig

    _console(stderr=True)
    store = StoreConfig(backend="server", url=qdrant_url) if qdrant_url else StoreConfig()
    done = clean_up_task(task_directory(task_dir), store, keep, dry_run=dry_run)
    print(json.dumps({"dry_run": dry_run, **done.figures()}, indent=1))


def _task_run(
    config: str,
    overrides: Sequence[str] | None,
    engine: EngineKind | None,
    output: Path,
    console: Console,
) -> "TaskRun":
    from offline import run
    from offline.configs.loading import Origin

    # `--engine` stands for an override.
    given = [*(overrides or []), *([] if engine is None else [f"engine.kind={engine.value}"])]
    origin = Origin(configuration_file(config), given)
    return run.TaskRun(run.load(config, given), output, console, origin)


def _console(*, stderr: bool = False) -> Console:
    from offline.pipeline.progress import command_console

    return command_console(stderr=stderr)


def _say_where(url: str) -> None:
    print(f"serving on {url}", flush=True)


def _releases(task_dir: Path | None) -> Any:
    from services.releases.directory import ReleaseDirectory

    return ReleaseDirectory(task_directory(task_dir) / "releases")


def _print_plan(steps: Any) -> None:
    table = Table("stage", "", "why", "key")
    for step in steps:
        table.add_row(step.stage, "run" if step.runs else "keep", step.reason, step.key or "")
    _console().print(table)


def _spread(arguments: Sequence[str], name: str) -> list[str]:
    """`--seeds 0 1 2` as `--seeds 0 --seeds 1 --seeds 2`, the only form that click reads."""
    spread: list[str] = []
    place = 0
    while place < len(arguments):
        argument = arguments[place]
        place += 1
        spread.append(argument)
        if argument != name or place == len(arguments):
            continue
        spread.append(arguments[place])
        place += 1
        while place < len(arguments) and arguments[place].isdigit():
            spread += [name, arguments[place]]
            place += 1
    return spread


def main() -> None:
    """Entry point. Exit status: 0, 2 for bad input, else the error's own (`services.platform.errors`)."""
    try:
        app(spread_lists(_spread(sys.argv[1:], "--seeds")))
    except RetriktError as error:
        console = Console(stderr=True)
        console.print(f"[bold red]error[/] [dim]{error.code}[/]", end=" ")
        console.print(error.message, markup=False, highlight=False, soft_wrap=True)
        if error.hint:
            console.print(error.hint, markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)

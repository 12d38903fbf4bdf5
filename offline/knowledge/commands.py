"""The commands `retrikt knowledge …`: looking at the live release's items, and editing them.

What edits say goes to standard output as one JSON object, as that of `retrikt rebuild`; their steps to standard error.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offline.knowledge.edit_options import QdrantUrl, prepared
from offline.task_directory import TaskDirectory, task_directory
from services.platform.errors import InvalidConfig

if TYPE_CHECKING:
    from offline.knowledge.outcome import Edited
    from offline.pipeline.progress import ProgressDisplay

app = typer.Typer(
    help="Knowledge items of the live release: list, show, add, remove, relabel. Each edit makes the next "
    "store version with the same student, and releases it through a gate.",
    no_args_is_help=True,
)

Labels = Annotated[
    list[str] | None, typer.Option("--label", help="With this label; may be given several times.")
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", help="generated, train, unlabelled or manual; several times."),
]
Contains = Annotated[
    str | None, typer.Option(help="With this in the text, whatever the case of letters.")
]
Release = Annotated[
    str | None, typer.Option(help="The release that the ids are of: refused if another is live.")
]
Config = Annotated[
    str | None,
    typer.Option(help="A configuration with the gate's thresholds and the store; else defaults."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value, over the configuration. Several times."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
NewLabels = Annotated[
    bool, typer.Option("--new-labels", help="Labels that the release does not have may come in.")
]
NoLabeller = Annotated[
    bool,
    typer.Option("--no-labeller", help="Take the labels as given; ask for no soft labels beside."),
]


@app.callback()
def _log_to_standard_error() -> None:
    from services.platform.logs import configure_logs

    configure_logs("retrikt", "warning")


@app.command("list")
def list_items(
    label: Labels = None,
    origin: Origins = None,
    contains: Contains = None,
    limit: Annotated[int, typer.Option(min=1, help="Items that are shown.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with soft labels.")] = False,
    release: Annotated[str | None, typer.Option(help="In place of the live one.")] = None,
    task_dir: TaskDirectory = None,
) -> None:
    """Items that fit every filter, by id."""
    from offline.knowledge.item_table import print_items
    from offline.knowledge.items import Filter, Items

    items = Items.of(task_directory(task_dir), release)
    wanted = Filter(label or (), origin or (), contains)
    found = items.matching(wanted)
    if as_json:
        told = {
            "release": items.release.release,
            "items": len(items),
            "found": len(found),
            "shown": [items.described(identity) for identity in found[:limit]],
        }
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    print_items(items, found, limit)


@app.command("show")
def show_item(
    identity: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")],
    release: Annotated[str | None, typer.Option(help="In place of the live one.")] = None,
    task_dir: TaskDirectory = None,
) -> None:
    """All that is known of an item, as JSON."""
    from offline.knowledge.items import Items

    items = Items.of(task_directory(task_dir), release)
    told = {"release": items.release.release, **items.described(items.checked([identity])[0])}
    typer.echo(json.dumps(told, indent=1, ensure_ascii=False))


@app.command("add")
def add_items(
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON lines, CSV or Parquet with the columns of the task's data."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="One text, in place of a file.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Its second text, for a pair task.")] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Its label; of every row of the file that has none of its own."),
    ] = None,
    new_labels: NewLabels = False,
    skip_duplicates: Annotated[
        bool, typer.Option("--skip-duplicates", help="Leave out what is knowledge already.")
    ] = False,
    no_labeller: NoLabeller = False,
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Samples that the run's generator writes for each label of the texts; those that a labeller "
            "takes for it come in too.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    dry_run: DryRun = False,
    config: Config = None,
    overrides: Overrides = None,
    qdrant_url: QdrantUrl = None,
    task_dir: TaskDirectory = None,
) -> None:
    """Add texts, with labels that may be new ones. The labeller gives soft labels beside.

    Exit status: 0 live (or nothing to do); 9 refused by the gate; 2 the texts cannot be used; 8 a run works in
    the task's directory.
    """
    if (file is None) == (text is None):
        raise InvalidConfig("Name a file, or give one --text; not both, not neither.")
    if file is not None and text_pair is not None:
        raise InvalidConfig("--text-pair goes with --text; a file has its second texts in it.")
    directory, settings = prepared(task_dir, config, overrides, qdrant_url, dry_run)
    from offline.knowledge.additions import NewItem, read_additions
    from offline.knowledge.drafts import Draft, draft_addition
    from offline.knowledge.editing import edit_knowledge
    from offline.knowledge.items import Items
    from offline.knowledge.sources import Sources

    def draft(items: Items, sources: Sources) -> Draft:
        if file is not None:
            fields = sources.fields
            if items.knowledge.metadata.pair and fields.text_pair is None:
                # The task's own names are not here.
                fields = fields.model_copy(update={"text_pair": "text_pair"})
            new = read_additions(file, fields)
        else:
            given = [part if part is None else part.strip() for part in (text, text_pair)]
            if "" in given:
                raise InvalidConfig("The text is empty.")
            new = [NewItem("--text", str(given[0]), given[1], None)]
        if label is not None:
            new = [item if item.label is not None else item.labelled(label) for item in new]
        return draft_addition(
            items,
            new,
            sources,
            new_labels=new_labels,
            skip_duplicates=skip_duplicates,
            ask_labeller=not no_labeller,
            samples=samples,
            seed=seed,
            display=display,
        )

    display = _display()
    _tell(edit_knowledge(directory, draft, settings, display=display))


@app.command("remove")
def remove_items(
    ids: Annotated[list[int] | None, typer.Argument(help="As `list` shows them.")] = None,
    label: Labels = None,
    origin: Origins = None,
    contains: Contains = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="This text, whatever its case; with --purge also in older releases."),
    ] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="Second text of each --text, for a pair task.")
    ] = None,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge",
            help="Delete the texts from all that is kept; releases with them never serve again.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate says.")] = False,
    release: Release = None,
    dry_run: DryRun = False,
    config: Config = None,
    overrides: Overrides = None,
    qdrant_url: QdrantUrl = None,
    task_dir: TaskDirectory = None,
) -> None:
    """Take items out: by id, or those that fit every filter. Copies of a text go with it."""
    directory, settings = prepared(task_dir, config, overrides, qdrant_url, dry_run, force=force)
    from offline.knowledge.drafts import Draft, draft_removal
    from offline.knowledge.editing import edit_knowledge
    from offline.knowledge.items import Filter, Items
    from offline.knowledge.journal import item_keys
    from offline.knowledge.sources import Sources

    if text_pair and len(text_pair) != len(text or ()):
        raise InvalidConfig("Give one --text-pair for each --text.")
    keys = item_keys(text, text_pair) if text else ()
    wanted = Filter(label or (), origin or (), contains, keys)
    if not ids and not wanted:
        raise InvalidConfig("Say which items: by id, or by a filter.")

    def draft(items: Items, _: Sources) -> Draft:
        if text and bool(text_pair) != items.knowledge.metadata.pair:
            needed = "needs" if not text_pair else "has no"
            raise InvalidConfig(f"The task {items.release.task} {needed} a --text-pair.")
        return draft_removal(items, ids or (), wanted, purge=purge)

    _tell(
        edit_knowledge(
            directory, draft, settings, ids_of=release, by_id=bool(ids), display=_display()
        )
    )


@app.command("relabel")
def relabel_items(
    ids: Annotated[list[int], typer.Argument(help="As `list` shows them.")],
    label: Annotated[str, typer.Option(help="The label that they are given.")],
    new_labels: NewLabels = False,
    no_labeller: NoLabeller = False,
    release: Release = None,
    dry_run: DryRun = False,
    config: Config = None,
    overrides: Overrides = None,
    qdrant_url: QdrantUrl = None,
    task_dir: TaskDirectory = None,
) -> None:
    """Give items another label. Copies of a text get it too."""
    directory, settings = prepared(task_dir, config, overrides, qdrant_url, dry_run)
    from offline.knowledge.drafts import Draft, draft_relabelling
    from offline.knowledge.editing import edit_knowledge
    from offline.knowledge.items import Items
    from offline.knowledge.sources import Sources

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_relabelling(
            items, ids, label, sources, new_labels=new_labels, ask_labeller=not no_labeller
        )

    _tell(
        edit_knowledge(directory, draft, settings, ids_of=release, by_id=True, display=_display())
    )


@app.command("edits")
def list_edits(task_dir: TaskDirectory = None) -> None:
    """The edits that were made, the oldest first, and whether they are in force, as JSON."""
    from offline.knowledge.in_force import edits_in_force
    from offline.knowledge.journal import Journal

    directory = task_directory(task_dir)
    in_force = {edit.id for edit in edits_in_force(directory)}
    told = [
        {
            "edit": edit.id,
            "made_at": edit.made_at,
            "in_force": edit.id in in_force,
            "added": len(edit.added),
            "removed": len(edit.removed),
            "relabelled": len(edit.relabelled),
            "purge": edit.purge,
        }
        for edit in Journal(directory).read()
    ]
    typer.echo(json.dumps(told, indent=1))


def _display() -> "ProgressDisplay":
    """Steps go to standard error: bars on a terminal, else events."""
    from offline.pipeline.progress import choose_display, command_console

    return choose_display(command_console(stderr=True))


def _tell(edited: "Edited") -> None:
    typer.echo(edited.as_json())
    if edited.exit_status:
        raise typer.Exit(edited.exit_status)

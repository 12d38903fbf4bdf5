"""What the commands that edit are told of a task's configuration and store, as the settings of an edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offline.task_directory import task_directory
from services.platform.errors import InvalidConfig

if TYPE_CHECKING:
    from offline.knowledge.editing import EditSettings

QdrantUrl = Annotated[
    str | None,
    typer.Option(
        envvar="RETRIKT_JOBS_QDRANT_URL",
        help="A Qdrant server that has the store versions, over the configuration.",
    ),
]


def prepared(
    task_dir: Path | None,
    config: str | None,
    overrides: list[str] | None,
    qdrant_url: str | None,
    dry_run: bool,
    *,
    force: bool = False,
) -> "tuple[Path, EditSettings]":
    """The task's directory, and how edits are released there.

    Raises:
        InvalidConfig: the configuration cannot be used, or it is overridden and not named.
    """
    from offline.knowledge.editing import EditSettings
    from offline.store.config import StoreConfig
    from offline.store.gate import ReleaseConfig

    if config is None:
        if overrides:
            raise InvalidConfig("--set changes a configuration.", hint="Name it: --config CONFIG.")
        store, release = StoreConfig(), ReleaseConfig()
    else:
        from offline.configs.run import load_run_config

        settings = load_run_config(config, overrides or [])
        store, release = settings.store, settings.release
    if qdrant_url:
        store = store.model_copy(update={"backend": "server", "url": qdrant_url})
    return task_directory(task_dir), EditSettings(store, release, dry_run=dry_run, force=force)

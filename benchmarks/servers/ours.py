"""Our services as they are shipped, and the least that FastAPI and uvicorn cost."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import Server, free_port, server


@contextmanager
def student(task_dir: Path, store: Server | None = None, **settings: object) -> Iterator[Server]:
    """`python -m services.student` on a task: one worker, metrics, request ids and access log on.

    Args:
        task_dir: of the task.
        store: the store service that it asks; without one it searches itself.
        settings: more of `StudentSettings`.
    """
    port = free_port()
    given: dict[str, object] = {"task_dir": task_dir, "port": port, **settings}
    if store is not None:
        given["store_url"] = store.url
    with _service("student", port, given, needs=() if store is None else (store,)) as running:
        yield running


@contextmanager
def store_service(
    directory: Path, *, releases: Path | None = None, port: int | None = None, **settings: object
) -> Iterator[Server]:
    """`python -m services.store` on a directory of sealed versions."""
    port = port or free_port()
    given: dict[str, object] = {"directory": directory, "port": port, **settings}
    if releases is not None:
        given["releases"] = releases
    with _service("store", port, given) as running:
        yield running


@contextmanager
def _service(
    name: str, port: int, settings: dict[str, object], needs: tuple[Server, ...] = ()
) -> Iterator[Server]:
    environment = {f"RETRIKT_{name}_{key}".upper(): str(value) for key, value in settings.items()}
    command = [sys.executable, "-m", f"services.{name}"]
    with server(command, port, environment, needs=needs) as running:
        yield running


@contextmanager
def echo() -> Iterator[Server]:
    """A FastAPI route that sends bodies back."""
    port = free_port()
    here = str(Path(__file__).parent)
    command = [sys.executable, "-m", "uvicorn", "echo_app:app", "--port", str(port)]
    with server([*command, "--app-dir", here, "--no-access-log"], port, {}) as running:
        yield running

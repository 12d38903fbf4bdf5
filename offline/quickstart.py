"""The first thing that a newcomer runs: task `helpdesk` end to end, then a prediction over HTTP."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from rich.console import Console

from offline.run import TaskRun, load
from services.platform.durable_files import replacing
from services.platform.errors import NotReady
from services.student.examples import EXAMPLES

TASK = "helpdesk"
QUESTION = "I typed my login wrong a few times and now it will not let me in any more"
HELPDESK = Path(__file__).parent / "tasks" / TASK
START_SECONDS = 60.0


def quickstart(output: Path, console: Console) -> None:
    """Make the release, show the table, serve it, and ask it something.

    Raises:
        NotReady: the server did not come up.
        RetriktError: whatever the run raises.
    """
    run = TaskRun(load(TASK, ()), output, console)
    run.run()
    offer_examples(run.directory)
    with _serving(run.directory) as url:
        body = {"inputs": QUESTION}
        # The server is on this machine: a proxy of the environment has no part in it.
        answer = httpx.post(f"{url}/predict", json=body, timeout=10.0, trust_env=False)
        answer.raise_for_status()
    console.print(f"\n[bold]POST /predict[/] {json.dumps(body)}", highlight=False)
    for place in answer.json()[:3]:
        console.print(f"  {place['score']:.3f}  {place['label']}", highlight=False)
    console.print(f"release {answer.headers['x-retrikt-release']}", highlight=False)
    console.print("\nServe it with [bold]make serve[/].")


def offer_examples(directory: Path) -> None:
    """Put helpdesk's examples into its task directory for the page, unless somebody chose others."""
    target = directory / EXAMPLES
    if not target.exists():
        with replacing(target) as file:
            file.write((HELPDESK / EXAMPLES).read_bytes())


@contextmanager
def _serving(directory: Path) -> Iterator[str]:
    """The task's live release behind HTTP, in a process of its own as `retrikt serve` starts it."""
    port = _free_port()
    command = [sys.executable, "-m", "offline", "serve", "--task-dir", str(directory)]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as events:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=events
        )
        try:
            _wait(server, url, events)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], url: str, events: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            events.seek(0)
            told = events.read().decode(errors="replace")
            raise NotReady(f"The server ended before it was ready: {told[-500:]}")
        try:
            if (
                httpx.get(f"{url}/readyz", timeout=1.0, trust_env=False).status_code
                == httpx.codes.OK
            ):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise NotReady(f"The server at {url} was not ready after {START_SECONDS:.0f} s.")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""Servers as processes of their own, of which one at a time is awake."""

import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Attributes:
        url: `http://host:port`.
        process: that was started; it may have started others.
        needs: servers that it asks.
    """

    url: str
    process: psutil.Popen
    needs: tuple["Server", ...] = ()

    def stop(self) -> None:
        """Let none of its processes run until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for server in self.needs:
            server.go_on()
        self._signal(signal.SIGCONT)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for a while: what the others do when idle is not part of what it is measured by."""
        self.go_on()
        try:
            yield
        finally:
            self.stop()
            for server in self.needs:
                server.stop()

    def _signal(self, number: signal.Signals) -> None:
        for process in family(self.process):
            process.send_signal(number)


@contextmanager
def server(
    command: Sequence[str],
    port: int,
    environment: dict[str, str],
    *,
    ready: str = "/readyz",
    needs: tuple[Server, ...] = (),
) -> Iterator[Server]:
    """A server from its first good answer on.

    Args:
        command: starts it.
        port: that it listens on.
        environment: beside this process's own.
        ready: path that is answered with 200 once it can be asked.
        needs: servers that it asks; they must be awake.
    """
    with process(command, environment) as running:
        yield Server(await_ready(port, running, ready), running, needs)


@contextmanager
def process(command: Sequence[str], environment: dict[str, str]) -> Iterator[psutil.Popen]:
    """A process with what it starts; at the end all of them are gone. Its last words are shown where it failed."""
    with tempfile.TemporaryFile() as log:
        running = psutil.Popen(
            list(command), env=os.environ | environment, stdout=log, stderr=log, cwd=ROOT
        )
        try:
            yield running
        except BaseException:
            if running.poll() is not None:
                log.seek(max(0, log.tell() - 3000))
                sys.stderr.write(log.read().decode(errors="replace"))
            raise
        finally:
            end(running)


def end(running: psutil.Popen) -> None:
    """SIGTERM to a process; whatever is left of it and what it started after 30 s is killed."""
    all_of_them = family(running)
    for each in all_of_them:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGCONT)
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        running.terminate()
        running.wait(30)
    for each in all_of_them:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    running.wait(30)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and what it started, as far as they run."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def await_ready(port: int, running: psutil.Popen, path: str = "/readyz") -> str:
    """`http://host:port`, once `path` is answered with 200."""
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url + path, timeout=5):
                return url
        except OSError as error:
            if running.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server on port {port} did not become ready.") from error
            time.sleep(0.2)

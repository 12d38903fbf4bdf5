"""One of several processes that serve on one port, from its first line to its last."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from socket import socket
from typing import Protocol

from starlette.types import ASGIApp

from services.platform.errors import RetriktError
from services.platform.logs import configure_logs
from services.platform.server import run_application
from services.platform.settings import ServiceSettings
from services.platform.shared_metrics import share_values
from services.platform.worker import Worker

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What asks a service to end."""


class Heartbeat(Protocol):
    """Shared memory of supervisor and worker: `time.monotonic()`, one clock for all processes of a machine."""

    value: float


CLOSING_SECONDS = 5.0
"""Beyond the time that requests have to finish: for what an application closes."""


def work(
    name: str,
    create_app: Callable[[Worker], ASGIApp],
    settings: ServiceSettings,
    listener: socket,
    worker: Worker,
    supervisor: Connection,
    heartbeat: Heartbeat,
) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; then finish the requests under way.

    Args:
        name: of the service, in every line of its log.
        create_app: called once; may load as long as it likes.
        settings: how long running requests may take to finish, what is logged.
        listener: that all the workers take connections from.
        worker: which one this is.
        supervisor: is told None once this worker serves, or the error why it does not.
        heartbeat: is given the time as often as the event loop goes round.
    """
    # The terminal's Ctrl-C reaches workers too; the supervisor tells them what to make of it. What
    # came while this process was being started has waited until here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    configure_logs(name, settings.log_level, worker=worker.number, lock=worker.log_lock)
    share_values(worker)
    alone = threading.Event()
    longest = settings.drain_seconds + CLOSING_SECONDS
    threading.Thread(target=_end_with_supervisor, args=(alone, longest), daemon=True).start()
    try:
        run_application(
            create_app(worker),
            settings,
            listener,
            on_started=lambda: _tell(supervisor, None),
            on_alive=lambda: _beat(heartbeat),
        )
    except RetriktError as error:
        _tell(supervisor, error)
        sys.exit(error.exit_code)
    finally:
        if alone.is_set():
            shutil.rmtree(worker.directory, ignore_errors=True)


def _beat(heartbeat: Heartbeat) -> None:
    # Shared memory: a pipe that nobody reads would fill up and block.
    heartbeat.value = time.monotonic()


def _tell(supervisor: Connection, said: RetriktError | None) -> None:
    with suppress(OSError):
        supervisor.send(said)


def _end_with_supervisor(alone: threading.Event, longest: float) -> None:
    """Without one nobody would replace this process, and its port could not be taken again."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return
    supervisor.join()
    alone.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(longest)
    os._exit(1)

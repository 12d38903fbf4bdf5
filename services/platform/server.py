"""Serving an application: the port is taken first, SIGTERM drains, the exit status is 0."""

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from services.platform.errors import AddressInUse, InvalidConfig, NotReady
from services.platform.memory import frozen_start
from services.platform.settings import ServiceSettings

log = structlog.get_logger(__name__)

_BACKLOG = 2048
# Longer than clients keep an idle connection: whoever closes first must not be the server, or a
# request may be on its way into a connection that is being closed.
_KEEP_ALIVE_SECONDS = 75
_BEAT_SECONDS = 0.5


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that a busy port is known before anything is loaded.

    Clients that connect while the service loads wait for its first answer.

    Args:
        port: 0 takes a free one; `socket.getsockname()` tells which.

    Raises:
        AddressInUse: something else listens there.
        InvalidConfig: the address is not this machine's, or the port takes more rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InvalidConfig(
            f"The host {host!r} cannot be resolved: {error.strerror}.",
            hint="Give an address of this machine, such as 127.0.0.1 or 0.0.0.0.",
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Binding alone would not do: a second process may bind a port nobody listens on yet.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"Port {port} on {host} is taken by another process.",
                hint="Stop that process or choose another port (--port).",
            ) from error
        raise InvalidConfig(
            f"Cannot listen on {host} port {port}: {error.strerror}.",
            hint="Give an address of this machine and a port that this user may take.",
        ) from error
    listener.setblocking(False)
    return listener


def serve(
    create_app: Callable[[], ASGIApp],
    settings: ServiceSettings,
    *,
    on_bound: Callable[[str], None] | None = None,
) -> None:
    """Serve an application until SIGTERM or SIGINT, then finish the requests under way and return.

    Args:
        create_app: called once the port is ours; may load as long as it likes.
        settings: where to listen, and how long running requests may take to finish.
        on_bound: told the URL once the port is ours, before anything is loaded.

    Raises:
        AddressInUse, InvalidConfig: as `bind` does.
        NotReady: the application's lifespan failed.
        RetriktError: whatever `create_app` raises.
    """
    listener = bind(settings.host, settings.port)
    try:
        url = url_of(listener)
        if on_bound is not None:
            on_bound(url)
        app = create_app()
        log.info("listening", url=url)
        run_application(app, settings, listener)
        log.info("served", url=url)
    finally:
        listener.close()


def run_application(
    app: ASGIApp,
    settings: ServiceSettings,
    listener: socket.socket,
    *,
    on_started: Callable[[], None] | None = None,
    on_alive: Callable[[], None] | None = None,
) -> None:
    """Answer the connections of a listening socket until SIGTERM or SIGINT, then finish the requests under way.

    Args:
        settings: how long running requests may take to finish.
        listener: closed at the end.
        on_started: called once connections are taken.
        on_alive: called by the event loop twice a second from then on, until all requests are finished.

    Raises:
        NotReady: the application's lifespan failed.
    """
    config = uvicorn.Config(
        app,
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        server_header=False,
        proxy_headers=False,
    )
    server = _TellingServer(config, on_started, on_alive)
    with frozen_start(), _quiet_signals():
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise NotReady("The service did not start.", hint="Its log says why.") from error


class _TellingServer(uvicorn.Server):
    """Says when it has started, and that its event loop goes round."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_started: Callable[[], None] | None,
        on_alive: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_alive = on_alive
        self._beating: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self._on_alive is not None:
            self._on_alive()
            self._beating = asyncio.create_task(_beat(self._on_alive))
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().shutdown(sockets=sockets)
        finally:
            if self._beating is not None:
                self._beating.cancel()


async def _beat(on_alive: Callable[[], None]) -> None:
    while True:
        on_alive()
        await asyncio.sleep(_BEAT_SECONDS)


def url_of(listener: socket.socket) -> str:
    """`http://host:port` of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn raises a signal again once it has drained; here that is a clean end, not a killed process."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, _ignore)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass

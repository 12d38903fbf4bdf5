"""Connections whose time limit covers the name's resolution too.

The system's resolver knows no time limit: with a name server that is away, `getaddrinfo` takes as long as
its configuration says, often tens of seconds. Here it works on a thread of its own, which callers wait for
no longer than they may. Of each name, one thread at the most is under way.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import httpcore

FRESH_SECONDS = 5.0
"""Addresses that were found less than this ago are used again: a slow resolver then costs one call, not all."""


class NameTimeout(httpcore.ConnectTimeout):
    """The name was not resolved in time."""


@dataclass(frozen=True, slots=True)
class _Found:
    addresses: tuple[str, ...]
    at: float


class NameResolver:
    """Addresses of names; may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[tuple[str, ...]]] = {}
        self._found: dict[str, _Found] = {}

    def addresses(self, name: str, timeout: float) -> tuple[str, ...]:
        """Addresses of a name, best first; the name itself where it is an address.

        Where the resolver takes longer than half of the time, what it last found serves.

        Args:
            name: of a host.
            timeout: seconds that this may take.

        Raises:
            NameTimeout: the resolver has not answered in time, and never has before.
            httpcore.ConnectError: there is no such name.
        """
        if _is_address(name):
            return (name,)
        found = self._found.get(name)
        if found is not None and time.monotonic() - found.at < FRESH_SECONDS:
            return found.addresses
        try:
            return self._look_up(name).result(timeout if found is None else timeout / 2)
        except TimeoutError:
            if found is not None:
                return found.addresses
            raise NameTimeout(f"the name {name} was not resolved in time") from None
        except OSError as error:
            raise httpcore.ConnectError(f"the name {name} cannot be resolved: {error}") from error

    def forget(self, name: str) -> None:
        """Resolve the name anew next time: nothing answers at its addresses."""
        self._found.pop(name, None)

    def _look_up(self, name: str) -> "Future[tuple[str, ...]]":
        with self._lock:
            future = self._under_way.get(name)
            if future is None:
                future = self._under_way[name] = Future()
                threading.Thread(
                    target=self._resolve, args=(name, future), daemon=True, name="resolve-name"
                ).start()
        return future

    def _resolve(self, name: str, future: "Future[tuple[str, ...]]") -> None:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        except BaseException as error:
            self._done(name)
            # An `OSError` says so itself; a name that no encoding takes is a name that there is not.
            future.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            self._found[name] = _Found(addresses, time.monotonic())
            self._done(name)
            future.set_result(addresses)

    def _done(self, name: str) -> None:
        with self._lock:
            del self._under_way[name]


class TimelyConnections(httpcore.NetworkBackend):
    """Opens connections for httpcore's pool; each takes no longer than its time limit, names included."""

    def __init__(self) -> None:
        self._names = NameResolver()
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the host's addresses that takes one.

        Raises:
            httpcore.ConnectTimeout: none did in time.
            httpcore.ConnectError: none does, or there is no such name.
        """
        assert timeout is not None, "a time limit is what this is for"
        deadline = time.monotonic() + timeout
        addresses = self._names.addresses(host, timeout)
        failure: Exception = httpcore.ConnectError(f"the name {host} has no address")
        for tried, address in enumerate(addresses):
            # One that swallows packets must leave time for the others.
            share = (deadline - time.monotonic()) / (len(addresses) - tried)
            try:
                return self._sockets.connect_tcp(
                    address, port, max(share, 0.001), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        self._names.forget(host)
        raise failure


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

"""The Ray cluster that shards go to: whether it can be used, and connecting to it."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from services.platform.errors import InvalidConfig, Unavailable

_KNOCK_SECONDS = 10.0


def check_installed() -> None:
    """Raises InvalidConfig where Ray is not installed."""
    if find_spec("ray") is None:
        raise InvalidConfig(
            "The engine is ray, and Ray is not installed.",
            hint="Install it, `pip install 'retrikt[ray]'`, or leave --engine out.",
        )


def connect(address: str | None, threads: int) -> bool:
    """Connect to the cluster, or start one of at least `threads` CPUs; whether it is this call's to end.

    Raises:
        Unavailable: it cannot be reached, or cannot be started.
        InvalidConfig: the address is one of Ray's client.
    """
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    wanted = address or os.environ.get("RAY_ADDRESS") or None
    check_address(wanted)
    # Without an address, Ray would join any cluster that happens to run on this machine.
    own: dict[str, Any] = {
        "include_dashboard": False,
        "num_cpus": max(threads, len(os.sched_getaffinity(0))),
    }
    try:
        _knock(wanted)
        ray.init(
            address=wanted or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if wanted else own),
        )
    except (OSError, ValueError, RuntimeError, RayError) as error:
        ray.shutdown()
        where = f"The Ray cluster {wanted} cannot be reached" if wanted else "Ray cannot start here"
        raise Unavailable(
            f"{where}: {error}",
            hint="Check engine.address, or RAY_ADDRESS; without both a cluster of its own is started.",
        ) from error
    return True


def check_address(address: str | None) -> None:
    """Raises InvalidConfig for an address of Ray's client, which cannot do what is done here."""
    if address and "://" in address:
        raise InvalidConfig(
            f"The address {address} is one for Ray's client, which Ray Data's actors do not work with.",
            hint="Start the run on a machine of the cluster, with `auto` or host:port (6379) as the address.",
        )


def _knock(address: str | None) -> None:
    """Raises OSError where an address of a host and a port takes no connection: Ray itself tries for minutes."""
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdigit():
        found = (host.strip("[]"), int(port))
        socket.create_connection(found, timeout=_KNOCK_SECONDS).close()


def check_room(nodes: Sequence[Mapping[str, Any]], threads: int, gpus: float) -> None:
    """Raises InvalidConfig where no machine could hold an actor, which Ray would wait for without a word."""
    rooms = [node["Resources"] for node in nodes if node["Alive"]]
    if any(room.get("CPU", 0) >= threads and room.get("GPU", 0) >= gpus for room in rooms):
        return
    told = "; ".join(
        f"{room.get('CPU', 0):g} CPUs and {room.get('GPU', 0):g} GPUs" for room in rooms
    )
    raise InvalidConfig(
        f"No machine of the Ray cluster has {threads} CPUs and {gpus:g} GPUs for an actor: {told}.",
        hint="Lower engine.threads or engine.gpus.",
    )

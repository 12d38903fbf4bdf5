"""A load client that costs little: POST requests over N connections, each answer timed.

    python benchmarks/load.py URL --body BODIES.jsonl --connections 16 --seconds 3
    python benchmarks/load.py URL --body BODIES.jsonl --connections 64 --seconds 3 --rate 800

Without `--rate` every connection sends its next request as soon as it has its answer (a closed loop). With it,
requests come at random instants (a Poisson process, seeded) whether or not earlier ones are answered; one that
finds no connection free waits for it, and its time runs from the instant at which it came.

Each line of BODIES is one request's body. Prints one JSON object: requests, seconds, rate, p50_ms,
p99_ms, failed (answers that are not 200).
"""

import argparse
import asyncio
import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop


class Connection(asyncio.Protocol):
    """Sends one request at a time, and tells when it is free for the next.

    Attributes:
        seconds: that each answer took.
        failed: answers that are not 200, or did not come.
        closed: set when the connection has ended.
    """

    def __init__(self, freed: "Callable[[Connection], None]") -> None:
        self._freed = freed
        self._buffer = b""
        self._needed = 0
        self._since = 0.0
        self._busy = False
        self.seconds: list[float] = []
        self.failed = 0
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, since: float) -> None:
        self._since, self._busy = since, True
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            place = self._buffer.lower().find(b"content-length:", 0, head)
            if place < 0:
                raise ValueError("An answer does not tell its length.")
            length = int(self._buffer[place + 15 : self._buffer.find(b"\r\n", place)])
            self._needed = head + 4 + length
        if len(self._buffer) < self._needed:
            return
        self.seconds.append(time.perf_counter() - self._since)
        self.failed += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer, self._needed, self._busy = b"", 0, False
        self._freed(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += self._busy
        self.closed.set()


async def closed_loop(
    url: str, bodies: list[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Requests a second and latencies, over `connections` that are never idle."""
    requests = _requests(url, bodies)
    started = time.perf_counter()
    until = started + seconds

    def freed(connection: Connection) -> None:
        now = time.perf_counter()
        if now < until:
            connection.send(next(requests), now)
        else:
            connection.close()

    opened = await _connect(url, connections, freed)
    for connection in opened:
        connection.send(next(requests), time.perf_counter())
    await _all_closed(opened, seconds)
    return _figures(opened, time.perf_counter() - started)


async def open_loop(
    url: str, bodies: list[bytes], connections: int, seconds: float, rate: float
) -> dict[str, float]:
    """Latencies of requests that come at `rate` a second, at random instants."""
    requests = _requests(url, bodies)
    idle: deque[Connection] = deque()
    waiting: deque[float] = deque()
    ended = False

    def freed(connection: Connection) -> None:
        if waiting:
            connection.send(next(requests), waiting.popleft())
        elif ended:
            connection.close()
        else:
            idle.append(connection)

    def arrive(due: float) -> None:
        if idle:
            idle.popleft().send(next(requests), due)
        else:
            waiting.append(due)

    def end() -> None:
        nonlocal ended
        ended = True
        while idle:
            idle.popleft().close()

    opened = await _connect(url, connections, freed)
    idle.extend(opened)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()

    def tick() -> None:
        # A thread of its own: the event loop's timers are whole milliseconds.
        rng, due = random.Random(0), started
        while (due := due + rng.expovariate(rate)) < started + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            loop.call_soon_threadsafe(arrive, due)
        loop.call_soon_threadsafe(end)

    threading.Thread(target=tick, daemon=True).start()
    await _all_closed(opened, seconds)
    return _figures(opened, time.perf_counter() - started)


def _requests(url: str, bodies: list[bytes]) -> Iterator[bytes]:
    parts = urlsplit(url)
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {parts.hostname}\r\n"
        "content-type: application/json\r\n"
    )
    return itertools.cycle(
        f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies
    )


async def _connect(
    url: str, connections: int, freed: Callable[[Connection], None]
) -> list[Connection]:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(lambda: Connection(freed), host, port))[1]
        for _ in range(connections)
    ]


async def _all_closed(connections: list[Connection], seconds: float) -> None:
    waits = [connection.closed.wait() for connection in connections]
    await asyncio.wait_for(asyncio.gather(*waits), seconds + 30)


def _figures(connections: list[Connection], took: float) -> dict[str, float]:
    times = np.concatenate([connection.seconds for connection in connections])
    return {
        "requests": len(times),
        "seconds": took,
        "rate": len(times) / took,
        "p50_ms": float(np.percentile(times, 50) * 1e3),
        "p99_ms": float(np.percentile(times, 99) * 1e3),
        "failed": sum(connection.failed for connection in connections),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, help="requests a second of an open loop")
    given = parser.parse_args()
    bodies = given.body.read_bytes().splitlines()
    if given.rate is None:
        run = closed_loop(given.url, bodies, given.connections, given.seconds)
    else:
        run = open_loop(given.url, bodies, given.connections, given.seconds, given.rate)
    print(json.dumps(uvloop.run(run)))


if __name__ == "__main__":
    main()

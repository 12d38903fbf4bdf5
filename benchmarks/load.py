"""A load client that costs little: keeps N connections busy with POST requests and times each answer.

    python benchmarks/load.py URL --body BODIES.jsonl --connections 16 --seconds 3

Each line of BODIES is one request's body. Prints one JSON object: requests, seconds, rate, p50_ms,
p99_ms, failed (answers that are not 200).
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the one before is whole."""

    def __init__(self, requests: Iterator[bytes], until: float, done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._until = until
        self._done = done
        self._buffer = b""
        self._needed = 0
        self._started = 0.0
        self.seconds: list[float] = []
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            place = self._buffer.lower().find(b"content-length:", 0, head)
            length = int(self._buffer[place + 15 : self._buffer.find(b"\r\n", place)])
            self._needed = head + 4 + length
        if len(self._buffer) < self._needed:
            return
        now = time.perf_counter()
        self.seconds.append(now - self._started)
        self.failed += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer, self._needed = b"", 0
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        request = next(self._requests)
        self._started = time.perf_counter()
        self._transport.write(request)


async def load(url: str, bodies: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies, over `connections` that are never idle."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    )
    requests = itertools.cycle(
        f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies
    )
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    protocols, ends = [], []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        _, protocol = await loop.create_connection(
            partial(Connection, requests, started + seconds, done), host, port
        )
        protocols.append(protocol)
        ends.append(done)
    await asyncio.wait_for(asyncio.gather(*ends), seconds + 30)
    took = time.perf_counter() - started
    times = np.concatenate([protocol.seconds for protocol in protocols])
    return {
        "requests": len(times),
        "seconds": took,
        "rate": len(times) / took,
        "p50_ms": float(np.percentile(times, 50) * 1e3),
        "p99_ms": float(np.percentile(times, 99) * 1e3),
        "failed": sum(protocol.failed for protocol in protocols),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    bodies = given.body.read_bytes().splitlines()
    print(json.dumps(uvloop.run(load(given.url, bodies, given.connections, given.seconds))))


if __name__ == "__main__":
    main()

"""A name server that hangs or dawdles holds no call of the store's client longer than its time limit."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpcore
import pytest

from services.platform.errors import StoreUnavailable
from services.store.client import HttpStoreClient
from services.store.name_resolution import NameResolver

NAME_SERVER = "127.0.0.9"
CALLS = """
import json, sys, time
from services.platform.errors import StoreUnavailable
from services.store.client import HttpStoreClient

client = HttpStoreClient(sys.argv[1], timeout=0.3)
said = []
for _ in range(int(sys.argv[2])):
    started = time.monotonic()
    try:
        client.check("v-1", "sha256:1")
    except StoreUnavailable as error:
        said.append((str(error), time.monotonic() - started))
    time.sleep(0.6)
print(json.dumps(said))
"""


class NameServer:
    """A DNS server that answers every question for an IPv4 address with 127.0.0.1, late or not at all."""

    def __init__(self, delay: float | None) -> None:
        self._delay = delay
        self._closing = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.05)
        self._thread = threading.Thread(target=self._serve)

    def start(self) -> None:
        self._socket.bind((NAME_SERVER, 53))
        self._thread.start()

    def _serve(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                question, client = self._socket.recvfrom(512)
                if self._delay is not None:
                    threading.Timer(self._delay, self._answer, (question, client)).start()

    def _answer(self, question: bytes, client: tuple[str, int]) -> None:
        end = question.index(b"\0", 12) + 5
        about_ipv4 = question[end - 4 : end - 2] == b"\0\1"
        head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(about_ipv4), 0, 0)
        record = struct.pack(">HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton("127.0.0.1"))
        with suppress(OSError):  # Closed meanwhile.
            self._socket.sendto(head + question[12:end] + (record if about_ipv4 else b""), client)

    def close(self) -> None:
        self._closing = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()


@pytest.fixture
def name_server(request: pytest.FixtureRequest) -> Iterator[NameServer]:
    with closing(NameServer(request.param)) as server:
        try:
            server.start()
        except OSError as error:
            pytest.skip(f"a name server of our own needs the right to the port 53: {error}")
        yield server


def calls(url: str, count: int, tmp_path: Path) -> list[tuple[str, float]]:
    """What a client's calls end with, and how long each took, in a process that asks that name server."""
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(f"nameserver {NAME_SERVER}\noptions timeout:5 attempts:2\n")
    script = (
        f"mount --bind {configuration} /etc/resolv.conf && exec {sys.executable} -c '{CALLS}' $0 $1"
    )
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("another name server for one process takes root and `unshare`")
    started = ["unshare", "--mount", "sh", "-c", script, url, str(count)]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("another name server for one process takes the right to mount")
    assert done.returncode == 0, done.stderr
    found: list[tuple[str, float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name_server", [None], indirect=True)
def test_a_name_server_that_hangs_holds_no_call_beyond_its_time_limit(
    name_server: NameServer, tmp_path: Path
) -> None:
    found = calls("http://store.example:8001", 3, tmp_path)
    assert len(found) == 3
    for message, seconds in found:
        assert "has not answered within 0.3 s: the name store.example was not resolved" in message
        assert seconds < 2


class Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server on 127.0.0.1 alone, that is no store."""
    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name_server", [0.5], indirect=True)
def test_an_address_that_comes_too_late_for_one_call_serves_the_next(
    name_server: NameServer, port: int, tmp_path: Path
) -> None:
    (late, _), (next_one, _) = calls(f"http://store.example:{port}", 2, tmp_path)
    assert "was not resolved in time" in late
    assert "is not the store" in next_one, "it was reached"


def test_a_host_is_reached_at_whichever_of_its_addresses_answers(port: int) -> None:
    """`localhost` may be ::1 first, where nothing listens."""
    client = HttpStoreClient(f"http://localhost:{port}", timeout=5.0)
    with pytest.raises(StoreUnavailable, match="is not the store"):
        client.check("v-1", "sha256:1")
    client.close()


def test_a_name_that_there_is_not_is_told_at_once() -> None:
    client = HttpStoreClient("http://store..example:8001", timeout=20.0)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be resolved"):
        client.check("v-1", "sha256:1")
    assert time.monotonic() - started < 5
    client.close()


def test_addresses_are_taken_as_they_are() -> None:
    for address in ("127.0.0.1", "::1"):
        assert NameResolver().addresses(address, 0.001) == (address,)
    with pytest.raises(httpcore.ConnectError):
        NameResolver().addresses("a" * 64 + ".example", 5.0)

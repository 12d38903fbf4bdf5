"""A real process: the port is taken first, SIGTERM drains, a busy port is an error of ours."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from fastapi import FastAPI

from services.platform.errors import AddressInUse, InvalidConfig, NotReady
from services.platform.server import bind, serve, url_of
from services.platform.settings import ServiceSettings, load_settings

PROGRAM = """
import asyncio
import gc
from fastapi import FastAPI
from services.platform.logs import configure_logs
from services.platform.server import serve
from services.platform.settings import ServiceSettings
configure_logs("toy")
def create():
    app = FastAPI()
    @app.get("/slow")
    async def slow() -> str:
        print("begun", flush=True)
        await asyncio.sleep(1.0)
        return "done"
    @app.get("/")
    async def root() -> str:
        return "here"
    @app.get("/frozen")
    async def frozen() -> int:
        return gc.get_freeze_count()
    return app
serve(create, ServiceSettings(host="127.0.0.1", port=0), on_bound=lambda url: print(url, flush=True))
"""


@contextmanager
def toy_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_sigterm_lets_running_requests_finish_and_ends_with_status_0() -> None:
    with toy_server() as (process, url):
        assert httpx.get(url, timeout=20).json() == "here"
        answers: list[str] = []
        caller = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{url}/slow", timeout=20).json())
        )
        caller.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGTERM)
        caller.join()
        _, logged = process.communicate(timeout=20)
        assert answers == ["done"]
        assert process.returncode == 0
    events = [json.loads(line) for line in logged.splitlines()]
    assert [event["event"] for event in events] == ["listening", "served"]
    assert {event["service"] for event in events} == {"toy"}


def test_what_is_there_at_the_start_is_left_alone_by_the_garbage_collector() -> None:
    with toy_server() as (_, url):
        assert httpx.get(f"{url}/frozen", timeout=20).json() > 10_000


def test_a_busy_port_is_told_before_anything_is_loaded() -> None:
    listener = bind("127.0.0.1", 0)
    try:
        port = listener.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"Port {port} on 127.0.0.1 is taken"):
            bind("127.0.0.1", port)
        assert url_of(listener) == f"http://127.0.0.1:{port}"
    finally:
        listener.close()


def test_a_service_whose_start_fails_is_an_error_and_frees_its_port() -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise OSError("no model")
        yield

    urls: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    settings = ServiceSettings(host="127.0.0.1", port=0)
    with pytest.raises(NotReady, match="did not start"):
        serve(lambda: FastAPI(lifespan=lifespan), settings, on_bound=urls.append)
    assert signal.getsignal(signal.SIGTERM) is before
    bind("127.0.0.1", int(urls[0].rsplit(":", 1)[1])).close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="Cannot listen on 192.0.2.1"):
        bind("192.0.2.1", 0)


def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(ServiceSettings):
        model_config = ServiceSettings.model_config | {"env_prefix": "RETRIKT_TOY_"}

    monkeypatch.setenv("RETRIKT_TOY_PORT", "70000")
    with pytest.raises(InvalidConfig, match=r"port \(RETRIKT_TOY_PORT\) is wrong"):
        load_settings(Settings)
    assert load_settings(Settings, port=8080, host=None).port == 8080

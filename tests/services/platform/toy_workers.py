"""A service of several workers that can be told to misbehave: `python toy_workers.py WORKERS DIRECTORY`.

A file `refuse` or `crash` in the directory makes starts fail; `/hold/NAME` is answered once the file NAME is
there; `/block/SECONDS` stands in the way of everything else, and so does
`/lock/SECONDS`, with the lock of the log in its hands. A worker may do so for HANG_SECONDS.
"""

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
from fastapi import APIRouter, FastAPI
from prometheus_client import Counter, Gauge

from services.platform.application import create_service
from services.platform.errors import IncompatibleArtifacts
from services.platform.metrics import Metrics
from services.platform.process import run_process
from services.platform.server import serve
from services.platform.settings import ServiceSettings
from services.platform.supervisor import serve_by_workers
from services.platform.worker import Worker


def create(directory: Path, settings: ServiceSettings, worker: Worker | None = None) -> FastAPI:
    if (directory / "crash").exists():
        os._exit(77)
    if (directory / "refuse").exists():
        raise IncompatibleArtifacts("Two parts differ.", hint="Take others.")
    metrics = Metrics("toy", worker)
    asked = Counter("toy_asked", "Questions.", registry=metrics.registry)
    held = Gauge("toy_held", "Open.", registry=metrics.registry, multiprocess_mode="livesum")
    router = APIRouter()

    @router.get("/who")
    async def who() -> dict[str, int | None]:
        asked.inc()
        return {"pid": os.getpid(), "worker": None if worker is None else worker.number}

    @router.get("/hold/{name}")
    async def hold(name: str) -> str:
        held.inc()
        while not (directory / name).exists():
            await asyncio.sleep(0.01)
        held.dec()
        return "done"

    @router.get("/block/{seconds}")
    async def block(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    @router.get("/lock/{seconds}")
    async def lock(seconds: float) -> str:
        assert worker is not None
        with worker.log_lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            time.sleep(seconds)
        return "done"

    @router.get("/log/{size}")
    async def log(size: int) -> str:
        structlog.get_logger().info("long", text="é" * size)
        return "done"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if (directory / "fail").exists():
            raise OSError("no model")
        yield

    async def state() -> dict[str, object]:
        return {}

    return create_service(
        title="toy",
        version="1",
        description="",
        settings=settings,
        metrics=metrics,
        routers=[router],
        ready=state,
        info=state,
        lifespan=lifespan,
    )


def run(workers: int, directory: Path, settings: ServiceSettings) -> None:
    def say(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    app = partial(create, directory, settings)
    if workers == 1:
        serve(app, settings, on_bound=say)
    else:
        patience = float(os.environ.get("HANG_SECONDS", "30"))
        serve_by_workers("toy", app, settings, workers, hang_seconds=patience, on_bound=say)


if __name__ == "__main__":
    sys.exit(run_process("toy", ServiceSettings, partial(run, int(sys.argv[1]), Path(sys.argv[2]))))

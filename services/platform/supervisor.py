"""Several worker processes behind one port: started, replaced when they die, drained together.

All of them take connections from the one socket that the supervisor listens on, so that what waits for a
worker that dies goes to its fellows. docs/decisions/0007-own-supervisor.md tells why this is not uvicorn's.
"""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket, socketpair
from types import FrameType

import structlog
from starlette.types import ASGIApp

from services.platform.errors import InvalidConfig, NotReady, RetriktError
from services.platform.logs import configure_logs
from services.platform.server import bind, url_of
from services.platform.settings import ServiceSettings
from services.platform.shared_metrics import forget
from services.platform.worker import Worker, log_lock
from services.platform.worker_process import CLOSING_SECONDS, SIGNALS, Heartbeat, work

log = structlog.get_logger(__name__)

# A fork would take over locks, and half of the threads that they belong to.
_SPAWN = multiprocessing.get_context("spawn")

_STEADY_SECONDS = 10.0
"""Who served that long did not die of its start."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LOOKS = 4
"""How often heartbeats are looked at within the time that a worker may be without one."""

CreateApp = Callable[[Worker], ASGIApp]


def serve_by_workers(
    name: str,
    create_app: CreateApp,
    settings: ServiceSettings,
    count: int,
    *,
    hang_seconds: float = 30.0,
    on_bound: Callable[[str], None] | None = None,
) -> None:
    """Serve by several processes until SIGTERM or SIGINT, then let all of them finish what is under way.

    A worker that dies is replaced, after a pause where it dies again and again; one that serves and whose event loop
    stands still for too long is killed, and so replaced. A start that fails while no
    other worker serves ends the service. To be called on the main thread.

    Args:
        name: of the service, in every line of its log.
        create_app: called in each worker; must be importable there, with what it is bound to.
        settings: where to listen, how long running requests may take to finish.
        count: of workers.
        hang_seconds: that a worker's event loop may stand still.
        on_bound: told the URL once the port is ours, before anything is loaded.

    Raises:
        AddressInUse, InvalidConfig: as `bind` does; or there is no room for temporary files.
        NotReady: a worker died before it served, or its application's lifespan failed.
        RetriktError: whatever `create_app` raises.
    """
    with closing(bind(settings.host, settings.port)) as listener, _temporary() as directory:
        url = url_of(listener)
        if on_bound is not None:
            on_bound(url)
        configure_logs(name, settings.log_level, lock=log_lock(directory))
        log.info("listening", url=url, workers=count)

        _Supervisor(
            [Worker(number, directory) for number in range(count)],
            partial(_started, name, create_app, settings, listener),
            # Else whoever connects while the workers drain would wait for nobody.
            on_end=listener.close,
            longest_end=settings.drain_seconds + CLOSING_SECONDS,
            hang_seconds=hang_seconds,
        ).run()
        log.info("served", url=url)


class _Seat:
    """A worker's place: who sits there, or when somebody will."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None
        self.heartbeat: Heartbeat = _SPAWN.RawValue("d", 0.0)
        self.starts_at = 0.0
        self.serves_since: float | None = None
        self.error: RetriktError | None = None
        self.deaths = 0

    def next_pause(self) -> float:
        """Seconds until a replacement starts: none for the first death, then more with each."""
        lived = 0.0 if self.serves_since is None else time.monotonic() - self.serves_since
        if lived >= _STEADY_SECONDS:
            self.deaths = 0
        self.deaths += 1
        if self.deaths == 1:
            return 0.0
        # The exponent stays small: a worker may fail to start for weeks.
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.deaths - 2, 16))


class _Supervisor:
    def __init__(
        self,
        workers: Sequence[Worker],
        start: Callable[[Worker, Connection, Heartbeat], SpawnProcess],
        *,
        on_end: Callable[[], None],
        longest_end: float,
        hang_seconds: float,
    ) -> None:
        self._on_end = on_end
        self._seats = [_Seat(worker) for worker in workers]
        self._start_process = start
        self._longest_end = longest_end
        self._hang_seconds = hang_seconds
        self._awake_since = self._looked_at = time.monotonic()

    def run(self) -> None:
        """Until a signal, or until nobody serves and a start fails."""
        with _signals() as asked:
            try:
                while not self._asked_to_end(asked):
                    pass
            finally:
                self._end(asked)

    def _asked_to_end(self, asked: socket) -> bool:
        """Start who is due, then wait for the next thing to happen and deal with it."""
        for seat in self._seats:
            if seat.process is None and time.monotonic() >= seat.starts_at:
                self._start(seat)
        self._kill_who_hangs()
        empty = [seat.starts_at for seat in self._seats if seat.process is None]
        next_look = self._looked_at + self._hang_seconds / _LOOKS
        happened = self._happened(asked, min([*empty, next_look]))
        if asked in happened:
            return True
        for seat in self._seats:
            if seat.pipe in happened and not self._listen(seat):
                self._vacant(seat, *self._bury(seat))
        return False

    def _kill_who_hangs(self) -> None:
        """Its end then is what any other worker's is, and it is replaced."""
        now, looked_at = time.monotonic(), self._looked_at
        if now < looked_at + self._hang_seconds / _LOOKS:
            return
        self._looked_at = now
        if now - looked_at > self._hang_seconds / 2:
            # This process stood still itself, and so may all of them have: a paused container.
            self._awake_since = now
        for seat in self._seats:
            if seat.serves_since is None or seat.process is None:
                continue
            still = now - max(seat.heartbeat.value, self._awake_since)
            if still > self._hang_seconds:
                # Before anything is logged: it may hold the lock of the log.
                seat.process.kill()
                # Once is enough: its end is on its way.
                seat.heartbeat.value = now
                log.error(
                    "worker_hangs",
                    worker=seat.worker.number,
                    pid=seat.process.pid,
                    seconds=round(still, 1),
                )

    def _happened(self, asked: socket, until: float | None) -> list[object]:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        pipes = [seat.pipe for seat in self._seats if seat.pipe is not None]
        return list(wait([asked, *pipes], timeout))

    def _start(self, seat: _Seat) -> None:
        seat.serves_since = seat.error = None
        seat.pipe, theirs = _SPAWN.Pipe(duplex=False)
        try:
            with theirs:
                seat.process = self._start_process(seat.worker, theirs, seat.heartbeat)
        except OSError as error:
            seat.pipe.close()
            seat.pipe = None
            seat.error = NotReady(f"A worker's process could not be started: {error}.")
            self._vacant(seat, None, "not started")

    def _listen(self, seat: _Seat) -> bool:
        """Take in what a worker says; False once it has ended."""
        assert seat.pipe is not None
        try:
            said: RetriktError | None = seat.pipe.recv()
        except (EOFError, OSError):
            return False
        if said is None:
            seat.serves_since = time.monotonic()
            pid = seat.process.pid if seat.process is not None else None
            log.info("worker_serves", worker=seat.worker.number, pid=pid)
        else:
            seat.error = said
        return True

    def _vacant(self, seat: _Seat, pid: int | None, how: str) -> None:
        """Have the next one start there, or give up where nobody serves."""
        others = any(other.serves_since is not None for other in self._seats if other is not seat)
        if seat.serves_since is None and not others:
            raise seat.error or NotReady(
                f"Worker {seat.worker.number} ended ({how}) before it served.",
                hint="Its log says why.",
            )
        pause = seat.next_pause()
        seat.starts_at = time.monotonic() + pause
        seat.serves_since = None
        log.error(
            "worker_died",
            worker=seat.worker.number,
            pid=pid,
            how=how,
            again_in_seconds=pause,
            **({"code": seat.error.code, "reason": str(seat.error)} if seat.error else {}),
        )

    def _bury(self, seat: _Seat) -> tuple[int | None, str]:
        assert seat.process is not None
        assert seat.pipe is not None
        # Its end of the pipe is closed by its end alone.
        seat.process.join()
        pid, how = seat.process.pid, _how(seat.process.exitcode)
        seat.process.close()
        seat.pipe.close()
        seat.process = seat.pipe = None
        forget(seat.worker)
        return pid, how

    def _end(self, asked: socket) -> None:
        """Let all workers drain; those that do not end in time are killed."""
        self._on_end()
        deadline: float | None = time.monotonic() + self._longest_end
        self._each(SpawnProcess.terminate)
        while any(seat.process is not None for seat in self._seats):
            happened = self._happened(asked, deadline)
            if asked in happened:
                asked.recv(64)
            if not happened:
                log.error("workers_killed", seconds=self._longest_end)
                self._each(SpawnProcess.kill)
                deadline = None
            for seat in self._seats:
                if seat.pipe in happened and not self._listen(seat):
                    pid, how = self._bury(seat)
                    log.info("worker_ended", worker=seat.worker.number, pid=pid, how=how)

    def _each(self, end: Callable[[SpawnProcess], None]) -> None:
        """Not by number: a process that has ended may have been waited for, and its number be another's."""
        for seat in self._seats:
            if seat.process is not None:
                end(seat.process)


def _started(
    name: str,
    create_app: CreateApp,
    settings: ServiceSettings,
    listener: socket,
    worker: Worker,
    pipe: Connection,
    heartbeat: Heartbeat,
) -> SpawnProcess:
    # multiprocessing's own helper lets these signals through again when it is started.
    resource_tracker.ensure_running()
    given = (name, create_app, settings, listener, worker, pipe, heartbeat)
    process = _SPAWN.Process(target=work, args=given)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"


@contextmanager
def _signals() -> Iterator[socket]:
    """A socket that can be read from once a signal has asked for the end."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        pass

    told, tell = socketpair()
    with told, tell:
        told.setblocking(False)
        tell.setblocking(False)
        wakeup = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, ignore) for number in SIGNALS}
        try:
            yield told
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


@contextmanager
def _temporary() -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(
            prefix="retrikt-workers-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise InvalidConfig(
            f"There is no room for the temporary files of several workers: {error}.",
            hint="Mount a directory at /tmp, or name one in TMPDIR.",
        ) from error
    with directory:
        yield Path(directory.name)

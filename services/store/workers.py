"""A few threads that search, and bounds on how much may wait for them, and for how long."""

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.platform.errors import Overloaded, TimedOut

T = TypeVar("T")


class Workers:
    """Runs blocking calls off the event loop.

    Args:
        threads: how many run at a time.
        max_waiting: how many may run or wait; more are refused at once, before the queue hurts.
        seconds: how long a call may wait and run; None sets no limit.
    """

    def __init__(self, threads: int, max_waiting: int, seconds: float | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._max_waiting = max_waiting
        self._seconds = seconds
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Calls that run or wait."""
        return self._waiting

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result, from another thread.

        Raises:
            Overloaded: too many wait already.
            TimedOut: it took too long. A call that has begun goes on and keeps its place until it
                ends; one that still waits is not begun any more.
            Whatever the call raises.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded(
                f"{self._waiting} requests wait for the store already.", hint="Come back later."
            )
        self._waiting += 1
        work = call if self._seconds is None else self._in_time(call, self._seconds)
        # The context goes along, so that what happens there is logged and traced as the request's.
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._pool, context.run, work)
        # Counted down by the call's end: a client that has gone away does not end it.
        future.add_done_callback(self._done)
        # Unlike `wait_for`, `wait` leaves the future alone when the time is up or the client gone.
        done, _ = await asyncio.wait((future,), timeout=self._seconds)
        if not done:
            raise self._late()
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _in_time(self, call: Callable[[], T], seconds: float) -> Callable[[], T]:
        deadline = time.monotonic() + seconds

        def work() -> T:
            if time.monotonic() > deadline:
                raise self._late()
            return call()

        return work

    def _late(self) -> TimedOut:
        return TimedOut(
            f"The store has not answered within {self._seconds:.3g} s.",
            hint="Come back later, or send fewer vectors a request.",
        )

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # Looked at, so that an abandoned one is not complained about.

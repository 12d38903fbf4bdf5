"""A few threads that search, and a bound on how much may wait for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.platform.errors import Overloaded

T = TypeVar("T")


class Workers:
    """Runs blocking calls off the event loop.

    Args:
        threads: how many run at a time.
        max_waiting: how many may run or wait; more are refused at once, before the queue hurts.
    """

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._max_waiting = max_waiting
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Calls that run or wait."""
        return self._waiting

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result, from another thread. Raises Overloaded, or whatever the call raises."""
        if self._waiting >= self._max_waiting:
            raise Overloaded(
                f"{self._waiting} requests wait for the store already.", hint="Come back later."
            )
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        # Counted down by the call's end: a client that has gone away does not end it.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # Looked at, so that an abandoned one is not complained about.

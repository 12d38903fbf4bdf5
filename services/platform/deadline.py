"""The time that a request may take, all of its steps together."""

import asyncio
import time
from types import TracebackType
from typing import Self

from services.platform.errors import TimedOut


class Deadlines:
    """Ends requests that take longer than they may, with one timer for all of them.

    `asyncio.timeout` sets a timer and takes it away again for every request; here a request costs an
    entry in a dictionary. For one event loop at a time.

    Attributes:
        seconds: that a request may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # In the order in which they began, which is the order of their deadlines.
        self._running: dict[asyncio.Task[object], Deadline] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> "Deadline":
        """A context for the task that runs; what is awaited in it ends at the deadline.

            with deadlines.start() as deadline:
                ...

        Raises:
            TimedOut: at its end, when the deadline passed within.
        """
        return Deadline(self)

    def _enter(self, task: "asyncio.Task[object]", deadline: "Deadline") -> None:
        self._running[task] = deadline
        loop = task.get_loop()
        if self._timer is None or self._loop is not loop:
            # A timer of a loop that has ended would never fire.
            self._loop = loop
            self._timer = loop.call_later(self.seconds, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = time.monotonic()
        for task, deadline in self._running.items():
            if deadline.expired:
                continue
            left = deadline.at - now
            if left > 0:
                self._timer = loop.call_later(left, self._sweep, loop)
                return
            deadline.expired = True
            task.cancel()


class Deadline:
    """The deadline of one request.

    Attributes:
        at: `time.monotonic()` at which its time is over.
        expired: whether it was ended.
    """

    __slots__ = ("_deadlines", "_task", "at", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.expired = False
        self.at = 0.0

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "a deadline is for a task"
        self._task = task
        self.at = time.monotonic() + self._deadlines.seconds
        self._deadlines._enter(task, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._deadlines._running[self._task]
        if self.expired and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise TimedOut(
                f"The request took longer than its {self._deadlines.seconds:g} seconds.",
                hint="Try again in a moment, with fewer inputs, or add replicas.",
            ) from error

"""A request's time limit ends whatever it waits for, and nothing else."""

import asyncio
import time

import pytest

from services.platform.deadline import Deadlines
from services.platform.errors import TimedOut


def test_what_is_awaited_ends_at_the_deadline_with_an_error_that_names_it() -> None:
    async def test() -> None:
        deadlines = Deadlines(0.1)
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"0\.1 seconds"), deadlines.start():
            await asyncio.sleep(30)
        assert 0.1 <= time.monotonic() - started < 10
        # The task goes on as if nothing had been.
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(test())


def test_each_request_has_its_own_time_and_the_quick_ones_are_left_alone() -> None:
    async def test() -> None:
        deadlines = Deadlines(0.4)

        async def request(start: float, takes: float) -> str:
            await asyncio.sleep(start)
            with deadlines.start():
                await asyncio.sleep(takes)
                return "answered"

        results = await asyncio.gather(
            request(0.0, 0.01),
            request(0.0, 30),
            request(0.2, 0.01),
            request(0.2, 30),
            request(0.6, 0.01),
            return_exceptions=True,
        )
        assert [isinstance(result, TimedOut) for result in results] == [
            False, True, False, True, False,
        ]  # fmt: skip

    asyncio.run(test())


def test_a_task_that_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    async def test() -> None:
        deadlines = Deadlines(30)

        async def request() -> None:
            with deadlines.start():
                await asyncio.sleep(60)

        task = asyncio.create_task(request())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())


def test_an_error_within_is_passed_on() -> None:
    async def test() -> None:
        with pytest.raises(ZeroDivisionError), Deadlines(1).start():
            raise ZeroDivisionError

    asyncio.run(test())


def test_deadlines_outlive_the_event_loop_that_they_began_in() -> None:
    deadlines = Deadlines(0.05)

    async def quick() -> None:
        with deadlines.start():
            await asyncio.sleep(0)

    async def slow() -> None:
        with deadlines.start():
            await asyncio.sleep(30)

    asyncio.run(quick())
    with pytest.raises(TimedOut):
        asyncio.run(slow())

"""Requests that wait become one batch; none is lost, mixed up or kept waiting for nobody."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import pytest

from services.platform.errors import InvalidRequest, NotReady, Overloaded, RetriktError
from services.student.batching import MicroBatcher, _BatchCost


class Work:
    """Doubles numbers, one batch at a time, each after the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.seconds = 0.0
        self.for_batch = 0.0

    def __call__(self, jobs: Sequence[int], deadline: float) -> list[int | RetriktError]:
        self.batches.append(list(jobs))
        self.begun.set()
        assert self.gate.wait(10)
        time.sleep(self.for_batch + self.seconds * len(jobs))
        if 13 in jobs:
            raise ZeroDivisionError("a bug")
        return [InvalidRequest("seven") if job == 7 else 2 * job for job in jobs]


def soon() -> float:
    return time.monotonic() + 10


def run(test: Callable[["MicroBatcher[int, int]", Work], object], **limits: int) -> Work:
    work = Work()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        work, **{"max_batch": 4, "max_waiting": 8} | limits
    )
    try:
        asyncio.run(test(batcher, work))  # type: ignore[arg-type]
    finally:
        work.gate.set()
        batcher.close()
    return work


async def begin_and_hold(batcher: "MicroBatcher[int, int]", work: Work) -> "asyncio.Task[int]":
    """A first job that the worker has taken and cannot finish before the gate opens."""
    work.gate.clear()
    work.begun.clear()
    first = asyncio.create_task(batcher.submit(0, deadline=soon()))
    await asyncio.to_thread(work.begun.wait)
    return first


def test_a_lone_job_is_answered_at_once_and_jobs_that_wait_become_one_batch() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        others = [asyncio.create_task(batcher.submit(job, deadline=soon())) for job in range(1, 7)]
        await asyncio.sleep(0.05)
        work.gate.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]

    assert run(test).batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_weights_fill_a_batch_and_a_job_larger_than_one_goes_alone() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        jobs = [(1, 3), (2, 2), (3, 9), (4, 1)]
        others = [
            asyncio.create_task(batcher.submit(job, weight=weight, deadline=soon()))
            for job, weight in jobs
        ]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 15
        work.gate.set()
        await asyncio.gather(first, *others)
        assert batcher.waiting == 0

    assert run(test, max_waiting=20).batches == [[0], [1], [2], [3], [4]]


def test_a_full_queue_refuses_and_takes_again_when_there_is_room() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        others = [asyncio.create_task(batcher.submit(1, deadline=soon())) for _ in range(8)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="8 texts wait"):
            await batcher.submit(1, deadline=soon())
        work.gate.set()
        await asyncio.gather(first, *others)
        assert await batcher.submit(5, deadline=soon()) == 10

    run(test)


def test_what_could_not_be_answered_in_time_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        # A small batch and a full one: a fifth of a second for each text.
        for weight in (1, 4):
            work.for_batch = 0.2 * weight
            await batcher.submit(1, weight=weight, deadline=soon())
        first = await begin_and_hold(batcher, work)
        others = [
            asyncio.create_task(batcher.submit(1, deadline=time.monotonic() + 60)) for _ in range(7)
        ]
        await asyncio.sleep(0.05)
        # 1.4 s before the next one has its turn.
        assert batcher.wait_seconds > 1.3
        with pytest.raises(Overloaded, match="7 texts wait .* which takes about") as caught:
            await batcher.submit(1, deadline=time.monotonic() + 1.0)
        assert caught.value.retry_after >= 2
        patient = asyncio.create_task(batcher.submit(4, deadline=time.monotonic() + 60))
        work.for_batch = 0.0
        work.gate.set()
        assert (await asyncio.gather(first, *others, patient))[-1] == 8
        assert batcher.wait_seconds == 0

    run(test, max_waiting=100)


def test_a_burst_after_lone_requests_is_taken_where_full_batches_clear_it_in_time() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        # A slow store: every batch waits for it, however many texts it holds.
        work.for_batch = 0.05
        began = time.monotonic()
        for _ in range(4):
            await batcher.submit(1, deadline=soon())
        lone = (time.monotonic() - began) / 4
        first = await begin_and_hold(batcher, work)
        deadline = time.monotonic() + 500 * lone
        burst = [asyncio.create_task(batcher.submit(1, deadline=deadline)) for _ in range(1000)]
        await asyncio.sleep(0)
        # 16 batches, where one text after the other would be late.
        assert batcher.waiting == 1000
        assert batcher.wait_seconds < 25 * lone
        work.gate.set()
        assert await asyncio.gather(first, *burst) == [0, *[2] * 1000]

    assert len(run(test, max_batch=64, max_waiting=1024).batches) == 5 + 16


@pytest.mark.parametrize(("for_batch", "for_text"), [(0.3, 0.0), (0.2, 0.1), (0.0, 0.1)])
def test_batches_of_several_sizes_tell_what_a_batch_costs_and_what_a_text_does(
    for_batch: float, for_text: float
) -> None:
    cost = _BatchCost(max_batch=64)
    for texts in (1, 64, 3, 17, 40, 1, 1, 64, 1, 2):
        cost.observe(texts, for_batch + for_text * texts)
    own, each = cost.estimate
    assert each == pytest.approx(for_text, rel=0.05)
    assert own + 64 * each == pytest.approx(for_batch + for_text * 64, rel=0.05)


def test_until_batches_differ_in_size_a_batch_is_taken_to_cost_what_those_seen_did() -> None:
    cost = _BatchCost(max_batch=64)
    assert cost.estimate == (0.0, 0.0)
    for number in range(100):
        # One text or two, and noise that happens to go with it.
        cost.observe(1 + number % 2, 0.010 + 0.002 * (number % 2))
    own, each = cost.estimate
    assert own == pytest.approx(0.011, rel=0.05)
    assert own + 64 * each < 0.02
    # One full batch is enough to know better.
    cost.observe(64, 0.64)
    own, each = cost.estimate
    assert 0.5 < own + 64 * each < 0.7


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        assert await batcher.submit(5, weight=100, deadline=soon()) == 10

    run(test)


def test_an_error_reaches_the_job_that_it_belongs_to_alone() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        others = [asyncio.create_task(batcher.submit(job, deadline=soon())) for job in (6, 7, 8)]
        await asyncio.sleep(0.05)
        work.gate.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(results[2], InvalidRequest)
        assert [results[0], results[1], results[3]] == [0, 12, 16]

    run(test)


def test_a_bug_fails_its_batch_and_not_the_ones_after_it() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        with pytest.raises(RetriktError, match="ZeroDivisionError"):
            await batcher.submit(13, deadline=soon())
        assert await batcher.submit(2, deadline=soon()) == 4

    run(test)


def test_what_waited_too_long_or_was_given_up_is_not_computed() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        late = asyncio.create_task(batcher.submit(1, deadline=time.monotonic() + 0.02))
        gone = asyncio.create_task(batcher.submit(2, deadline=soon()))
        kept = asyncio.create_task(batcher.submit(3, deadline=soon()))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        work.gate.set()
        assert await asyncio.gather(first, kept) == [0, 6]
        with pytest.raises(Overloaded, match="waited longer"):
            await late

    assert run(test).batches == [[0], [3]]


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        others = [asyncio.create_task(batcher.submit(job, deadline=soon())) for job in range(6)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(NotReady):
            await batcher.submit(1, deadline=soon())
        work.gate.set()
        assert await asyncio.gather(first, *others) == [0, 0, 2, 4, 6, 8, 10]
        await closing

    run(test)


def test_what_an_action_gave_is_nobody_s_but_the_caller_s() -> None:
    """It is the predictor that served before, and its memory, which an idle worker must not hold."""

    class Served:
        pass

    async def test(batcher: MicroBatcher[int, int], _work: Work) -> None:
        before = [Served()]
        seen = weakref.ref(before[0])
        assert isinstance(batcher.between_batches(before.pop), Served)
        gc.collect()
        assert seen() is None

    run(test)


def test_an_action_runs_between_two_batches() -> None:
    async def test(batcher: "MicroBatcher[int, int]", work: Work) -> None:
        first = await begin_and_hold(batcher, work)
        before = asyncio.create_task(batcher.submit(1, deadline=soon()))
        await asyncio.sleep(0.05)
        seen = asyncio.create_task(
            asyncio.to_thread(batcher.between_batches, lambda: list(work.batches))
        )
        await asyncio.sleep(0.05)
        after = asyncio.create_task(batcher.submit(2, deadline=soon()))
        await asyncio.sleep(0.05)
        work.gate.set()
        await asyncio.gather(first, before, after)
        assert await seen == [[0], [1]]
        with pytest.raises(KeyError):
            await asyncio.to_thread(batcher.between_batches, lambda: {}["no"])

    assert run(test).batches == [[0], [1], [2]]

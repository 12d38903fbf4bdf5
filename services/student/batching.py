"""Continuous batching: whatever waits when the worker is free becomes its next batch.

An idle worker starts at once, so a lone request waits for nobody; under load batches grow by
themselves while the one before is computed.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from services.platform.errors import NotReady, Overloaded, RetriktError
from services.platform.spans import Origin, batch_span, origin

log = structlog.get_logger(__name__)

_MEMORY = 0.9
"""What the earlier batches count against the last one, in the estimate of their cost."""

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(slots=True)
class _Waiting(Generic[J, R]):
    job: J
    weight: int
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[R]"
    since: float
    origin: Origin | None


class _BatchCost:
    """What a batch costs: seconds for itself, and seconds for each text in it.

    A line through the batches seen, by least squares with exponentially decaying weights (the means
    and moments are kept as by West, 1979). Its slope is shrunk towards zero until the batches differ
    in size: who has seen lone texts alone takes a batch to cost what a lone text does, rather than
    refuse a burst that full batches would answer in time.

    Attributes:
        estimate: both, in seconds; one object, so that another thread sees two that belong together.
    """

    def __init__(self, max_batch: int) -> None:
        self.estimate = (0.0, 0.0)
        # The variance of the sizes at which half of the slope is believed.
        self._doubt = (max_batch / 16) ** 2
        self._weight = self._texts = self._seconds = 0.0
        self._variance = self._covariance = 0.0

    def observe(self, texts: int, seconds: float) -> None:
        self._weight = _MEMORY * self._weight + 1.0
        share = 1.0 / self._weight
        more_texts, more_seconds = texts - self._texts, seconds - self._seconds
        self._texts += share * more_texts
        self._seconds += share * more_seconds
        left = 1.0 - share
        self._variance = left * (self._variance + share * more_texts * more_texts)
        self._covariance = left * (self._covariance + share * more_texts * more_seconds)
        slope = max(0.0, self._covariance / (self._variance + self._doubt))
        if slope * self._texts > self._seconds:
            # A batch does not cost less than nothing by itself.
            slope = self._seconds / self._texts
        self.estimate = (self._seconds - slope * self._texts, slope)


class MicroBatcher(Generic[J, R]):
    """One worker thread that answers jobs in batches.

    Jobs come from event loops; each has a weight (how many texts it holds). A batch takes jobs in
    the order in which they came, as long as their weights fit; a job that is larger than a batch
    goes alone.

    Attributes:
        waiting: weight of the jobs that wait, as far as one thread can tell.
    """

    def __init__(
        self,
        process: Callable[[Sequence[J], float], Sequence[R | RetriktError]],
        *,
        max_batch: int,
        max_waiting: int,
        on_wait: Callable[[float], None] = lambda _: None,
        name: str = "batcher",
    ) -> None:
        """Start the worker.

        Args:
            process: answers a batch, one result or error for each job, and is told when the first
                of them is too late; runs on the worker thread.
            max_batch: weight that a batch may have.
            max_waiting: weight that may wait; more is refused.
            on_wait: told how many seconds the first job of a batch waited.
            name: of the thread.
        """
        self._process = process
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_wait = on_wait
        self._queue: queue.SimpleQueue[_Waiting[J, R] | Callable[[], None] | None]
        self._queue = queue.SimpleQueue()
        # Each is written by one thread alone, so that neither needs a lock.
        self._submitted = 0
        self._taken = 0
        self._cost = _BatchCost(max_batch)
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._submitted - self._taken

    @property
    def wait_seconds(self) -> float:
        """How long a job that comes now will wait, by what the latest batches cost."""
        waiting = self.waiting
        for_batch, for_text = self._cost.estimate
        return math.ceil(waiting / self._max_batch) * for_batch + waiting * for_text

    async def submit(self, job: J, *, weight: int = 1, deadline: float) -> R:
        """The result of a job; call from one event loop.

        Args:
            job: what `process` is given.
            weight: how many texts it holds.
            deadline: `time.monotonic()` after which nobody wants it any more.

        Raises:
            Overloaded: too much waits already: more than the queue takes, or more than can be
                answered by the deadline; or the deadline passed while it waited.
            NotReady: the batcher was closed.
            RetriktError: whatever `process` gave for this job.
        """
        if self._closed:
            raise NotReady("The service is stopping.")
        waiting = self.waiting
        if waiting > 0:
            self._refuse_what_comes_too_late(waiting, weight, deadline)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._submitted += weight
        now = time.monotonic()
        self._queue.put(_Waiting(job, weight, deadline, loop, future, now, origin()))
        return await future

    def _refuse_what_comes_too_late(self, waiting: int, weight: int, deadline: float) -> None:
        """Refused at once, a request can go elsewhere; let in, it would only delay the others."""
        wait = self.wait_seconds
        if waiting + weight > self._max_waiting:
            reason = (
                f"{waiting} texts wait for an answer already, the queue takes {self._max_waiting}."
            )
        elif time.monotonic() + wait > deadline:
            reason = f"{waiting} texts wait for an answer already, which takes about {wait:.1f} s."
        else:
            return
        raise Overloaded(
            reason,
            hint="Try again in a moment, or add replicas.",
            retry_after=max(1, math.ceil(wait)),
        )

    def between_batches(self, action: Callable[[], T]) -> T:
        """Run `action` on the worker after the batch under way and before the next; wait for it.

        Raises:
            NotReady: the batcher was closed.
        """
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(action())
            except BaseException as error:
                errors.append(error)
            finally:
                done.set()

        if self._closed:
            raise NotReady("The service is stopping.")
        self._queue.put(run)
        while not done.wait(1.0):
            if not self._thread.is_alive():
                raise NotReady("The service has stopped.")
        if errors:
            raise errors[0]
        # Taken out: the worker holds `run`, and with it what is left here, until the next job comes.
        return results.pop()

    def close(self) -> None:
        """Answer what waits, then stop the worker. Safe to call twice."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        held: _Waiting[J, R] | None = None
        while True:
            batch: list[_Waiting[J, R]] = []
            weight = 0
            entry = held or self._queue.get()
            held = None
            while isinstance(entry, _Waiting):
                if batch and weight + entry.weight > self._max_batch:
                    held = entry
                    break
                batch.append(entry)
                weight += entry.weight
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._taken += weight
            if batch:
                self._answer(batch)
            if held is None and not isinstance(entry, _Waiting):
                if entry is None:
                    return
                entry()

    def _answer(self, batch: list[_Waiting[J, R]]) -> None:
        now = time.monotonic()
        wanted = []
        results: list[tuple[_Waiting[J, R], R | RetriktError]] = []
        for entry in batch:
            if entry.future.done():
                continue
            if now > entry.deadline:
                late = Overloaded(
                    "The request waited longer than its time limit.",
                    hint="Try again in a moment, or add replicas.",
                )
                results.append((entry, late))
                continue
            wanted.append(entry)
        if wanted:
            self._on_wait(now - wanted[0].since)
            answers: Sequence[R | RetriktError]
            started = time.perf_counter()
            try:
                with batch_span("batch", [entry.origin for entry in wanted]):
                    answers = self._process(
                        [entry.job for entry in wanted], min(entry.deadline for entry in wanted)
                    )
            except RetriktError as error:
                answers = [error] * len(wanted)
            except Exception as error:
                # A bug of ours must not end the worker: the jobs fail, the next ones are answered.
                log.exception("batch_crashed", jobs=len(wanted))
                bug = RetriktError(f"{type(error).__name__} in the service; its log has the trace.")
                answers = [bug] * len(wanted)
            seconds = time.perf_counter() - started
            self._cost.observe(sum(entry.weight for entry in wanted), seconds)
            results.extend(zip(wanted, answers, strict=True))
        _deliver(results)


def _deliver(results: list[tuple[_Waiting[J, R], R | RetriktError]]) -> None:
    """Hand the results over with one wake-up of each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting[J, R], R | RetriktError]]] = {}
    for entry, result in results:
        loops.setdefault(entry.loop, []).append((entry, result))
    for loop, part in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, part)
        except RuntimeError:
            log.warning("loop_closed", jobs=len(part))


def _resolve(results: list[tuple[_Waiting[J, R], R | RetriktError]]) -> None:
    for entry, result in results:
        if entry.future.done():
            continue
        if isinstance(result, RetriktError):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)

"""Mixed load for a while, with restarts of the store, activations and rollbacks: what fails, what grows.

    python benchmarks/soak.py runs/helpdesk --minutes 30
    python benchmarks/soak.py runs/helpdesk --minutes 30 --embedded

Student and store service run as shipped, in processes of their own, on a copy of the task with two releases (the live
one, and the same student with half of its items). With `--embedded` the student searches by itself, and nothing but
releases changes. Requests come at random instants, `--rate` a second: single texts, batches, explanations, the open
inference protocol, and bad input of several kinds. Every `--every` seconds the next of these happens: the other release
is activated, the store is stopped and started, rolled back, the store is killed and started.

A good request that is answered with anything but 200 and its labels, or not at all, has failed; answers without the
store are counted, but are good. Bad input must be refused with a status from 400 to 499. Memory and file descriptors
are looked at each second: the medians of the first and the last sixth of the time after a warm-up (a fifth of it all)
are compared. Exit status 1 where a good request failed, bad input was answered otherwise, the student's memory grew by
more than 5 %, or its descriptors by more than `SPARE`.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
from servers.mixed_load import MixedLoad, Seen
from servers.ours import store_service, student
from servers.processes import Server, free_port
from servers.sample_texts import sample_texts
from servers.sized_task import add_sized, live_release

from services.releases.directory import ReleaseDirectory
from services.releases.manifest import read_release_manifest

WARM_UP = 0.2
GROWTH = 0.05
SPARE = 4
"""Descriptors more at the end than after the warm-up: a connection or two may be open at one time and not another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--every", type=float, default=10.0, help="seconds from event to event")
    parser.add_argument("--embedded", action="store_true", help="no store service")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    release = live_release(given.task_dir)
    manifest = read_release_manifest(release)
    with ExitStack() as stack:
        task_dir = Path(stack.enter_context(tempfile.TemporaryDirectory())) / manifest.task
        names = [add_sized(release, task_dir, manifest.items // part) for part in (2, 1)]
        store = None
        if not given.embedded:
            store = RestartableStore(task_dir)
            stack.callback(store.stop)
            store.start()
        served = stack.enter_context(student(task_dir, store and store.server))
        load = MixedLoad(served.url, manifest.task, sample_texts(release), given.rate)
        events = Events(ReleaseDirectory(task_dir / "releases"), names, store)
        samples = asyncio.run(soak(load, events, served, store, given.minutes * 60, given.every))
    faults = report(load.seen, events.happened, samples, manifest.items)
    if given.json:
        told = {"answered": load.seen.answered, "events": events.happened, "samples": samples}
        given.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    sys.exit(bool(faults))


class RestartableStore:
    """`python -m services.store` on one port, which goes away and comes back.

    Attributes:
        server: that runs; None while it is away.
    """

    def __init__(self, task_dir: Path) -> None:
        self._task_dir = task_dir
        self._port = free_port()
        self._stack = ExitStack()
        self.server: Server | None = None

    def start(self) -> None:
        self.server = self._stack.enter_context(
            store_service(
                self._task_dir / "store", releases=self._task_dir / "releases", port=self._port
            )
        )

    def stop(self) -> None:
        self.server = None
        self._stack.close()

    def kill(self) -> None:
        if self.server is not None:
            self.server.process.kill()
        self.stop()


class Events:
    """What happens to the services while they are asked.

    Attributes:
        happened: how often what did.
    """

    def __init__(
        self, releases: ReleaseDirectory, names: list[str], store: RestartableStore | None
    ) -> None:
        self.happened: Counter[str] = Counter()
        others = itertools.cycle(names)
        activate = ("activation", lambda: releases.activate(next(others)))
        rollback = ("rollback", releases.rollback)
        events: list[tuple[str, Callable[[], object]]] = [activate, rollback]
        if store is not None:
            restart = ("store restarted", lambda: (store.stop(), store.start()))
            kill = ("store killed", lambda: (store.kill(), store.start()))
            events = [activate, restart, rollback, kill]
        self._next: Iterator[tuple[str, Callable[[], object]]] = itertools.cycle(events)

    def happen(self) -> None:
        name, event = next(self._next)
        event()
        self.happened[name] += 1


Samples = dict[str, list[float]]


async def soak(
    load: MixedLoad,
    events: Events,
    served: Server,
    store: RestartableStore | None,
    seconds: float,
    every: float,
) -> Samples:
    """Ask, let things happen, and look at the processes each second; what was seen of them."""
    until = time.monotonic() + seconds
    samples: Samples = {"seconds": [], "rss": [], "descriptors": [], "threads": [], "store rss": []}

    async def happen() -> None:
        while time.monotonic() + every < until:
            await asyncio.sleep(every)
            await asyncio.to_thread(events.happen)

    async def look() -> None:
        while (left := until - time.monotonic()) > 0:
            samples["seconds"].append(seconds - left)
            samples["rss"].append(served.process.memory_info().rss)
            samples["descriptors"].append(served.process.num_fds())
            samples["threads"].append(served.process.num_threads())
            samples["store rss"].append(_rss(store))
            await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(until))
        tasks.create_task(happen())
        tasks.create_task(look())
    return samples


def _rss(store: RestartableStore | None) -> float:
    running = store.server if store is not None else None
    try:
        return float(running.process.memory_info().rss) if running is not None else 0.0
    except psutil.NoSuchProcess:
        return 0.0


def report(seen: Seen, happened: Counter[str], samples: Samples, items: int) -> list[str]:
    """Print what was seen; what of it must not be."""
    good = sum(count for kind, count in seen.answered.items() if kind != "bad")
    print(f"{items} items; answered: {dict(seen.answered)}; happened: {dict(happened)}")
    print(f"of {good} good answers, {seen.degraded} without the store")
    p50, p99 = (statistics.quantiles(seen.seconds, n=100)[place] * 1e3 for place in (49, 98))
    print(f"good answers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(seen.seconds):.2f} s")
    faults = seen.wrong[:20]
    before, after = windows(samples["rss"])
    print(
        f"student's memory: {before / 2**20:.1f} to {after / 2**20:.1f} MiB ({after / before - 1:+.1%})"
    )
    if after > before * (1 + GROWTH):
        faults.append("the student's memory grows")
    first, last = windows(samples["descriptors"])
    print(
        f"student's descriptors: {first:.0f} to {last:.0f}; threads: {windows(samples['threads'])}"
    )
    if last > first + SPARE:
        faults.append("the student's descriptors grow")
    store = [rss for rss in samples["store rss"] if rss]
    if store:
        first, last = windows(store)
        print(
            f"store's memory (restarted again and again): {first / 2**20:.1f} to {last / 2**20:.1f} MiB"
        )
    print(f"{len(seen.wrong)} requests were not answered as they should be")
    for fault in faults:
        print(f"FAULT {fault}")
    return faults


def windows(values: list[float]) -> tuple[float, float]:
    """Medians of the first and the last sixth of what was seen after the warm-up."""
    warm = values[int(len(values) * WARM_UP) :]
    size = max(1, len(warm) // 6)
    return statistics.median(warm[:size]), statistics.median(warm[-size:])


if __name__ == "__main__":
    main()

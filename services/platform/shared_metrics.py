"""Metrics of several worker processes as one: each keeps its own in files that all of them read.

This is prometheus_client's multiprocess mode, with the worker's number in place of its process's: who replaces
a worker counts on from where that one ended, and no files pile up.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from services.platform.worker import Worker

Mode = Literal["livesum", "livemax", "livemin", "sum"]
"""What becomes of the workers' values of a gauge. Those of `live…` go with their worker."""

_PROCESS: dict[str, tuple[str, Mode]] = {
    "process_virtual_memory_bytes": ("Virtual memory of the workers, in bytes.", "livesum"),
    "process_resident_memory_bytes": ("Resident memory of the workers, in bytes.", "livesum"),
    "process_start_time_seconds": ("When the youngest worker started, Unix time.", "livemax"),
    "process_open_fds": ("Open files of the worker that has the most.", "livemax"),
    "process_max_fds": ("Open files that a worker may have.", "livemin"),
}
_CPU = "process_cpu_seconds"


def share_values(worker: Worker) -> None:
    """Keep the metrics of this process in the workers' files; to be called before the first metric is made."""
    # Where the files are is read from the environment alone.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(worker.directory)
    values.ValueClass = values.MultiProcessValue(lambda: worker.number)  # type: ignore[no-untyped-call]


def forget(worker: Worker) -> None:
    """Take the `live…` gauges of a worker that has ended; what it counted stays."""
    mark_process_dead(worker.number, str(worker.directory))  # type: ignore[no-untyped-call]


class WorkersCollector(Collector):
    """The metrics of all the workers.

    A sample of 0 in an `…_info` metric is one that no worker stands by any more: files keep every
    label that was ever set.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        merged = MultiProcessCollector.merge(self._files())  # type: ignore[no-untyped-call]
        for metric in merged:
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric

    def _files(self) -> list[str]:
        """Those of a worker that is just being started have nothing in them, not even a head."""
        found = []
        for entry in os.scandir(self._directory):
            try:
                if entry.name.endswith(".db") and entry.stat().st_size > 0:
                    found.append(entry.path)
            except FileNotFoundError:  # a worker has ended
                continue
        return found


class ProcessFigures:
    """What the workers' processes take, under the names that `ProcessCollector` gives one process's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._own = ProcessCollector(registry=None)
        self._gauges = {
            name: Gauge(name, text, registry=registry, multiprocess_mode=mode)
            for name, (text, mode) in _PROCESS.items()
        }
        self._cpu = Counter(_CPU, "Processor seconds of the workers.", registry=registry)
        self._counted = 0.0
        self._lock = Lock()
        self.refresh()

    def refresh(self) -> None:
        """Note what this process takes now; nothing where the system does not tell."""
        with self._lock:
            for family in self._own.collect():
                for sample in family.samples:
                    if sample.name in self._gauges:
                        self._gauges[sample.name].set(sample.value)
                    elif sample.name == f"{_CPU}_total":
                        self._cpu.inc(sample.value - self._counted)
                        self._counted = sample.value

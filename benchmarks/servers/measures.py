"""Figures of one measurement: texts a second and latencies, in process or through a server."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from servers.processes import ROOT, Server
from services.student.predictor import Predictor, TextInput

Figures = dict[str, float]
Rounds = dict[str, list[Figures]]

CALM = 0.7
"""Seconds of load before a measurement: a server that was stopped has to get going again."""


def loop(predictor: Predictor, texts: list[TextInput], size: int, seconds: float) -> Figures:
    """The predictor called in this process, `size` texts a call."""
    times: list[float] = []
    begun = time.perf_counter()
    start = 0
    while (now := time.perf_counter()) - begun < seconds:
        predictor.predict(texts[start : start + size])
        times.append(time.perf_counter() - now)
        start = (start + size) % (len(texts) - size)
    took = time.perf_counter() - begun
    times.sort()
    return {
        "rate": size * len(times) / took,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3,
        "failed": 0,
    }


def load(
    url: str, bodies: Path, connections: int, seconds: float, rate: float | None = None
) -> Figures:
    """A server loaded by a client in a process of its own; see `benchmarks/load.py`."""
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), url, "--body", str(bodies)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    if rate is not None:
        command += ["--rate", str(rate)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def loaded(
    server: Server, path: str, bodies: Path, connections: int, seconds: float, _: Rounds
) -> Figures:
    """A server woken up, loaded, and stopped again."""
    with server.awake():
        load(server.url + path, bodies, connections, CALM)
        return load(server.url + path, bodies, connections, seconds)


def in_rounds(measures: Mapping[str, Callable[[Rounds], Figures]], rounds: int) -> Rounds:
    """Every measure once a round, round after round; each is shown what was measured before it."""
    figures: Rounds = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure(figures))
    return figures


def medians(rounds: Rounds) -> dict[str, Figures]:
    return {
        name: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for name, figures in rounds.items()
    }


def print_table(middle: Mapping[str, Figures]) -> None:
    width = max(map(len, middle))
    print(f"{'':{width}} {'texts/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7}")
    for name, figures in middle.items():
        print(
            f"{name:{width}} {figures['rate']:9.0f} {figures['p50_ms']:8.2f} "
            f"{figures['p99_ms']:8.2f} {figures['failed']:7.0f}"
        )

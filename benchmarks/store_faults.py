"""Faults of the store, injected for real and repeated: a table of tries and of what became of them.

    python benchmarks/store_faults.py                    # the counts that docs/results-store.md tells of
    python benchmarks/store_faults.py --scale 0.1        # a tenth of them
    python benchmarks/store_faults.py --only kill_build disk_full

Each try ends with the same questions: is everything there that was there, does what is live still answer as before, is
nothing half made to be seen, and does the next attempt come through? A try that says no to one of them is broken,
and the script ends with status 1. A disk is filled on a file system of its own, which takes the right to mount one.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from faults import file_faults, process_faults, qdrant_faults, switching
from faults.tally import Tally

FAULTS: dict[str, tuple[Callable[[Path, int, random.Random], Tally], int]] = {
    "kill_build": (process_faults.kill_build, 50),
    "kill_activation": (process_faults.kill_activation, 50),
    "kill_service": (process_faults.kill_service, 20),
    "activations_under_load": (switching.activations_under_load, 200),
    "two_rebuilds": (process_faults.two_rebuilds, 10),
    "disk_full": (file_faults.disk_full, 10),
    "truncated_knowledge": (file_faults.truncated_knowledge, 20),
    "corrupted_engine": (file_faults.corrupted_engine, 20),
    "qdrant_away": (qdrant_faults.away_slow_and_back, 10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tries of each fault")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # Processes that are to be killed start from one that has everything loaded: at once.
    multiprocessing.set_start_method("forkserver")
    tallies = []
    for name in given.only:
        fault, tries = FAULTS[name]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="retrikt-faults-") as folder:
            tally = fault(
                Path(folder), max(1, round(tries * given.scale)), random.Random(given.seed)
            )
        tallies.append(tally)
        print(tally.row(), f" ({time.perf_counter() - started:.0f} s)", flush=True)
    print("\n| fault | tries | outcomes | broken |\n| --- | --- | --- | --- |")
    for tally in tallies:
        print(tally.row())
    for tally in tallies:
        for broken in tally.broken:
            print(f"{tally.fault}: {broken}", file=sys.stderr)
    sys.exit(any(tally.broken for tally in tallies))


if __name__ == "__main__":
    main()

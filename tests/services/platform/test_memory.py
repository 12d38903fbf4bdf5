"""Memory that is not needed any more goes back to the system; what stays is not looked at again."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from services.platform.memory import give_back_what_went

def resident():
    return psutil.Process().memory_info().rss

# Blocks below the size that glibc takes from the system one by one; every hundredth stays, and pins its heap's top.
blocks = [bytes([n % 251]) * 60_000 for n in range(4_000)]
full = resident()
kept = blocks[::100]
del blocks
freed = resident()
give_back_what_went()
print(full, freed, resident())
"""


def run(program: str) -> list[str]:
    """What a program prints in a process of its own, by words."""
    # Settings of the allocator, or another one, would be what is measured.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LD_PRELOAD", "GLIBC_TUNABLES") and not name.startswith("MALLOC_")
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


CYCLES = """
import gc, weakref
from services.platform.memory import frozen_start, give_back_what_went

class Node: pass

def dead_cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

gc.disable()
before = dead_cycle()
with frozen_start():
    frozen = gc.get_freeze_count()
    since = dead_cycle()
    give_back_what_went()
    print(before() is None, frozen > 1_000, since() is None, len(gc.get_objects()) < frozen)
print(gc.get_freeze_count())
"""


def test_cycles_are_collected_and_what_was_there_before_is_not_looked_at() -> None:
    assert run(CYCLES) == ["True", "True", "True", "True", "0"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    full, freed, after = map(int, run(PROGRAM))
    assert full - freed < 50e6, "the C library has kept it, or there is nothing to see here"
    assert full - after > 150e6

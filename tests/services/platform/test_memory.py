"""Memory that is not needed any more goes back to the system; what stays is not looked at again."""

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
blocks = [bytes(60_000) for _ in range(4_000)]
full = resident()
kept = blocks[::100]
del blocks
freed = resident()
give_back_what_went()
print(full, freed, resident())
"""


def run(program: str) -> list[str]:
    """What a program prints in a process of its own, by words."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


CYCLES = """
import gc, weakref
from services.platform.memory import freeze_what_stays, give_back_what_went

class Node: pass

gc.disable()
freeze_what_stays()
frozen = gc.get_freeze_count()
node = Node()
node.itself, seen = node, weakref.ref(node)
del node
give_back_what_went()
print(frozen > 1_000, seen() is None, len(gc.get_objects()) < frozen)
"""


def test_cycles_are_collected_and_what_was_there_before_is_not_looked_at() -> None:
    assert run(CYCLES) == ["True", "True", "True"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    full, freed, after = map(int, run(PROGRAM))
    assert full - freed < 50e6, "the C library has kept it, or there is nothing to see here"
    assert full - after > 150e6

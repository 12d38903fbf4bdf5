"""Faults of the store, one module a kind; the tests' small tasks and stand-ins are what they are tried on."""

import logging
import sys
from pathlib import Path

import structlog

_ROOT = Path(__file__).resolve().parents[2]
_TESTS = _ROOT / "tests" / "services"

sys.path[:0] = [
    str(_ROOT),
    str(_TESTS / "student"),
    str(_TESTS / "store"),
    str(_TESTS / "store" / "backends"),
]

# In the processes that are started too; what goes wrong on purpose is told in the table.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

"""Lets the backends' tests import what lies beside them, and the samples of the store's tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

"""Lets the store's tests import the samples beside them, and the student's tiny releases."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "student"))

"""Lets these tests start the services on the student's tiny task."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "services" / "student"))

"""The commit that this code is at."""

import subprocess
from pathlib import Path

_TREE = Path(__file__).resolve().parents[2]
_SECONDS = 10.0


def git_revision() -> str | None:
    """The commit, `-dirty` behind it where a file of the code differs; None outside of a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "offline", "services")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_TREE), *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    return done.stdout.strip()

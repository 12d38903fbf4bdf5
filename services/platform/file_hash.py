"""Hashes of files: SHA-256 of their bytes, in hexadecimal digits."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def hash_file(path: Path) -> str:
    """The hash of a file. Raises OSError where it cannot be read."""
    return length_and_hash(path)[1]


def length_and_hash(path: Path) -> tuple[int, str]:
    """How many bytes a file has, and their hash; both are of the same reading. Raises as `hash_file`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest

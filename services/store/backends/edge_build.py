"""Building a Qdrant Edge shard in a process of its own.

Three reasons: the engine holds the interpreter's lock for the seconds that a graph takes, which
would freeze a server or a progress bar; on a full disk it dies of a bus error, since it writes
through memory maps; and what it allocates goes back to the system at the end.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from services.platform.errors import CorruptArtifact, RetriktError, StorageFull, StoreUnavailable
from services.store.backends.base import PointBatch, VersionManifest
from services.store.backends.edge_shard import build_shard
from services.store.backends.layout import Layout
from services.store.backends.points import checked, read_stream, write_stream

_SOURCE_ROOT = Path(__file__).resolve().parents[3]
_CORRUPT = 3


def build_in_child(
    directory: Path,
    manifest: VersionManifest,
    batches: Iterable[PointBatch],
    *,
    lock: int,
    layout: Layout | None = None,
) -> None:
    """Build a shard at `directory` and wait for it.

    Args:
        directory, manifest, batches: see `build_shard`.
        layout: None for that of every version that is given none.
        lock: descriptor of the lock on the directory around it; the child keeps it too.

    Raises:
        CorruptArtifact: the batches are not what the manifest says.
        StorageFull: the disk has no room left.
        StoreUnavailable: the engine ended otherwise.
        Whatever `batches` raises.
    """
    # One argument of a process has a limit of its own; the child needs no counts.
    told = manifest.model_copy(update={"counts": None}).model_dump_json()
    laid_out = (layout or Layout()).model_dump_json()
    path = os.pathsep.join(filter(None, [str(_SOURCE_ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory), told, laid_out],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=[lock],
            env={**os.environ, "PYTHONPATH": path, "RUST_BACKTRACE": "0"},
        )
        try:
            assert child.stdin is not None
            # Where the child is gone, its status says more than the broken pipe.
            with suppress(BrokenPipeError), child.stdin as sink:
                write_stream(sink, checked(manifest, batches), manifest.dimensions)
            status = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if status != 0:
            said.seek(0)
            raise _reason(status, said.read().decode(errors="replace").strip(), directory)


def _reason(status: int, said: str, directory: Path) -> RetriktError:
    last = said.splitlines()[-1] if said else "nothing"
    if status == -signal.SIGBUS or "No space left on device" in said or "os error 28" in said:
        return StorageFull(
            f"The disk that holds {directory.parent.parent} is full: no store version was written.",
            hint="Make room and build it again.",
        )
    if status == _CORRUPT:
        return CorruptArtifact(last)
    if status < 0:
        return StoreUnavailable(
            f"The process that builds the store version was ended by {signal.Signals(-status).name}.",
            hint="SIGKILL often means that the machine ran out of memory.",
        )
    return StoreUnavailable(f"Building the store version failed with status {status}: {last}.")


def main(arguments: list[str]) -> int:
    """`DIRECTORY MANIFEST LAYOUT`, points on standard input; 0 when the shard is complete."""
    directory, manifest = Path(arguments[0]), VersionManifest.model_validate_json(arguments[1])
    layout = Layout.model_validate_json(arguments[2])
    try:
        batches = checked(manifest, read_stream(sys.stdin.buffer))
        build_shard(directory, manifest, batches, layout)
    except CorruptArtifact as error:
        sys.stderr.write(f"{error}\n")
        return _CORRUPT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

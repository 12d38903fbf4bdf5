"""Snapshots as somebody with bad intentions, or a bad disk, would make them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

Entries = list[tuple[tarfile.TarInfo, bytes]]
Forgery = Callable[[Entries], None]
"""Changes the entries of a snapshot in place."""


def repack(packed: Path, change: Forgery, target: Path) -> None:
    """The snapshot with other entries, as somebody with bad intentions would make it."""
    with (
        pa.CompressedInputStream(str(packed), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        entries = [
            (member, content.read() if (content := tar.extractfile(member)) else b"")
            for member in tar
        ]
    change(entries)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        pa.CompressedOutputStream(str(target), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for member, content in entries:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def renamed_in_index(entries: Entries, name: str) -> None:
    index = json.loads(entries[0][1])
    old = entries[1][0].name
    index["files"][name] = index["files"].pop(old)
    entries[0] = (entries[0][0], json.dumps(index).encode())
    entries[1][0].name = name


def escape(entries: Entries) -> None:
    renamed_in_index(entries, "version/../../../escaped")


def absolute(entries: Entries) -> None:
    renamed_in_index(entries, "/tmp/escaped-from-a-snapshot")


def beside(entries: Entries) -> None:
    renamed_in_index(entries, "elsewhere/file")


def untold(entries: Entries) -> None:
    entries.append((tarfile.TarInfo("version/untold"), b"more"))


def twice(entries: Entries) -> None:
    entries.append(entries[1])


def without(entries: Entries) -> None:
    del entries[-1]


def another_content(entries: Entries) -> None:
    member, content = entries[1]
    entries[1] = (member, bytes(len(content)))


def names_elsewhere(entries: Entries) -> None:
    """In the engine's own list of files; what it names is there, so that it would be copied."""
    rewritten(entries, "version/sums.json", b'{"../release/soft_labels.npy": [1, 1]}')


def sums_of_nothing(entries: Entries) -> None:
    rewritten(entries, "version/sums.json", b"[1]")


def another_release_s_file(entries: Entries) -> None:
    rewritten(entries, "release/soft_labels.npy", b"of another release")


def rewritten(entries: Entries, name: str, content: bytes) -> None:
    position = next(n for n, (member, _) in enumerate(entries) if member.name == name)
    entries[position] = (entries[position][0], content)
    index = json.loads(entries[0][1])
    index["files"][name] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    entries[0] = (entries[0][0], json.dumps(index).encode())


def symbolic_link(entries: Entries) -> None:
    member = tarfile.TarInfo(entries[1][0].name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    entries[1] = (member, b"")


def hard_link(entries: Entries) -> None:
    member = tarfile.TarInfo(entries[1][0].name)
    member.type, member.linkname = tarfile.LNKTYPE, "../../escaped"
    entries[1] = (member, b"")


def index_later(entries: Entries) -> None:
    entries.append(entries.pop(0))


def another_release(entries: Entries) -> None:
    index = json.loads(entries[0][1])
    index["release"] = "r-000000000000"
    entries[0] = (entries[0][0], json.dumps(index).encode())


FORGERIES: tuple[Forgery, ...] = (
    escape,
    absolute,
    beside,
    untold,
    twice,
    without,
    another_content,
    symbolic_link,
    hard_link,
    index_later,
    another_release,
    names_elsewhere,
    sums_of_nothing,
    another_release_s_file,
)

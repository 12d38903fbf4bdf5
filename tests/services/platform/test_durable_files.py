"""What is written takes the place of what was there as a whole, or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.platform.durable_files import (
    full_disk_told,
    rename_into_place,
    replacing,
)
from services.platform.errors import StorageFull

WRITER = """
import sys
from pathlib import Path
from services.platform.durable_files import replacing

while True:
    for letter in b"ab":
        with replacing(Path(sys.argv[1])) as file:
            for _ in range(50):
                file.write(bytes([letter]) * 4000)
"""


def test_a_kill_at_any_instant_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"a" * 200_000)
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, target])
        time.sleep(0.15 + 0.02 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert target.read_bytes() in (b"a" * 200_000, b"b" * 200_000)


def test_a_block_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write_half() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_known_and_leaves_the_old_file(tmp_path: Path) -> None:
    """`/dev/full` answers every write as a full disk does."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    aside = tmp_path / "aside"
    aside.symlink_to("/dev/full")
    with (
        pytest.raises(StorageFull) as told,
        full_disk_told(tmp_path, "nothing was written"),
        replacing(target, aside=aside) as file,
    ):
        file.write(b"new")
    assert told.value.message == f"The disk that holds {tmp_path} is full: nothing was written."
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_fills_up_while_a_tree_is_copied_is_told_as_full(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"content")

    def to_full_disk(source: str, target: str) -> None:
        shutil.copyfile(source, "/dev/full")

    with pytest.raises(StorageFull, match="is full"), full_disk_told(tmp_path):
        shutil.copytree(tmp_path / "tree", tmp_path / "copy", copy_function=to_full_disk)


def test_another_fault_of_the_disk_is_not_told_as_a_full_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_told(tmp_path):
        (tmp_path / "nowhere" / "file").write_bytes(b"content")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "lost").symlink_to("nowhere")
    with pytest.raises(shutil.Error), full_disk_told(tmp_path):
        shutil.copytree(tmp_path / "tree", tmp_path / "copy")


def test_a_directory_takes_its_name_and_never_another_one_s_place(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    rename_into_place(tmp_path / "first", tmp_path / "target")
    with pytest.raises(OSError, match="not empty"):
        rename_into_place(tmp_path / "second", tmp_path / "target")
    assert (tmp_path / "target" / "deep" / "file").read_text() == "first"

"""A purge leaves its texts in nothing that it cannot read, and in no labeller; nor does it stop there."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from edited_task import TEST_ROW, live
from structlog.testing import capture_logs

from offline.knowledge.additions import NewItem, check_against_held_out
from offline.knowledge.journal import item_keys
from offline.knowledge.purge import purge
from offline.knowledge.sources import sources_of
from offline.store.config import StoreConfig
from offline.tasks.examples import SCHEMA, write_examples
from services.platform.errors import InvalidData
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import KNOWLEDGE
from services.store.backends.edge import SHARD

SECRET = "the secret of Alice"
KEYS = item_keys([SECRET], None)


def copy_of_the_version(task: Path, name: str) -> Path:
    """Another version, that no release needs."""
    served = task / "store" / live(task).store_version
    copied = shutil.copytree(served, served.with_name(name))
    told = json.loads((copied / "version.json").read_text())
    (copied / "version.json").write_text(json.dumps({**told, "version": name}))
    return copied


def test_a_damaged_version_that_nothing_needs_is_deleted_and_stops_no_purge(task: Path) -> None:
    whole, damaged = (copy_of_the_version(task, name) for name in ("v-whole", "v-damaged"))
    largest = max((damaged / SHARD).rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"damaged")
    assert purge(task, KEYS, StoreConfig()).versions == ("v-damaged",)
    assert whole.exists()
    assert not damaged.exists()


def test_what_cannot_be_read_keeps_no_text(task: Path) -> None:
    serves = live(task)
    releases = ReleaseDirectory(task / "releases")
    unreadable = releases.root / "r-000000000000"
    shutil.copytree(releases.path(serves.release), unreadable)
    (unreadable / "manifest.json").write_text("{")
    (unreadable / KNOWLEDGE).write_bytes(b"damaged")
    other = releases.root / "r-111111111111"
    shutil.copytree(releases.path(serves.release), other)
    (other / "manifest.json").unlink()
    snapshot = task / "snapshots" / "v-1.20260101t000000000000z.tar.zst"
    snapshot.parent.mkdir()
    snapshot.write_bytes(b"damaged")
    version = copy_of_the_version(task, "v-unreadable")
    (version / "version.json").write_text("{")
    unnamed = copy_of_the_version(task, "v-unnamed")
    (unnamed / "version.json").unlink()
    found = purge(task, KEYS, StoreConfig())
    assert found.releases == (unreadable.name,)
    assert found.snapshots == ("v-1.20260101t000000000000z",)
    assert found.versions == ("v-unnamed", "v-unreadable")
    gone = (unreadable / KNOWLEDGE, snapshot, version, unnamed)
    assert not [path for path in gone if path.exists()]
    # Its knowledge can be read, and holds none of the texts.
    assert (other / KNOWLEDGE).exists()
    assert (task / "store" / serves.store_version).exists()
    assert releases.activate(serves.release).release == serves.release


def test_what_was_cut_short_keeps_no_text(task: Path) -> None:
    shard = task / "stages" / "generate" / ".partial-key" / "00000.shard"
    build, snapshot = task / "store" / ".aside-build", task / "snapshots" / ".aside-snapshot"
    for directory in (shard.parent, build, snapshot):
        directory.mkdir(parents=True)
        (directory / shard.name).write_text(SECRET)
    assert purge(task, KEYS, StoreConfig()).files == ("stages/generate/.partial-key",)
    assert not [path for path in (shard.parent, build, snapshot) if path.exists()]


@pytest.mark.parametrize("deleted_before", [0, 1])
def test_a_purge_that_is_killed_among_the_files_of_a_run_is_finished_by_the_next(
    task: Path, monkeypatch: pytest.MonkeyPatch, deleted_before: int
) -> None:
    prepare = task / "stages" / "prepare" / "key"
    train, sheet = prepare / "train.parquet", prepare / "samples.md"
    write_examples(pa.table([[SECRET], [None], ["login"]], SCHEMA), train)
    sheet.write_text(SECRET)
    left, unlink = iter(range(deleted_before)), Path.unlink

    def until_killed(path: Path, missing_ok: bool = False) -> None:
        if path in (train, sheet) and next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", until_killed)
        with pytest.raises(KeyboardInterrupt):
            purge(task, KEYS, StoreConfig())
    purge(task, KEYS, StoreConfig())
    assert not train.exists()
    assert not sheet.exists()


def test_a_labeller_that_is_told_a_text_as_an_example_goes(tmp_path: Path) -> None:
    task = tmp_path / "task"
    told = {}
    for name, examples in (("one", [[SECRET.upper(), None, 0]]), ("two", [["other", None, 0]])):
        told[name] = task / "stages" / "labeller" / name / "labeller.json"
        told[name].parent.mkdir(parents=True)
        told[name].write_text(json.dumps({"kind": "verbaliser", "asked": {"examples": examples}}))
    head = task / "stages" / "labeller" / "three" / "labeller.json"
    head.parent.mkdir()
    head.write_text(json.dumps({"kind": "encoder"}))
    assert purge(task, KEYS, StoreConfig()).files == ("stages/labeller/one/labeller.json",)
    assert not told["one"].exists()
    assert told["two"].exists()
    assert head.exists()


def test_rows_that_a_purge_deleted_are_told_of_and_are_not_taken_for_none(task: Path) -> None:
    prepare = task / "stages" / "prepare" / "key"
    sources = sources_of(task, live(task))
    again = [NewItem("row 1", TEST_ROW, None, "login")]
    (prepare / "validation.parquet").rename(prepare / "aside")
    with pytest.raises(InvalidData, match="rows of the test split"):
        check_against_held_out(again, sources)
    other = [NewItem("row 1", "something else", None, "login")]
    (warning,) = check_against_held_out(other, sources)
    assert "the gate measures nothing on them" in warning
    with capture_logs() as events:
        assert len(sources.held_out(["login"], [], pair=False)) == 0
    assert [event["event"] for event in events] == ["not_measured"]
    purge(task, item_keys([TEST_ROW], None), StoreConfig())
    (warning,) = check_against_held_out(again, sources)
    assert "not compared with the test split" in warning

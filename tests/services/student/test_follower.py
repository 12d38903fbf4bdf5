"""The live release is followed; one that cannot be loaded leaves the old one serving and says so."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.platform.errors import CorruptArtifact
from services.releases.directory import LIVE, ReleaseDirectory
from services.releases.in_use import served_by_nobody
from services.releases.manifest import check_release, write_release_manifest
from services.student.follower import ReleaseFollower


class Loaded:
    """Stands for what is made of a release: its directory's name, and whether it was let go."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Server:
    """Loads releases by checking their files, and keeps what serves."""

    def __init__(self, releases: ReleaseDirectory) -> None:
        self.current: Loaded | None = None
        self.loads: list[tuple[str, bool]] = []
        self.follower: ReleaseFollower[Loaded] = ReleaseFollower(
            releases, self.load, self.install, poll_seconds=0.02, longest_retry_seconds=0.1
        )

    def load(self, directory: Path, replaces: bool) -> Loaded:
        self.loads.append((directory.name, replaces))
        return Loaded(check_release(directory).release)

    def install(self, loaded: Loaded) -> Loaded | None:
        before, self.current = self.current, loaded
        return before


@pytest.fixture
def releases(tmp_path: Path) -> ReleaseDirectory:
    releases = ReleaseDirectory(tmp_path / "releases")
    for fill in (b"a", b"b"):
        staged = tmp_path / fill.decode()
        (staged / "bundle").mkdir(parents=True)
        (staged / "knowledge.parquet").write_bytes(fill)
        (staged / "soft_labels.npy").write_bytes(fill)
        write_release_manifest(
            staged,
            task="tiny",
            labels=["one", "two"],
            store_version="v-0",
            encoder_fingerprint="sha256:0",
            items=1,
            metrics={},
        )
        releases.add(staged)
    return releases


@pytest.fixture
def server(releases: ReleaseDirectory) -> Iterator[Server]:
    server = Server(releases)
    yield server
    server.follower.close()


def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def test_nothing_serves_before_a_release_is_live_and_then_each_live_one_does(
    releases: ReleaseDirectory, server: Server
) -> None:
    one, two = (manifest.release for manifest in releases.list())
    server.follower.start()
    assert server.follower.looked.wait(5)
    assert (server.follower.serving, server.follower.failure) == (None, None)
    releases.activate(one)
    until(lambda: server.follower.serving == one)
    first = server.current
    assert first is not None
    releases.activate(two)
    until(lambda: server.follower.serving == two)
    until(lambda: first.closed)
    releases.rollback()
    until(lambda: server.follower.serving == one)
    assert server.loads == [(one, False), (two, True), (one, True)]


def test_a_switch_gives_back_the_memory_of_the_one_before_once_that_is_closed(
    releases: ReleaseDirectory, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Loaded | None] = []
    given_back: list[bool] = []

    def note() -> None:
        assert served[-1] is not None
        given_back.append(served[-1].closed)

    monkeypatch.setattr("services.student.follower.give_back_what_went", note)
    names = [manifest.release for manifest in releases.list()]
    for name in (*names, "nothing new"):
        served.append(server.current)
        if name in names:
            releases.activate(name)
        server.follower.look()
    # Not for the first one, which replaces none, nor for a look that finds nothing new.
    assert given_back == [True]


def test_a_broken_release_leaves_the_old_one_serving_until_it_is_mended(
    releases: ReleaseDirectory, server: Server, tmp_path: Path
) -> None:
    one, two = (manifest.release for manifest in releases.list())
    releases.activate(one)
    server.follower.start()
    until(lambda: server.follower.serving == one)
    releases.activate(two)
    until(lambda: server.follower.serving == two)
    releases.activate(one)
    until(lambda: server.follower.serving == one)

    whole = releases.path(two) / "knowledge.parquet"
    content = whole.read_bytes()
    pointer = releases.root / LIVE
    aside = tmp_path / "pointer"
    aside.write_text(pointer.read_text().replace(one, "X").replace(two, one).replace("X", two))
    whole.write_bytes(b"broken")
    aside.replace(pointer)
    until(lambda: server.follower.failure is not None)
    failure = server.follower.failure
    assert failure is not None
    assert (failure.release, failure.code) == (two, CorruptArtifact.code)
    assert "knowledge.parquet" in failure.reason
    assert server.follower.serving == one
    assert server.current is not None
    assert (server.current.release, server.current.closed) == (one, False)

    tried = len(server.loads)
    until(lambda: len(server.loads) >= tried + 2)
    whole.write_bytes(content)
    until(lambda: server.follower.serving == two)
    assert server.follower.failure is None


def test_a_pointer_that_is_damaged_or_gone_changes_nothing(
    releases: ReleaseDirectory, server: Server
) -> None:
    one, two = (manifest.release for manifest in releases.list())
    releases.activate(one)
    server.follower.start()
    until(lambda: server.follower.serving == one)
    pointer = releases.root / LIVE
    pointer.write_text("{")
    until(lambda: server.follower.failure is not None)
    assert server.follower.serving == one
    pointer.unlink()
    until(lambda: server.follower.failure is None)
    shutil.rmtree(releases.path(one))
    time.sleep(0.1)
    assert server.follower.serving == one
    releases.activate(two)
    until(lambda: server.follower.serving == two)


def test_the_release_that_serves_is_held_and_one_that_does_no_more_is_not(
    server: Server, releases: ReleaseDirectory
) -> None:
    one, two = (manifest.release for manifest in releases.list())

    def held() -> list[str]:
        found = []
        for release in (one, two):
            with served_by_nobody(releases.path(release)) as alone:
                found += [] if alone else [release]
        return found

    assert held() == []
    releases.activate(one)
    server.follower.look()
    assert held() == [one]
    # One that cannot be served is let go again; what serves in its place is not.
    (releases.path(two) / "soft_labels.npy").write_bytes(b"gone")
    (releases.root / LIVE).write_text(f'{{"release": "{two}", "activated_at": "now"}}')
    server.follower.look()
    assert (server.follower.serving, held()) == (one, [one])
    (releases.path(two) / "soft_labels.npy").write_bytes(b"b")
    until(lambda: server.follower.look() or server.follower.serving == two)
    assert held() == [two]
    server.follower.close()
    assert held() == []

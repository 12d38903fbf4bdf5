"""`live` in place of a version, figures, activation and rollback through the service, and its limit in time."""

import asyncio
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from knowledge_samples import LABELS, write_sample
from served_task import KEYS, settings, write_task

from services.platform.errors import Overloaded, StoreUnavailable, TimedOut
from services.platform.server import bind
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import ReleaseManifest
from services.store.app import create_app
from services.store.backends.edge import EdgeBackend
from services.store.client import HttpStoreClient
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.workers import Workers

QUERY = {"vectors": [[0.5] * 8], "k": 3}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ReleaseManifest]]:
    directory = tmp_path_factory.mktemp("task")
    return directory, write_task(directory)


@pytest.fixture
def task(releases: tuple[Path, list[ReleaseManifest]]) -> Path:
    """With the first release live and none before it, as `write_task` leaves it."""
    directory, added = releases
    (directory / "releases" / "live.json").unlink()
    ReleaseDirectory(directory / "releases").activate(added[0].release)
    return directory


@pytest.fixture
def client(task: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings(task))) as client:
        yield client


def searched(client: TestClient) -> str:
    return str(client.post("/v1/versions/live/search", json=QUERY).json()["version"])


def test_live_is_the_live_release_s_version_from_the_moment_it_is_activated(
    client: TestClient, task: Path, releases: tuple[Path, list[ReleaseManifest]]
) -> None:
    first, second = releases[1]
    assert searched(client) == first.store_version
    # Activated by the service, by another process' command, and back again.
    answer = client.post(f"/v1/releases/{second.release}/activate")
    assert (answer.json()["release"], answer.json()["previous"]) == (second.release, first.release)
    assert searched(client) == second.store_version
    assert ReleaseDirectory(task / "releases").rollback().release == first.release
    assert searched(client) == first.store_version
    assert client.post("/v1/releases/rollback").json()["release"] == second.release
    assert searched(client) == second.store_version
    for path in ("", "/statistics", "/items/0"):
        assert client.get(f"/v1/versions/live{path}").status_code == 200
    assert client.post("/v1/versions/live/items", json={"ids": [1]}).json()["version"] == (
        second.store_version
    )
    states = {
        entry["release"]: entry["state"] for entry in client.get("/v1/releases").json()["releases"]
    }
    assert states == {first.release: "previous", second.release: "live"}


def test_statistics_count_items_by_label_and_origin_and_tell_the_age(tmp_path: Path) -> None:
    knowledge = write_sample(tmp_path / "knowledge.parquet", 200)
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    version = backend.build(version_manifest(knowledge), iterate_points(knowledge)).version
    with TestClient(create_app(settings(tmp_path))) as client:
        told = client.get(f"/v1/versions/{version}/statistics").json()
    assert told["items"] == 200
    # The sample's last item has no label.
    assert told["labels"] == {LABELS[1]: 66, LABELS[2]: 66, LABELS[0]: 67}
    assert told["unlabelled"] == 1
    assert told["origins"] == {"generated": 100, "train": 100}
    assert 0 <= told["age_seconds"] < 600
    assert told["live"] is False


def test_a_version_sealed_without_counts_is_counted_in_its_release_s_knowledge_file(
    task: Path, client: TestClient
) -> None:
    counted = client.get("/v1/versions/live/statistics").json()
    sealed = task / "store" / counted["version"] / "version.json"
    before = sealed.read_text()
    sealed.write_text(
        version_manifest_without_counts(EdgeBackend(task / "store"), counted["version"])
    )
    try:
        again = client.get("/v1/versions/live/statistics").json()
    finally:
        sealed.write_text(before)
    assert again["labels"] == counted["labels"] == {"login": 20, "printer": 20, "network": 20}
    assert counted["live"] is True


def version_manifest_without_counts(backend: EdgeBackend, version: str) -> str:
    manifest = backend.manifest(version)
    return manifest.model_copy(update={"counts": None}).model_dump_json()


def test_a_release_goes_live_only_when_its_own_version_is_here(
    client: TestClient, task: Path, releases: tuple[Path, list[ReleaseManifest]]
) -> None:
    first, second = releases[1]
    pointer = (task / "releases" / "live.json").read_bytes()
    away = task / "store" / second.store_version
    hidden, knowledge = (
        task / "hidden",
        task / "releases" / second.release / "knowledge.parquet",
    )
    away.rename(hidden)
    kept = knowledge.read_bytes()
    knowledge.write_bytes(b"gone")
    try:
        answer = client.post(f"/v1/releases/{second.release}/activate")
    finally:
        hidden.rename(away)
        knowledge.write_bytes(kept)
    assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_artifact")
    # Another knowledge file's version under the release's name.
    sealed = away / "version.json"
    before = sealed.read_text()
    sealed.write_text(before.replace(second.knowledge_sha256, "0" * 64))
    answer = client.post(f"/v1/releases/{second.release}/activate")
    sealed.write_text(before)
    assert (answer.status_code, answer.json()["code"]) == (409, "incompatible_artifacts")
    for missing in ("r-000000000000", "live", "..%2f", "x" * 300):
        answer = client.post(f"/v1/releases/{missing}/activate")
        assert answer.status_code == 404
    assert client.post("/v1/releases/rollback").json()["code"] == "release_not_found"
    assert (task / "releases" / "live.json").read_bytes() == pointer
    assert searched(client) == first.store_version


def test_a_switch_that_waits_for_another_writer_holds_up_no_search(
    task: Path, releases: tuple[Path, list[ReleaseManifest]]
) -> None:
    second = releases[1][1].release
    with (
        TestClient(create_app(settings(task, threads=1, request_timeout_seconds=2.0))) as client,
        (task / "releases" / ".lock").open("ab") as lock,
    ):
        assert client.post("/v1/versions/live/search", json=QUERY).status_code == 200
        fcntl.flock(lock, fcntl.LOCK_EX)
        late = client.post(f"/v1/releases/{second}/activate")
        assert (late.status_code, late.json()["code"]) == (503, "timed_out")
        assert client.post("/v1/versions/live/search", json=QUERY).status_code == 200


def test_releases_that_cannot_be_written_are_told_and_stay(
    task: Path, releases: tuple[Path, list[ReleaseManifest]]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a read-only directory takes root")
    second = releases[1][1]
    root = task / "releases"
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
        with TestClient(create_app(settings(task))) as client:
            answer = client.post(f"/v1/releases/{second.release}/activate")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "cannot be written: Read-only file system" in answer.json()["error"]
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_service_without_releases_or_snapshots_says_what_to_set(task: Path) -> None:
    with TestClient(create_app(settings(task, releases=None, snapshots=None))) as client:
        for method, path, variable in (
            ("GET", "/v1/versions/live", "RETRIKT_STORE_RELEASES"),
            ("GET", "/v1/releases", "RETRIKT_STORE_RELEASES"),
            ("POST", "/v1/releases/rollback", "RETRIKT_STORE_RELEASES"),
            ("GET", "/v1/snapshots", "RETRIKT_STORE_SNAPSHOTS"),
        ):
            answer = client.request(method, path)
            assert answer.status_code == 404
            assert variable in answer.json()["error"]


def test_a_call_that_takes_too_long_is_answered_and_one_that_waits_is_not_begun() -> None:
    workers = Workers(threads=1, max_waiting=2, seconds=0.1)
    release = threading.Event()
    begun: list[str] = []

    def slow() -> None:
        begun.append("slow")
        release.wait(30)

    async def ask() -> None:
        first = asyncio.ensure_future(workers.run(slow))
        second = asyncio.ensure_future(workers.run(lambda: begun.append("second")))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await workers.run(lambda: None)
        for call in (first, second):
            with pytest.raises(TimedOut, match=r"within 0\.1 s"):
                await call
        # The first one still holds the thread: it counts until it ends.
        assert workers.waiting == 2
        release.set()
        deadline = time.monotonic() + 10
        while workers.waiting and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert workers.waiting == 0
        assert await workers.run(lambda: "works") == "works"

    asyncio.run(ask())
    workers.close()
    assert begun == ["slow"]


def test_a_search_that_takes_too_long_is_503_with_a_code_of_its_own(task: Path) -> None:
    impatient = settings(task, request_timeout_seconds=0.000_001)
    with TestClient(create_app(impatient)) as client:
        answer = client.post("/v1/versions/live/search", json=QUERY)
        assert (answer.status_code, answer.json()["code"]) == (503, "timed_out")
        assert answer.headers["x-request-id"]


def test_the_client_is_served_with_its_key_and_unavailable_without(task: Path) -> None:
    guarded = settings(task, read_keys=KEYS["read"], text_keys=KEYS["text"])
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(guarded), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        live = ReleaseDirectory(task / "releases").live()
        assert live is not None
        manifest = ReleaseDirectory(task / "releases").get(live.release)
        version, fingerprint = manifest.store_version, manifest.encoder_fingerprint
        allowed = {"text": (True, True), "read": (True, False), None: (False, False)}
        for name, (reads, sees_texts) in allowed.items():
            client = HttpStoreClient(url, timeout=20, key=KEYS[name] if name else None)
            calls = (
                (reads, lambda c=client: c.check(version, fingerprint)),
                (sees_texts, lambda c=client: c.items(version, [0])),
            )
            for may, call in calls:
                if may:
                    assert call()
                else:
                    with pytest.raises(StoreUnavailable, match="refuses this client"):
                        call()
            client.close()
    finally:
        server.should_exit = True
        thread.join()

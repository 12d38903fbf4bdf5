"""Several workers on one port, as real processes: who dies is replaced, who cannot start ends it, all drain."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.platform.errors import AddressInUse, IncompatibleArtifacts, NotReady
from services.platform.server import bind

TOY = Path(__file__).parent / "toy_workers.py"
ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Toy:
    """A running service; `directory` takes the files that it obeys, `temporary` its own."""

    process: subprocess.Popen[bytes]
    url: str
    directory: Path
    temporary: Path
    log: Path

    def get(self, path: str) -> Any:
        """The answer over a connection of its own, which any worker may take."""
        return httpx.get(self.url + path, timeout=30, trust_env=False).json()

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics", timeout=30, trust_env=False).text
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def events(self, name: str) -> list[dict[str, Any]]:
        # The last line may be half written yet.
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["event"] == name]

    def workers(self) -> dict[int, int]:
        """Process of each worker that serves now."""
        found = {}
        for event in self.events("worker_serves"):
            found[event["worker"]] = event["pid"]
        for event in self.events("worker_died"):
            if found.get(event["worker"]) == event["pid"]:
                del found[event["worker"]]
        return found


@contextmanager
def toy(
    directory: Path, workers: int = 2, *, port: int = 0, serving: int = 2, hang: float = 30.0
) -> Iterator[Toy]:
    temporary, log = directory / "temporary", directory / "log"
    temporary.mkdir()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, TOY, str(workers), str(directory)],
            cwd=ROOT,
            env=os.environ
            | {
                "PORT": str(port),
                "TMPDIR": str(temporary),
                "PYTHONPATH": str(ROOT),
                "HANG_SECONDS": str(hang),
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        service = Toy(process, url, directory, temporary, log)
        until(lambda: len(service.workers()) >= serving or process.poll() is not None)
        yield service
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


WHO = 'retrikt_toy_requests_total{outcome="ok",route="/who"}'


def counted(service: Toy) -> float:
    return service.metrics().get(WHO, 0)


def test_both_answer_and_are_shown_as_one(tmp_path: Path) -> None:
    with toy(tmp_path) as service:
        asked = 0
        answered: set[int] = set()
        while len(answered) < 2:
            answered.add(service.get("/who")["pid"])
            asked += 1
        assert answered == set(service.workers().values())
        # A request is counted after its answer has left.
        until(lambda: counted(service) == asked)
        for _ in range(3):  # whoever is asked
            until(lambda: service.metrics()["retrikt_toy_requests_in_flight"] == 1)
            found = service.metrics()
            assert found["toy_asked_total"] == asked
            assert found[WHO] == asked
            assert found['retrikt_toy_request_seconds_count{route="/who"}'] == asked
            assert found['retrikt_toy_build_info{version="0.1.0"}'] == 1
            # Declared, never asked for.
            assert found['retrikt_toy_requests_total{outcome="ok",route="/hold/{name}"}'] == 0
            assert not [name for name in found if "pid=" in name]
        resident = sum(resident_bytes(pid) for pid in answered)
        assert found["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)
        assert found["process_cpu_seconds_total"] > 0
        assert found["process_open_fds"] < found["process_max_fds"]


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_killed_worker_is_replaced_and_leaves_what_it_counted_but_no_gauge(
    tmp_path: Path,
) -> None:
    with toy(tmp_path) as service:
        for _ in range(10):
            service.get("/who")
        held = http.client.HTTPConnection("127.0.0.1", port_of(service.url), timeout=30)
        held.request("GET", "/who")
        pid = json.loads(held.getresponse().read())["pid"]
        # Over the same connection, so that it is the same worker's.
        held.request("GET", "/hold/never")
        until(lambda: service.metrics()["toy_held"] == 1)
        before = service.metrics()
        others = set(service.workers().values()) - {pid}
        os.kill(pid, signal.SIGKILL)
        # The other one goes on, whenever it is asked.
        for _ in range(20):
            assert service.get("/who")["pid"] != pid
        until(lambda: len(service.workers()) == 2 and pid not in service.workers().values())
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            held.getresponse()
        found = service.metrics()
        assert found["toy_asked_total"] == 31
        assert found["toy_held"] == 0
        assert found["retrikt_toy_requests_in_flight"] == 1
        assert found["process_cpu_seconds_total"] >= before["process_cpu_seconds_total"]
        assert found["process_start_time_seconds"] > before["process_start_time_seconds"]
        (new,) = set(service.workers().values()) - others
        until(lambda: service.get("/who")["pid"] == new)
        (died,) = service.events("worker_died")
        assert died["pid"] == pid
        assert died["how"] == "SIGKILL"
        assert died["level"] == "error"
        # A replacement counts on in the files of the one before.
        (files,) = service.temporary.iterdir()
        assert {path.name.rpartition("_")[2] for path in files.glob("*.db")} == {"0.db", "1.db"}


def test_a_worker_that_stands_still_is_killed_and_replaced(tmp_path: Path) -> None:
    with toy(tmp_path, hang=2.0) as service, ThreadPoolExecutor() as pool:
        before = service.workers()
        pool.submit(httpx.get, f"{service.url}/block/60", timeout=30, trust_env=False)
        until(lambda: service.events("worker_hangs"))
        (event,) = service.events("worker_hangs")
        assert before[event["worker"]] == event["pid"]
        assert 2.0 <= event["seconds"] < 30
        until(lambda: service.events("worker_died"))
        (died,) = service.events("worker_died")
        until(lambda: len(service.workers()) == 2)
        assert (died["pid"], died["how"]) == (event["pid"], "SIGKILL")
        assert service.workers()[event["worker"]] != event["pid"]
        answered: set[int] = set()
        until(lambda: answered.add(service.get("/who")["pid"]) or len(answered) == 2)
        assert answered == set(service.workers().values())


def test_a_worker_that_stands_still_in_the_middle_of_a_log_line_is_killed(tmp_path: Path) -> None:
    with toy(tmp_path, hang=2.0) as service, ThreadPoolExecutor() as pool:
        pool.submit(httpx.get, f"{service.url}/lock/60", timeout=30, trust_env=False)
        until(lambda: service.events("worker_hangs"))
        until(lambda: len(service.workers()) == 2)


def test_a_worker_that_drains_for_longer_than_it_may_hang_finishes_what_is_under_way(
    tmp_path: Path,
) -> None:
    with toy(tmp_path, hang=3.0) as service, ThreadPoolExecutor() as pool:
        asked = pool.submit(service.get, "/hold/a")
        until(lambda: service.metrics().get("toy_held") == 1)
        for pid in service.workers().values():
            os.kill(pid, signal.SIGTERM)
        time.sleep(8)
        (tmp_path / "a").touch()
        assert asked.result(30) == "done"
        assert not service.events("worker_hangs")


def test_workers_that_are_busy_or_were_all_paused_are_left_alone(tmp_path: Path) -> None:
    with toy(tmp_path, hang=4.0) as service:
        before = service.workers()
        for _ in range(4):
            service.get("/block/1.2")
        everybody = [*before.values(), service.process.pid]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6)
        # The supervisor first: it must not take what was paused beside it for hanging.
        for pid in reversed(everybody):
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.3)
        time.sleep(4)
        assert service.workers() == before
        assert service.get("/who")["pid"] in before.values()
        assert not service.events("worker_hangs")


def test_sigterm_finishes_what_is_under_way_in_every_worker_and_ends_with_0(
    tmp_path: Path,
) -> None:
    with toy(tmp_path) as service, ThreadPoolExecutor(12) as pool:
        running = [pool.submit(service.get, "/hold/go") for _ in range(12)]
        until(lambda: service.metrics()["toy_held"] == 12)
        pids = list(service.workers().values())
        service.process.send_signal(signal.SIGTERM)
        # No new connection is taken once it drains.
        until(lambda: not listens(service.url))
        assert not all(gone(pid) for pid in pids)
        (tmp_path / "go").touch()
        assert [future.result() for future in running] == ["done"] * 12
        assert service.process.wait(30) == 0
        assert all(gone(pid) for pid in pids)
        assert [event["how"] for event in service.events("worker_ended")] == ["status 0"] * 2
        assert service.events("worker_died") == []
        assert service.events("served")
        assert list(service.temporary.iterdir()) == []


def listens(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=30, trust_env=False)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_at_the_start_is_told_once_and_gives_its_own_status(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "refuse").touch()
    with toy(tmp_path, workers) as service:
        assert service.process.wait(30) == IncompatibleArtifacts.exit_code
        (event,) = service.events("service_stopped")
        assert event["code"] == "incompatible_artifacts"
        assert event["reason"] == "Two parts differ. Take others."
        assert "Traceback" not in service.log.read_text()
        assert service.events("worker_died") == []
        assert list(service.temporary.iterdir()) == []
        bind("127.0.0.1", port_of(service.url)).close()


@pytest.mark.parametrize(("file", "told"), [("crash", "status 77"), ("fail", "did not start")])
def test_workers_that_never_serve_end_the_service(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / file).touch()
    with toy(tmp_path) as service:
        assert service.process.wait(30) == NotReady.exit_code
        text = service.log.read_text()
        assert told in text
        assert '"event":"service_stopped"' in text
        assert "worker_died" not in text


def test_a_busy_port_starts_no_worker(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with toy(tmp_path, port=port) as service:
            assert service.process.wait(30) == AddressInUse.exit_code
            (event,) = service.events("service_stopped")
            assert f"Port {port}" in event["reason"]


def test_a_replacement_that_cannot_start_is_tried_again_while_the_other_serves(
    tmp_path: Path,
) -> None:
    with toy(tmp_path) as service:
        (tmp_path / "refuse").touch()
        os.kill(service.workers()[1], signal.SIGKILL)
        until(lambda: len(service.events("worker_died")) >= 3)
        for _ in range(5):
            assert service.get("/who")["worker"] == 0
        first, second, third = service.events("worker_died")[:3]
        assert first["how"] == "SIGKILL"
        assert first["again_in_seconds"] == 0
        assert second["code"] == "incompatible_artifacts"
        assert second["again_in_seconds"] < third["again_in_seconds"]
        (tmp_path / "refuse").unlink()
        until(lambda: len(service.workers()) == 2)
        until(lambda: service.get("/who")["worker"] == 1)


def test_a_supervisor_that_is_killed_takes_its_workers_with_it(tmp_path: Path) -> None:
    with toy(tmp_path) as service:
        pids = list(service.workers().values())
        service.process.kill()
        service.process.wait()
        until(lambda: all(gone(pid) for pid in pids))
        bind("127.0.0.1", port_of(service.url)).close()
        until(lambda: list(service.temporary.iterdir()) == [])


def test_lines_longer_than_a_pipe_takes_at_once_stay_whole(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, TOY, "2", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PORT": "0", "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    with process, ThreadPoolExecutor(9) as pool:
        url = process.stdout.readline().decode().strip()
        reading = pool.submit(
            lambda: lines.extend(json.loads(line) for line in process.stderr or ())
        )
        until(lambda: sum(line["event"] == "worker_serves" for line in list(lines)) == 2)
        sent = [pool.submit(httpx.get, f"{url}/log/100000", timeout=60) for _ in range(60)]
        assert {future.result().status_code for future in sent} == {200}
        process.terminate()
        assert process.wait(30) == 0
        reading.result()
    long = [line for line in lines if line["event"] == "long"]
    assert len(long) == 60
    assert {line["worker"] for line in long} == {0, 1}
    assert {len(line["text"]) for line in long} == {100_000}

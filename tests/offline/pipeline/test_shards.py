"""Shards: kept as they are finished, found by the next run, in order whatever the engine's."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from offline.pipeline.shards import InProcess, keep_shard, kept_shard, run_shards

sys.path.insert(0, str(Path(__file__).parent))
from toy_work import Number


@dataclass
class Squares:
    """Fails at a number; counts how often it was started."""

    fails_at: int | None = None
    started: int = 0

    def start(self) -> Callable[[Number], pa.Table]:
        self.started += 1
        return self._square

    def _square(self, shard: Number) -> pa.Table:
        if shard.number == self.fails_at:
            raise RuntimeError("killed")
        return pa.table({"square": [shard.number**2]})


class Backwards:
    """An engine that has the last shard done first."""

    def run(self, work: Squares, shards: Sequence[Number]) -> Iterator[tuple[Number, pa.Table]]:
        yield from InProcess().run(work, list(reversed(shards)))


SHARDS = [Number(number) for number in range(5)]


def squares(tables: Sequence[pa.Table]) -> list[int]:
    return [table["square"][0].as_py() for table in tables]


@pytest.mark.parametrize("engine", [InProcess(), Backwards()])
def test_results_come_in_the_order_of_the_shards(engine: InProcess, tmp_path: Path) -> None:
    seen: list[Number] = []
    tables = run_shards(engine, Squares(), SHARDS, tmp_path / "partial", seen.append)
    assert squares(tables) == [0, 1, 4, 9, 16]
    assert sorted(seen, key=lambda shard: shard.number) == SHARDS


def test_a_killed_run_s_shards_are_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        run_shards(InProcess(), Squares(fails_at=3), SHARDS, tmp_path, lambda _: None)
    assert [kept_shard(tmp_path, shard) is not None for shard in SHARDS] == [True] * 3 + [False] * 2
    seen: list[Number] = []
    # What fails at 1 would fail if it were done once more.
    tables = run_shards(InProcess(), Squares(fails_at=1), SHARDS, tmp_path, seen.append)
    assert squares(tables) == [0, 1, 4, 9, 16]
    assert seen == SHARDS


def test_nothing_is_loaded_where_every_shard_is_there(tmp_path: Path) -> None:
    run_shards(InProcess(), Squares(), SHARDS, tmp_path, lambda _: None)
    work = Squares()
    assert squares(run_shards(InProcess(), work, SHARDS, tmp_path, lambda _: None))[-1] == 16
    assert work.started == 0


def test_a_kept_shard_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    shard, table = SHARDS[2], pa.table({"text": ["one", "two"], "logprob": [-1.0, -2.5]})
    assert kept_shard(tmp_path / "partial", shard) is None
    keep_shard(tmp_path / "partial", shard, table)
    assert kept_shard(tmp_path / "partial", shard) == table
    (path,) = (tmp_path / "partial").iterdir()
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert kept_shard(tmp_path / "partial", shard) is None
    for length in (0, 31, 32, len(whole) - 9):
        path.write_bytes(whole[:length])
        assert kept_shard(tmp_path / "partial", shard) is None


def test_nothing_is_kept_without_a_directory() -> None:
    assert squares(run_shards(InProcess(), Squares(), SHARDS, None, lambda _: None))[1] == 1
    keep_shard(None, SHARDS[0], pa.table({}))
    assert kept_shard(None, SHARDS[0]) is None

"""Two stages that write a file each, for the tests of the pipeline; run as a program, the chain of both."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline.pipeline.chain import Chain
from offline.pipeline.stage import Stage, StageContext
from services.platform.errors import InvalidData


@dataclass(frozen=True)
class Count:
    upto: int = 20
    pause: float = 0.0
    fails: bool = False
    threads: bool = False


def run(inputs: Mapping[str, Path], config: Count, context: StageContext) -> dict[str, Any]:
    total = sum(int((path / "sum.txt").read_text()) for path in inputs.values())
    with (context.directory / "sum.txt").open("w") as file:
        for number in range(config.upto):
            time.sleep(config.pause)
            context.report(number + 1, config.upto, {"total": total})
            total += number * (context.seed + 1)
            if config.fails:
                raise InvalidData("Counting is not possible.", hint="Count by hand.")
        file.write(str(total))
    return {"total": total} | ({"threads": torch_threads()} if config.threads else {})


def torch_threads() -> int:
    import torch

    return int(torch.get_num_threads())


def toy_chain(root: Path, first: Count, second: Count, outside: str = "") -> Chain:
    return Chain(
        stages=(
            Stage("first", "toy_stages", (), "first"),
            Stage("second", "toy_stages", ("first",), "second"),
        ),
        root=root,
        sections={"first": first, "second": second},
        outside={"first": {"data": outside}} if outside else {},
    )


def forked_chain(root: Path, left: Count, right: Count, processes: int = 2) -> Chain:
    """One stage, two that read it and may run beside each other, and one that reads these."""
    return Chain(
        stages=(
            Stage("first", "toy_stages", (), "first"),
            Stage("left", "toy_stages", ("first",), "left"),
            Stage("right", "toy_stages", ("first",), "right"),
            Stage("last", "toy_stages", ("left", "right"), "first"),
        ),
        root=root,
        sections={"first": Count(), "left": left, "right": right},
        outside={},
        beside={"left", "right"},
        processes=processes,
    )


def wide_chain(root: Path, long: Count, short: Count, processes: int = 2, others: int = 0) -> Chain:
    """Stages that may run beside each other: two, one that follows the second, `others`; and one that may not."""
    return Chain(
        stages=(
            Stage("first", "toy_stages", (), "first"),
            Stage("long", "toy_stages", ("first",), "long"),
            Stage("short", "toy_stages", ("first",), "short"),
            Stage("after_short", "toy_stages", ("short",), "short"),
            Stage("alone", "toy_stages", ("short",), "short"),
            *(
                Stage(f"other_{number}", "toy_stages", ("first",), "short")
                for number in range(others)
            ),
        ),
        root=root,
        sections={"first": Count(), "long": long, "short": short},
        outside={},
        beside={"long", "short", "after_short", *(f"other_{number}" for number in range(others))},
        processes=processes,
    )


if __name__ == "__main__":
    from offline.pipeline.progress import EventDisplay

    root = Path(sys.argv[1])
    if len(sys.argv) > 2:
        forked_chain(root, Count(pause=5), Count(pause=5)).run(0, EventDisplay())
    else:
        toy_chain(root, Count(pause=0.02), Count(pause=0.02)).run(0, EventDisplay())

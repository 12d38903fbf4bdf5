"""Two stages that write a file each, for the tests of the pipeline; run as a program, the chain of both."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline.pipeline.chain import Chain
from offline.pipeline.stage import Stage, StageContext


@dataclass(frozen=True)
class Count:
    upto: int = 20
    pause: float = 0.0


def run(inputs: Mapping[str, Path], config: Count, context: StageContext) -> dict[str, Any]:
    total = sum(int((path / "sum.txt").read_text()) for path in inputs.values())
    with (context.directory / "sum.txt").open("w") as file:
        for number in range(config.upto):
            time.sleep(config.pause)
            context.report(number + 1, config.upto, {"total": total})
            total += number * (context.seed + 1)
        file.write(str(total))
    return {"total": total}


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


if __name__ == "__main__":
    from offline.pipeline.progress import EventDisplay

    toy_chain(Path(sys.argv[1]), Count(pause=0.02), Count(pause=0.02)).run(0, EventDisplay())

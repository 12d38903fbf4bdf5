"""Counting what became of the tries of a fault."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What became of one fault's tries.

    Attributes:
        fault: in words.
        tries: how many there were.
        outcomes: what was seen, and how often; a try may show several things.
        broken: what must not have happened, once a try.
    """

    fault: str
    tries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @contextmanager
    def one_try(self) -> Iterator[None]:
        """A try; an assertion that fails in it is written down, and the next one is tried."""
        self.tries += 1
        try:
            yield
        except AssertionError as error:
            self.broken.append(f"try {self.tries}: {error}")

    def saw(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def row(self) -> str:
        seen = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"| {self.fault} | {self.tries} | {seen} | {len(self.broken)} |"

"""What a run or an edit shows: bars with rate and time left on a terminal, JSON log events otherwise."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from offline.pipeline.stage import Report
from services.platform.logs import configure_logs

EVENT_EVERY_SECONDS = 5.0


class ProgressDisplay(Protocol):
    """Told what the pipeline does."""

    def reused(self, stage: str, key: str) -> None: ...

    def working(self) -> AbstractContextManager[Callable[[str], Report]]:
        """While stages run: what begins the one of that name, and gives what it calls as its work goes on."""
        ...

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None: ...


def command_console(*, stderr: bool = False) -> Console:
    """Standard output or error; progress goes there on a terminal, else as JSON events to standard error."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    configure_logs("retrikt", "warning" if terminal else "info")
    return Console(width=None if terminal else 140, stderr=stderr)


def choose_display(console: Console) -> ProgressDisplay:
    return TerminalDisplay(console) if console.is_terminal else EventDisplay()


@contextmanager
def step(display: ProgressDisplay, name: str) -> Iterator[Report]:
    """A step of a command that is no run, shown as a stage of one is; gives what is called as its work goes on."""
    started = time.perf_counter()
    with display.working() as begin:
        yield begin(name)
    display.finished(name, round(time.perf_counter() - started, 3), {})


class NoDisplay:
    """Shows nothing."""

    def reused(self, stage: str, key: str) -> None:
        pass

    def working(self) -> AbstractContextManager[Callable[[str], Report]]:
        return nullcontext(lambda _: lambda *_: None)

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
        pass


NO_DISPLAY = NoDisplay()


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.1f}/s", style="progress.data.speed")


class TerminalDisplay:
    """A bar a stage, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def reused(self, stage: str, key: str) -> None:
        self._console.print(f"[green]✓[/] {stage:<13}[dim]unchanged ({key})[/]")

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
        if self._progress is not None and stage in self._bars:
            self._progress.remove_task(self._bars.pop(stage))
        shown = "  ".join(f"{name} {value}" for name, value in _scalars(metrics))
        self._console.print(f"[green]✓[/] {stage:<13}{seconds:7.1f} s  [dim]{shown}[/]")

    @contextmanager
    def working(self) -> Iterator[Callable[[str], Report]]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<13}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[figures]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            self._progress = progress
            try:
                yield self._begin
            finally:
                self._progress = None
                self._bars.clear()

    def _begin(self, stage: str) -> Report:
        progress = self._progress
        assert progress is not None
        bar = self._bars[stage] = progress.add_task(stage, total=None, figures="")

        def report(done: int, total: int, figures: Mapping[str, float]) -> None:
            shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
            progress.update(bar, completed=done, total=total, figures=shown)

        return report


class EventDisplay:
    """Log events, one every few seconds while a stage works."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("retrikt.run")

    def reused(self, stage: str, key: str) -> None:
        self._log.info("stage_unchanged", stage=stage, key=key)

    def finished(self, stage: str, seconds: float, metrics: Mapping[str, Any]) -> None:
        self._log.info("stage_finished", stage=stage, seconds=seconds, **dict(_scalars(metrics)))

    @contextmanager
    def working(self) -> Iterator[Callable[[str], Report]]:
        yield self._begin

    def _begin(self, name: str) -> Report:
        self._log.info("stage_started", stage=name)
        told = time.monotonic()

        def report(done: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal told
            if time.monotonic() - told >= EVENT_EVERY_SECONDS:
                told = time.monotonic()
                # A figure may have one of these names.
                fields = {**figures, "stage": name, "done": done, "total": total}
                self._log.info("stage_progress", **fields)

        return report


def _scalars(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, round(value, 4) if isinstance(value, float) else value)
        for name, value in metrics.items()
        if isinstance(value, int | float | str)
    ]

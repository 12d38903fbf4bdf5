"""One task's runs: the chain of stages for a seed, the release that comes of it, the report over seeds."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
from rich.console import Console

from offline.configs.loading import Origin
from offline.configs.run import RunConfig, load_run_config
from offline.knowledge.in_force import held_out_rows, with_edits
from offline.pipeline.chain import Chain, Step, run_lock, stages_upto
from offline.pipeline.engines import engine_of
from offline.pipeline.inputs import check_inputs
from offline.pipeline.outside import outside_hashes
from offline.pipeline.progress import choose_display
from offline.pipeline.release_stages import STAGES, beside
from offline.pipeline.stage import Stage
from offline.report.evaluation import OURS
from offline.report.page import write_page
from offline.report.summary import FinishedRun, summarise
from offline.report.table import markdown, print_systems
from offline.stages.index import CANDIDATE
from offline.store.publish import Published, publish
from offline.store.version_size import version_bytes
from offline.tasks.prepared import Examples, PreparedTask
from services.platform.durable_files import replacing
from services.platform.errors import InvalidConfig, InvalidInput, NotFound

log = structlog.get_logger(__name__)

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"


class TaskRun:
    """Runs of one configuration, read from `origin`, in one task directory."""

    def __init__(
        self, config: RunConfig, output: Path, console: Console, origin: Origin | None = None
    ) -> None:
        self.config = config
        self.directory = output / config.task.name
        self._origin = origin
        self._console = console
        self._display = choose_display(console)

    def plan(self, seed: int | None = None, upto: str | None = None) -> Iterator[Step]:
        """What `run` would do, and why; nothing is run or written.

        Raises:
            InvalidData, InvalidConfig, ModelNotFound: see `check_inputs`.
        """
        self._check_inputs(upto)
        return self._chain(upto).plan(self._seed(seed))

    def run(self, seed: int | None = None, upto: str | None = None) -> Published | None:
        """Run what is not up to date, publish the release, write the report.

        Returns:
            What became of the release; None where `upto` ended the run before one was made.

        Raises:
            InvalidData, InvalidConfig, ModelNotFound: see `check_inputs`; no stage has begun.
            AlreadyRunning: another run works in this task's directory.
            RetriktError: whatever a stage raises; finished stages are kept.
        """
        number = self._seed(seed)
        self._check_inputs(upto)
        with run_lock(self.directory):
            finished = self.finish(number, upto)
            if upto is not None:
                return None
            started = time.perf_counter()
            metrics = finished.read("evaluate", "metrics.json")["systems"][OURS]
            made = finished.path("index", CANDIDATE)
            with with_edits(made, self.directory) as candidate:
                held_out = PreparedTask.load(finished.path("prepare")).examples("validation")
                if candidate != made:
                    held_out = held_out_rows(candidate, self.directory)
                published = publish(
                    candidate,
                    metrics,
                    held_out,
                    self.directory,
                    self.config.store,
                    self.config.release,
                )
            seconds = time.perf_counter() - started
            self._display.finished("release", round(seconds, 3), published.figures())
            for reason in published.reasons:
                self._console.print(f"[yellow]not activated[/]: {reason}", highlight=False)
            others = [run for seed in self._reported_seeds() if (run := self._finished(seed))]
            self._report({**{run.seed: run for run in others}, number: finished}, seconds)
        return published

    def evaluate(self, seeds: Sequence[int]) -> None:
        """Run the chain up to the evaluation for each seed, and write the report over all of them."""
        self._check_inputs(None)
        with run_lock(self.directory):
            runs: dict[int, FinishedRun] = {}
            for seed in seeds:
                self._console.rule(f"seed {seed}")
                runs[seed] = self.finish(seed, None)
            self._report(runs, None)

    def held_out(self, seed: int) -> Examples:
        """The task's validation rows, where they have been prepared; else none."""
        try:
            chain = self._chain("prepare")
            done = chain.finished(seed)
            if done is None:
                return Examples([], None, [])
            prepared = FinishedRun(seed, chain.root, done).path("prepare")
            return PreparedTask.load(prepared).examples("validation")
        except (InvalidInput, NotFound) as error:
            # The data may have gone since: what there is to serve does not hang on it.
            log.info("held_out_rows_not_there", reason=str(error))
            return Examples([], None, [])

    def _check_inputs(self, upto: str | None) -> None:
        """What stages far down the chain would miss: told in seconds, before the first one runs."""
        check_inputs(self.config, {stage.name for stage in self._stages(upto)}, self._origin)

    def finish(self, seed: int, upto: str | None) -> FinishedRun:
        """Run what is not up to date, and release nothing; who calls it holds the lock of the directory."""
        chain = replace(self._chain(upto), engine=engine_of(self.config.engine))
        return FinishedRun(seed, chain.root, chain.run(seed, self._display))

    def _report(self, by_seed: Mapping[int, FinishedRun], release_seconds: float | None) -> None:
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        # The size that is told is that of the first seed's store version, without edits.
        candidate = runs[0].path("index", CANDIDATE)
        store_bytes = version_bytes(candidate, self.config.store)
        report = summarise(self.config.task.name, runs, store_bytes, release_seconds)
        # Read by the next run for its seeds: half of it would take them out of the report.
        with replacing(self.directory / REPORT_JSON) as file:
            file.write((json.dumps(report, indent=1) + "\n").encode())
        (self.directory / REPORT_MARKDOWN).write_text(markdown(report), encoding="utf-8")
        write_page(self.directory / REPORT_HTML, report, runs[0])
        print_systems(self._console, report)
        self._console.print(f"report: {self.directory / REPORT_HTML}", highlight=False)

    def _finished(self, seed: int) -> FinishedRun | None:
        """The seed's run, where every stage of it is up to date."""
        chain = self._chain(None)
        done = chain.finished(seed)
        return None if done is None else FinishedRun(seed, chain.root, done)

    def _reported_seeds(self) -> list[int]:
        """Seeds of the report that is there: a run of one seed does not take the others out of it."""
        try:
            found = json.loads((self.directory / REPORT_JSON).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return list(found.get("seeds", []))

    def _chain(self, upto: str | None) -> Chain:
        sections = {stage.section: getattr(self.config, stage.section) for stage in STAGES}
        return Chain(
            stages=self._stages(upto),
            root=self.directory / "stages",
            sections=sections,
            outside=outside_hashes(self.config, STAGES),
            beside=beside(self.config),
            processes=self.config.processes,
        )

    def _stages(self, upto: str | None) -> Sequence[Stage]:
        if upto is None:
            return STAGES
        names = [stage.name for stage in STAGES]
        if upto not in names:
            raise InvalidConfig(
                f"There is no stage {upto!r}.", hint=f"The stages are {', '.join(names)}."
            )
        return stages_upto(STAGES, upto)

    def _seed(self, seed: int | None) -> int:
        return self.config.seed if seed is None else seed


def load(name: str, overrides: Sequence[str]) -> RunConfig:
    """The configuration of that path or ready name; see `load_run_config`."""
    return load_run_config(name, overrides)

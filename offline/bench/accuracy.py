"""`retrikt bench accuracy`: every system in every cell, one row each, then the tables and the picture."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog
from rich.console import Console

from offline.bench.answering import Answering
from offline.bench.cells import Cell, Regime
from offline.bench.choices import CHOICES, RIGHT, Compared, right_choices
from offline.bench.finished_cell import FinishedCell
from offline.bench.lines import group_of
from offline.bench.measuring import Measured, measure
from offline.bench.plan import CellPlan, plan_cell
from offline.bench.prompts import STAGE as PROMPTS_STAGE
from offline.bench.prompts import PromptResults, PromptRow
from offline.bench.results import Results, Row
from offline.bench.revision import git_revision
from offline.bench.systems import STATIC_STAGE, SYSTEMS, System, static_is_installed
from offline.bench.tables import write_tables
from offline.bench.variants import BASE, Variant, variant_of
from offline.pipeline.chain import run_lock
from offline.pipeline.manifest import StageManifest
from offline.pipeline.progress import ProgressDisplay, choose_display
from offline.report.evaluation import OURS
from offline.report.summary import FinishedRun
from offline.teacher.comparison import COMPARISON
from offline.teacher.precision import settled
from services.platform.errors import InvalidConfig, InvalidData

log = structlog.get_logger(__name__)

_STATIC_SEED = 0
_ANOTHER = (
    "Name another --out; or measure with the code, --data and --set that they are of;"
    " or let go of them: --replace."
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be measured.

    Attributes:
        data: the folder that holds a folder a task; None for the built-in task alone.
        tasks, regime, shots, seeds: the cells; `shots` None for all labelled rows.
        variants: ablations, beside the systems themselves.
        systems: names of the systems; None for all.
        overrides: `section.key=value`, over the benchmark's configuration.
        quick: tiny settings, for trying that everything runs.
        replace: whether finished rows of other code, settings or data may go.
    """

    data: Path | None
    tasks: Sequence[str]
    regime: Regime
    shots: int | None
    seeds: Sequence[int]
    variants: Sequence[Variant] = ()
    systems: Sequence[str] | None = None
    overrides: Sequence[str] = ()
    quick: bool = False
    replace: bool = False

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(task, self.regime, self.shots, seed) for task in self.tasks for seed in self.seeds
        ]

    def plan(self, cell: Cell, variant: Variant, stages: Path) -> CellPlan:
        return plan_cell(
            cell,
            self.data,
            stages,
            variant=variant,
            quick=self.quick,
            overrides=self.overrides,
        )


def run_accuracy(request: Request, out: Path, stages: Path, console: Console) -> None:
    """Measure what is not measured yet, and write `table.md` and `pareto.svg` over all rows of `out`.

    Args:
        request: cells, systems and settings.
        out: gets `results.json`, `outcomes/`, `prompts.json`, `table.md` and `pareto.svg`.
        stages: where the stages of all runs are kept.
        console: is told what happens.

    Raises:
        AlreadyRunning: another benchmark works in one of the directories.
        InvalidConfig, InvalidData: the request or the data are wrong, or `out` holds finished rows of other code,
            settings or data that would go; nothing is run.
        RetriktError: whatever a stage raises; finished rows and stages are kept.
    """
    wanted = _wanted(request.systems)
    with run_lock(out, held_by="benchmark"), run_lock(stages, held_by="benchmark"):
        results = Results.open(out, quick=request.quick)
        prompts = PromptResults.open(out)
        plans = [
            request.plan(cell, variant, stages)
            for cell in request.cells
            for variant in (BASE, *request.variants)
        ]
        asked = [
            (plan, [one for one in plan.systems if plan.variant != BASE or one.name in wanted])
            for plan in plans
        ]
        if not request.replace:
            _refuse_to_replace(asked, results, prompts, current_rows(request, results, stages))
        display = choose_display(console)
        for plan, systems in asked:
            _measure(plan, systems, results, prompts, console, display)
        write_tables(
            out,
            results,
            current_rows(request, results, stages),
            current_prompts(request, prompts, stages),
        )
    console.print(f"table: {out / 'table.md'}", highlight=False)


def _refuse_to_replace(
    asked: Sequence[tuple[CellPlan, Sequence[System]]],
    results: Results,
    prompts: PromptResults,
    current: Collection[tuple[Cell, str]],
) -> None:
    """Rows took minutes each: none is replaced, and no task loses its tables, unless that is asked for."""
    replaced = sum(
        results.is_of_another(plan.cell, system.name, plan.recipe(system))
        for plan, systems in asked
        for system in systems
    )
    compared = sum(
        prompts.is_of_another(plan.cell, plan.prompts_recipe)
        for plan, systems in asked
        if plan.compares(systems)
    )
    told = [(group_of(row), (row.cell, row.system) in current) for row in results]
    lost = {group for group, _ in told} - {group for group, counts in told if counts}
    if replaced or compared:
        what = [f"{replaced} finished rows"] * bool(replaced)
        what += [f"the prompts of {compared} cells"] * bool(compared)
        raise InvalidConfig(
            f"In {results.directory}, {' and '.join(what)} are of other code, settings or data, and would be measured"
            " anew in their place.",
            hint=_ANOTHER,
        )
    if lost:
        tasks = ", ".join(sorted({task for _, task, _ in lost}))
        raise InvalidConfig(
            f"The rows of {tasks} in {results.directory} are of other code, settings or data, or their data are not"
            " here: the table would be written without them.",
            hint=_ANOTHER,
        )


def _wanted(named: Sequence[str] | None) -> set[str]:
    known = [system.name for system in SYSTEMS]
    unknown = [name for name in named or () if name not in known]
    if unknown:
        raise InvalidConfig(
            f"There is no system {unknown[0]!r}.", hint=f"Expected some of {', '.join(known)}."
        )
    wanted = set(named or known)
    without = {system.name for system in SYSTEMS if system.static} & wanted
    if without and not static_is_installed():
        log.warning(
            "systems_left_out", systems=sorted(without), reason="model2vec is not installed"
        )
        wanted -= without
    return wanted


def _measure(
    plan: CellPlan,
    systems: Sequence[System],
    results: Results,
    prompts: PromptResults,
    console: Console,
    display: ProgressDisplay,
) -> None:
    left = [
        system
        for system in systems
        if not results.finished(plan.cell, system.name, plan.recipe(system))
    ]
    compare = plan.compares(systems) and not prompts.finished(plan.cell, plan.prompts_recipe)
    name = f"{plan.cell.name} {plan.variant.name}".strip()
    if not left and not compare:
        console.print(f"{name}: nothing to do", style="dim", highlight=False)
        return
    console.rule(name)
    static = _static(plan, left, display)
    with _finished(plan, left, compare, static, display) as finished:
        if compare:
            prompts.add(
                plan.cell,
                finished.path(PROMPTS_STAGE, COMPARISON),
                recipe=plan.prompts_recipe,
                content=finished.contents([PROMPTS_STAGE])[PROMPTS_STAGE],
                git_revision=git_revision(),
            )
        test = finished.task.test_examples()
        gold = finished.task.label_ids(test)
        right, size = finished.task.labels.index(RIGHT) if plan.choices else 0, 1
        if plan.choices:
            gold, size = right_choices(gold == right), len(CHOICES)
        for system in left:
            opened = system.open(finished)
            answering = Compared(opened, right) if plan.choices else opened
            measured = measure(answering, test, gold, texts_an_answer=size)
            content = finished.contents(plan.stages(system))
            if system.static and static is not None:
                content[STATIC_STAGE] = static.content
            row = _row(plan, system, answering, measured, content)
            results.add(row, measured.right)
            console.print(f"{system.name:<24} {row.accuracy:.3f}", highlight=False)


def _static(
    plan: CellPlan, systems: Sequence[System], display: ProgressDisplay
) -> StageManifest | None:
    """The static embeddings' finished stage; None where no system needs them."""
    if not any(system.static for system in systems):
        return None
    return plan.static.run(_STATIC_SEED, display)[STATIC_STAGE]


def _finished(
    plan: CellPlan,
    systems: Sequence[System],
    compare: bool,
    static: StageManifest | None,
    display: ProgressDisplay,
) -> FinishedCell:
    """Run the stages that have not run of those that these systems, and a comparison of prompts, need."""
    chain = plan.only(systems, compare=compare)
    run = FinishedRun(plan.cell.seed, chain.root, chain.run(plan.cell.seed, display))
    at = None if static is None else plan.static.directory(static)
    return FinishedCell(plan.config, run, static=at, candidate_stage=plan.candidate_stage)


def _row(
    plan: CellPlan,
    system: System,
    answering: Answering,
    measured: Measured,
    content: dict[str, str],
) -> Row:
    frozen = plan.config.generator
    return Row(
        task=plan.cell.task,
        regime=plan.cell.regime,
        shots=plan.cell.shots_told,
        seed=plan.cell.seed,
        system=system.name,
        **measured.figures,
        parameters=answering.parameters,
        model_bytes=answering.model_bytes,
        store_bytes=answering.store_bytes,
        latency_ms=measured.latency_ms,
        test_rows=len(measured.right),
        recipe=plan.recipe(system),
        system_hash=plan.system_hash(system),
        content=content,
        git_revision=git_revision(),
        precision=settled(frozen.precision, frozen.device),
    )


def current_rows(request: Request, results: Results, stages: Path) -> set[tuple[Cell, str]]:
    """Cell and system of the rows that follow from today's code, settings and data.

    A cell whose data are not there has none, and neither has an ablation that is not known any more: what their rows
    follow from cannot be told.
    """
    recipes: dict[tuple[Cell, str], dict[str, str]] = {}
    current = set()
    for row in results:
        _, _, ablation = row.system.partition(f"{OURS}/")
        if (key := (row.cell, ablation)) not in recipes:
            recipes[key] = _recipes(request, row.cell, ablation, stages)
        if recipes[key].get(row.system) == row.recipe:
            current.add((row.cell, row.system))
    return current


def current_prompts(request: Request, prompts: PromptResults, stages: Path) -> list[PromptRow]:
    """Those that follow from today's code, settings and data."""
    recipes: dict[Cell, str | None] = {}
    current = []
    for row in prompts:
        if row.cell not in recipes:
            plan = _plan(request, row.cell, "", stages)
            recipes[row.cell] = None if plan is None else plan.prompts_recipe
        if recipes[row.cell] == row.recipe:
            current.append(row)
    return current


def _plan(request: Request, cell: Cell, ablation: str, stages: Path) -> CellPlan | None:
    """Today's; None where the data are not there, or there is no such ablation any more."""
    try:
        return request.plan(cell, variant_of(ablation) if ablation else BASE, stages)
    except (InvalidConfig, InvalidData) as error:
        _tell_left_out(str(error))
        return None


@cache
def _tell_left_out(reason: str) -> None:
    """Once: a task that is not here has many rows."""
    log.warning("rows_not_compared", reason=reason)


def _recipes(request: Request, cell: Cell, ablation: str, stages: Path) -> dict[str, str]:
    """Today's, by system."""
    plan = _plan(request, cell, ablation, stages)
    return {} if plan is None else {system.name: plan.recipe(system) for system in plan.systems}

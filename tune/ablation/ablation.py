"""``nfbmr ablate``, top to bottom: a plan -> its cells, each run once -> the table, its pictures, the record.

Every cell is a run like any other: it makes its choices on validation data, and scores its test set once.
Nothing is chosen among rows.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from nfbmr.data.contents import held
from nfbmr.errors import ConfigError, Interrupted
from nfbmr.evaluation.intervals import UNDEFINED
from nfbmr.paths import RunPaths, write_text
from nfbmr.stopping import StopRequest
from nfbmr.text import count
from nfbmr.tracking import Status
from tune.ablation import comparison
from tune.ablation.benchmark_runs import measure_costs
from tune.ablation.cell import Cell
from tune.ablation.embeddings import draw_spaces
from tune.ablation.plan import AblationPlan
from tune.ablation.results_table import gather, summarise
from tune.execution.execute import execute
from tune.execution.progress import Progress, ProgressState
from tune.execution.resources import Resources, execution_of, on_cluster
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.ablation_summary import TableSummary
from tune.records.driver import driver_lock
from tune.records.parent import ParentRecord
from tune.records.paths import AblationPaths, find
from tune.tables.figures import draw
from tune.tables.frame import csv_text, results_of, write_results
from tune.tables.table import latex, markdown

log = logging.getLogger(__name__)


def ablate(plan: AblationPlan, resources: Resources, *, address: str | None = None) -> TableSummary:
    """Run the cells that have no result yet, and make the table of all.

    Args:
        plan: What was asked, checked.
        resources: What each cell gets.
        address: Address of a Ray cluster; see :func:`cluster.connection.connect`.

    Raises:
        Interrupted: A stop was asked for, or the time budget is spent. What is finished is kept, and the
            table holds it.
        NfbmrError: Nothing could be run at all.
    """
    paths, cells = plan.paths, plan.cells()
    with driver_lock(paths), StopRequest() as stop, held(), ExitStack() as cluster:
        if not all(map(finished, cells)):
            cluster.enter_context(on_cluster(resources, plan.config, address))
        plan.write()
        parent = ParentRecord(paths, plan.config)
        parent.begin(plan.asked(), plan.config)
        summary: TableSummary | None = None
        status: Status = "failed"
        try:
            summary, left = _run(plan, cells, resources, stop, parent, cluster)
            status = "killed" if left else "finished"
        except KeyboardInterrupt:
            status, left = "killed", sum(not finished(cell) for cell in cells)
        finally:
            parent.end(summary, status)
    if left or summary is None:
        raise Interrupted(
            f"{sum(map(finished, cells))} of {count(len(cells), 'cell')} are done and kept",
            where=paths.root,
            fix=f"go on with: {how_to_go_on(plan)}",
        )
    return summary


def new_ablation(plan: AblationPlan, resources: Resources, *, address: str | None = None) -> TableSummary:
    """Do an ablation in its folder; one that is there already is gone on with where it is the same.

    Args:
        plan: What is asked. Seeds and categories may differ from those of an earlier call.
        resources: What each cell gets.
        address: Address of a Ray cluster.

    Raises:
        ConfigError: There is another ablation of this name.
        Interrupted, NfbmrError: See :func:`ablate`.
    """
    if plan.paths.plan.exists():
        changed = plan.changes(AblationPlan.read(plan.paths.root))
        if changed:
            raise ConfigError(
                f"there is an ablation of this name already, and it differs in {', '.join(changed[:6])}",
                where=plan.paths.root,
                fix=f"go on with it: {how_to_go_on(plan)}; or choose another --name",
            )
    return ablate(plan, resources, address=address)


def find_ablation(name_or_path: str, output: Path) -> AblationPlan:
    """An earlier ablation; see :func:`tune.records.paths.find`."""
    return AblationPlan.read(find(name_or_path, output, AblationPaths, what="ablation").root)


def how_to_go_on(plan: AblationPlan) -> str:
    """The command that goes on with an ablation."""
    return f"nfbmr {'compare' if plan.compares else 'ablate'} --resume {shlex.quote(str(plan.paths.root))}"


def _run(
    plan: AblationPlan,
    cells: tuple[Cell, ...],
    resources: Resources,
    stop: StopRequest,
    parent: ParentRecord,
    cluster: ExitStack,
) -> tuple[TableSummary, int]:
    """Execute what is to be done, and conclude; how many cells (or measurements) were not reached."""
    ablation = Ablation(cells, plan.spec.metric, parent.outcome)
    if ablation.before:
        log.info("%d of %s have a result already", ablation.before, count(len(cells), "cell"))
    if ablation.before < len(cells):
        plan.paths.summary.unlink(missing_ok=True)  # its presence says that the ablation is whole
        with ablation.progress:
            execute(ablation, execution_of(resources), stop, stop_file=plan.paths.stop)
    left = sum(cell.task.key not in ablation.failed and not finished(cell) for cell in cells)
    if plan.compares:
        cluster.close()  # a cluster of our own would disturb the stopwatch
        left += 0 if left else measure_costs(cells, stop)
    return write_ablation(plan, cells, ablation.failed, whole=not left), left


def write_ablation(
    plan: AblationPlan, cells: Sequence[Cell], failed: Mapping[str, str], *, whole: bool
) -> TableSummary:
    """Write the tables and the pictures; the summary last, where nothing is left to be run.

    Args:
        plan: What was asked.
        cells: All of it.
        failed: Why a cell has no result, by its key.
        whole: Whether nothing is left.
    """
    summary: TableSummary
    if plan.compares:
        summary = comparison.write_comparison(plan, cells, failed)
    else:
        paths, results = plan.paths, gather(plan, cells, failed)
        write_text(paths.table("md"), markdown(results.table))
        write_text(paths.table("csv"), csv_text(results.table))
        write_text(paths.table("tex"), latex(results.table))
        settings = {row.name: row.settings for row in plan.spec.rows}
        write_results(paths.results, results_of(results.table, settings))
        pictures = draw(results.table, paths.pictures)
        if "spaces" in plan.spec.pictures:
            drawn = draw_spaces(plan, cells, paths.pictures / "spaces.png", results.table.about)
            pictures += [] if drawn is None else [drawn]
        summary = summarise(plan, results, pictures)
    if whole:
        summary.write(plan.paths.summary)
    return summary


def finished(cell: Cell) -> bool:
    """Whether a cell has its result; it is then never run again."""
    return RunPaths(cell.task.folder).summary.exists()


class Ablation:
    """Hands out cells: a :class:`tune.execution.trial_spec.TrialSource`.

    Cells that want the same flow are a family. The first of each goes first, and the others follow once its
    flow is in the store; so cells do not stand in a queue before one flow while others could be trained.

    Args:
        cells: All of them; those that are finished are left alone, those that failed before are tried again.
        metric: What people are told of a finished cell.
        on_outcome: Hears of each outcome.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        metric: str,
        on_outcome: Callable[[TrialResult], None] = lambda outcome: None,
    ) -> None:
        self.failed: dict[str, str] = {}
        every = list(cells)
        self._waiting = [cell for cell in every if not finished(cell)]
        self._cells = {cell.task.key: cell for cell in every}
        self._metric = metric
        self._on_outcome = on_outcome
        self._running: Counter[str] = Counter()  # by family: one of them trains its flow, if it lacks one
        self._flows = {cell.family for cell in every if finished(cell)}
        self.before = len(every) - len(self._waiting)
        self.progress = Progress(ProgressState(total=len(every), before=self.before), what="cell")

    def next(self) -> TrialSpec | None:
        """First of a family before all, then those whose flow is there, then those that have to wait."""
        cell = min(
            self._waiting,
            key=lambda cell: 1 if cell.family in self._flows else 2 * bool(self._running[cell.family]),
            default=None,
        )
        if cell is None:
            return None
        self._waiting.remove(cell)
        self._running[cell.family] += 1
        self.progress.started()
        return cell.task

    def report(self, key: str, step: int, metrics: Mapping[str, float]) -> bool:
        """An epoch ended; no cell is ever pruned."""
        cell = self._cells[key]
        if step >= cell.task.config.train.flow.epochs:
            self._flows.add(cell.family)
        return False

    def done(self, outcome: TrialResult) -> None:
        """A cell ended."""
        cell = self._cells[outcome.key]
        self._running[cell.family] -= 1
        if outcome.state == "finished":
            self._flows.add(cell.family)
        elif outcome.state == "failed":
            self.failed[outcome.key] = (outcome.error or "no reason is known").splitlines()[0]
        self._on_outcome(outcome)
        reached = UNDEFINED if outcome.summary is None else outcome.summary.estimate("test", self._metric)
        value = reached.value if reached.defined else None
        self.progress.ended(outcome.key, outcome.state, value, None, outcome.error)

"""What the rows of a comparison cost to use, measured one after another when all else has ended.

One finished run of each row is timed: seeds, splits and categories change what networks have learned, hardly
how long they take. Trials on the same machine would disturb the stopwatch, so it starts after the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from nfbmr.benchmark import Cost, machine_of, measure_cost, read_cost
from nfbmr.devices import limit_threads
from nfbmr.errors import NfbmrError
from nfbmr.paths import RunPaths, write_json
from nfbmr.run import open_run
from nfbmr.stopping import StopRequest
from tune.ablation.cell import Cell
from tune.ablation.scores import images_to_time
from tune.execution.run_trial import Tracking

log = logging.getLogger(__name__)

IMAGES = 32
"""That the stopwatch goes through."""


def measure_costs(cells: Iterable[Cell], stop: StopRequest) -> int:
    """Measure a run of each row that has not been measured on this machine, and record it with the run.

    A run that cannot be measured is left without; why is logged.

    Args:
        cells: Those of the comparison.
        stop: Asks to stop; between two runs it does.

    Returns:
        How many were not reached.
    """
    limit_threads()
    left = 0
    for cell in timed_cells(cells).values():
        known = read_cost(cell.task.folder)
        if known is not None and known.machine == machine_of(cell.task.config.train.device):
            continue
        if stop.requested:
            left += 1
            continue
        log.info("what %s costs: measuring %s", cell.row, cell.task.key)
        try:
            images = images_to_time(cell.task.folder, IMAGES)
            cost = measure_cost(cell.task.folder, images, device=cell.task.config.train.device)
            record(cell, cost)
        except (NfbmrError, RuntimeError, MemoryError) as error:
            log.warning("what %s costs cannot be measured: %s", cell.row, error)
    return left


def timed_cells(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The run of each row that is timed: its first that has a result."""
    timed: dict[str, Cell] = {}
    for cell in cells:
        if cell.row not in timed and RunPaths(cell.task.folder).summary.exists():
            timed[cell.row] = cell
    return timed


def forget_costs(cells: Iterable[Cell]) -> None:
    """Forget what was measured, so that it is measured again."""
    for cell in timed_cells(cells).values():
        RunPaths(cell.task.folder).cost.unlink(missing_ok=True)


def costs_of(cells: Sequence[Cell]) -> Mapping[str, Cost]:
    """What was measured, by row."""
    measured = {row: read_cost(cell.task.folder) for row, cell in timed_cells(cells).items()}
    return {row: cost for row, cost in measured.items() if cost is not None}


def record(cell: Cell, cost: Cost) -> None:
    """Write a cost into its run's folder, and tell the run's tracker."""
    paths = RunPaths(cell.task.folder)
    write_json(paths.cost, cost.as_json())
    tracker = Tracking(cell.task)(open_run(cell.task.folder))
    try:
        tracker.metrics(cost.numbers())
        tracker.artifact(paths.cost)
    finally:
        tracker.finish("finished")

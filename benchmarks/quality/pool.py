"""Worker processes, one a core: each computes units and writes their rows itself."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from statistics import mean
from typing import Any

from benchmarks.quality.cells import Folder, Unit, failure
from benchmarks.quality.rows import Row, Rows
from nfbmr.errors import Interrupted, NfbmrError
from nfbmr.locks import always, file_lock
from nfbmr.stopping import StopRequest

PATIENCE = 120.0
"""Seconds that workers have to stop, once they were asked to."""
OnRows = Callable[[Unit, Sequence[Row]], None]


@dataclass(eq=False)
class Worker:
    """A process and the unit it is at."""

    process: BaseProcess
    connection: Connection
    unit: Unit | None = None


@dataclass
class Estimate:
    """Seconds that units take, from those done: of the same networks, else of the same method, else all."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, row: Row) -> None:
        """Take a finished or failed row into account."""
        if row.get("unit_seconds") is not None:
            for name in (row.get("networks"), row.get("method"), "all"):
                if name is not None:
                    self.seconds.setdefault(str(name), []).append(float(row["unit_seconds"]))

    def of(self, unit: Unit) -> float | None:
        """What a unit is expected to take; None before anything is known."""
        method = str(unit.first.networks.get("method", "nf-bmr"))
        for name in (unit.kind, method, "all"):
            if name in self.seconds:
                return mean(self.seconds[name])
        return None

    def left(self, units: Sequence[Unit], jobs: int) -> float | None:
        """Seconds that all of these take, so many at a time."""
        each = [self.of(unit) for unit in units]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) / jobs if known or not units else None


def run_units(units: Sequence[Unit], folder: Folder, *, jobs: int, resamples: int, on_rows: OnRows) -> bool:
    """Compute units, so many at a time.

    Args:
        units: In the order they are to be begun.
        folder: Of the study.
        jobs: Processes.
        resamples: Of the bootstrap.
        on_rows: Told of each unit's rows, which are in the file by then; none where another study is at it.

    Returns:
        Whether all were done: False after Ctrl-C or SIGTERM, of which the second ends workers at once.
    """
    waiting, workers = list(units), [_start(folder, jobs, resamples) for _ in range(min(jobs, len(units)))]
    asked: float | None = None
    try:
        with StopRequest() as stop:
            while True:
                if stop.requested and asked is None:
                    asked = time.monotonic()
                    _stop(workers)
                if not stop.requested:
                    _hand_out(waiting, workers)
                if not any(worker.unit for worker in workers):
                    return not waiting and not stop.requested
                if asked is not None and time.monotonic() - asked > PATIENCE:
                    return False
                busy = [worker for worker in workers if worker.unit]
                for connection in wait([worker.connection for worker in busy], timeout=0.5):
                    worker = next(w for w in busy if w.connection is connection)
                    if not _receive(worker, folder, on_rows, stopping=stop.requested):
                        workers.remove(worker)
                        if waiting and not stop.requested:
                            workers.append(_start(folder, jobs, resamples))
    except KeyboardInterrupt:
        return False
    finally:
        for worker in workers:
            worker.connection.close()
            worker.process.join(timeout=1)
            if worker.process.is_alive():
                worker.process.kill()


def _hand_out(waiting: list[Unit], workers: Sequence[Worker]) -> None:
    """Give idle workers units, rather such as do not wait for what another one is computing."""
    for worker in workers:
        if worker.unit is None and waiting:
            taken = frozenset[str]().union(*(w.unit.shares for w in workers if w.unit))
            unit = next((unit for unit in waiting if not unit.shares & taken), waiting[0])
            waiting.remove(unit)
            worker.unit = unit
            worker.connection.send(unit)


def _receive(worker: Worker, folder: Folder, on_rows: OnRows, *, stopping: bool) -> bool:
    """Take what a worker has to say; False where its process is gone."""
    unit = worker.unit
    assert unit is not None  # only busy workers are listened to
    worker.unit = None
    try:
        answer: list[Row] | None = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(timeout=5)
        if not stopping:
            reason = f"its process ended with {worker.process.exitcode} (-9: killed, as a rule for memory)"
            rows = [failure(cell, reason) for cell in unit.cells]
            Rows(folder.rows).append(rows)
            on_rows(unit, rows)
        return False
    if answer is not None:
        on_rows(unit, answer)
    return True


def _stop(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if worker.process.pid is not None and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)


def _start(folder: Folder, jobs: int, resamples: int) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(threads)  # read by the child as it begins
    try:
        process = context.Process(target=_work, args=(theirs, folder, resamples), name="quality")
        process.start()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
    theirs.close()
    return Worker(process, ours)


class _TakenError(NfbmrError):
    """Another study in the same folder is at this unit."""

    def __init__(self) -> None:
        super().__init__("another study in the same folder is at it")


def _work(connection: Any, folder: Folder, resamples: int) -> None:
    """What a worker does: units in, rows into the file and out."""
    from benchmarks.quality.cells import compute

    os.setpgrp()  # a Ctrl-C in the terminal is the parent's, which asks once
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    while True:
        try:
            unit: Unit = connection.recv()
        except (EOFError, OSError):
            return
        rows: list[Row] = []
        try:
            with file_lock(folder.work(unit).with_suffix(".lock"), held=_TakenError, give_up=always):
                rows = compute(unit, folder, resamples)
                Rows(folder.rows).append(rows)
        except _TakenError:
            pass
        except (Interrupted, KeyboardInterrupt):
            return
        connection.send(rows)

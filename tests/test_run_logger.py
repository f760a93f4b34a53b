"""A run's record has each number once, however often the run was stopped and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nfbmr.errors import Interrupted
from nfbmr.records import Record, read_record
from nfbmr.run import Run, execute_run, journal_only, new_run, open_run
from nfbmr.stopping import StopRequest


def _steps(record: Record, name: str) -> list[int]:
    return [point.step for point in record.metrics[name]]


def _go_on(run: Run) -> Record:
    execute_run(open_run(run.paths.root), journal_only, StopRequest())
    return read_record(run.paths.journal)


@pytest.mark.parametrize("stage", ["flow", "mapping"])
def test_a_run_that_is_stopped_and_gone_on_with_has_each_epoch_once(
    stage: str, tiny: Callable[..., Any]
) -> None:
    run, stop = new_run(tiny()), StopRequest()

    def on_epoch(name: str, epoch: int, _: Mapping[str, float]) -> None:
        if (name, epoch) == (stage, 1):
            stop.ask()

    with pytest.raises(Interrupted):
        execute_run(run, journal_only, stop, on_epoch=on_epoch)
    record = _go_on(run)
    assert _steps(record, "flow/loss") == _steps(record, "flow/validation_auroc") == [1, 2, 3]
    assert _steps(record, "mapping/loss") == [1, 2]


def test_epochs_that_are_trained_again_are_recorded_once(tiny: Callable[..., Any]) -> None:
    """As after a crash: the checkpoint is older than the record."""
    run = new_run(tiny())

    def crash(name: str, epoch: int, _: Mapping[str, float]) -> None:
        if (name, epoch) == ("flow", 2):
            raise MemoryError

    with pytest.raises(MemoryError):
        execute_run(run, journal_only, StopRequest(), on_epoch=crash)
    assert _steps(read_record(run.paths.journal), "flow/loss") == [1, 2]
    record = _go_on(run)
    assert _steps(record, "flow/loss") == [1, 2, 3]


def test_results_that_stay_are_recorded_once(tiny: Callable[..., Any]) -> None:
    """A trial of a sweep ends before its test set is read, and is gone on with if it is chosen."""
    run = new_run(tiny())
    execute_run(run, journal_only, StopRequest(), test=False)
    record = _go_on(run)
    assert len(record.metrics["validation/image_auroc"]) == len(record.metrics["test/image_auroc"]) == 1

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


def _go_on(run: Run, *, test: bool) -> Record:
    execute_run(open_run(run.paths.root), journal_only, StopRequest(), test=test)
    return read_record(run.paths.journal)


def test_a_run_that_is_stopped_and_gone_on_with_has_each_epoch_once(tiny: Callable[..., Any]) -> None:
    """Its flow is in the store by then, and all of its epochs are told again."""
    run, stop = new_run(tiny()), StopRequest()

    def on_epoch(stage: str, epoch: int, _: Mapping[str, float]) -> None:
        if (stage, epoch) == ("mapping", 1):
            stop.ask()

    with pytest.raises(Interrupted):
        execute_run(run, journal_only, stop, test=False, on_epoch=on_epoch)
    record = _go_on(run, test=False)
    assert _steps(record, "flow/loss") == _steps(record, "flow/validation_auroc") == [1, 2, 3]
    assert _steps(record, "mapping/loss") == [1, 2]


@pytest.fixture
def crashed(tiny: Callable[..., Any]) -> Run:
    """A run that died in its flow's second epoch, which is recorded: the checkpoint is older."""
    run = new_run(tiny())

    def crash(name: str, epoch: int, _: Mapping[str, float]) -> None:
        if (name, epoch) == ("flow", 2):
            raise MemoryError

    with pytest.raises(MemoryError):
        execute_run(run, journal_only, StopRequest(), test=False, on_epoch=crash)
    assert _steps(read_record(run.paths.journal), "flow/loss") == [1, 2]
    return run


def test_epochs_that_are_trained_again_are_recorded_once(crashed: Run) -> None:
    assert _steps(_go_on(crashed, test=False), "flow/loss") == [1, 2, 3]


def test_an_epoch_that_gives_other_numbers_is_recorded_again(crashed: Run) -> None:
    text = crashed.paths.config.read_text()
    rate = next(line for line in text.splitlines() if line.strip().startswith("lr:"))
    crashed.paths.config.write_text(text.replace(rate, f"{rate[: rate.index(':')]}: 0.0123"))
    points = _go_on(crashed, test=False).metrics["flow/loss"]
    assert len({point.value for point in points if point.step == 2}) == 2


def test_results_that_stay_are_recorded_once(tiny: Callable[..., Any]) -> None:
    """A trial of a sweep ends before its test set is read, and is gone on with if it is chosen."""
    run = new_run(tiny())
    execute_run(run, journal_only, StopRequest(), test=False)
    record = _go_on(run, test=True)
    assert len(record.metrics["validation/image_auroc"]) == len(record.metrics["test/image_auroc"]) == 1

"""One task in one process."""

from __future__ import annotations

import fcntl
import threading

import pytest

from nfbmr.errors import DivergenceError, Interrupted, Pruned
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.run import new_run
from nfbmr.stopping import StopRequest
from tests.summaries import run_summary
from tune.execution.run_trial import run_task
from tune.execution.stop_condition import StopCondition, stop_when
from tune.execution.trial_spec import TrialSpec


@pytest.fixture
def task(tiny, tmp_path):
    """A task in a folder of its own."""
    return TrialSpec("0007", tiny(), tmp_path / "trials" / "0007", "sweep-0007", "trial 7", "sweep")


def never(step, metrics):
    return False


def carrying_out(what):
    """A run that does nothing but `what`: the part under test is around it."""

    def execute_run(run, tracking, stop, *, test, on_epoch):
        tracker = tracking(run)
        try:
            return what(on_epoch, stop)
        finally:
            tracker.finish("failed")

    return execute_run


def do(task, what, report=never):
    return run_task(task, report=report, stop=StopRequest(), execute_run=carrying_out(what))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Pruned("worse"), "pruned"),
        (Interrupted("stopped"), "interrupted"),
        (DivergenceError("the loss ran away", where="epoch 3"), "failed"),
        (MemoryError("too large"), "failed"),
        (KeyError("a bug"), "failed"),
    ],
)
def test_every_error_of_a_trial_is_an_outcome(task, error, state):
    def fail(on_epoch, stop):
        raise error

    outcome = do(task, fail)
    assert outcome.state == state
    if state == "failed":
        assert str(error.args[0]) in outcome.error


def test_epochs_of_both_stages_are_numbered_in_one_row(task):
    steps = []

    def epochs(on_epoch, stop):
        for stage, epoch in (("flow", 1), ("flow", 3), ("mapping", 1), ("mapping", 2)):
            on_epoch(stage, epoch, {"loss": 1.0})
        return {}

    do(task, epochs, lambda step, metrics: steps.append(step))
    assert steps == [1, 3, 4, 5]
    assert task.epochs == 5


def test_verdict_ends_the_trial(task):
    def epochs(on_epoch, stop):
        for epoch in (1, 2, 3):
            on_epoch("flow", epoch, {})
        return {}

    assert do(task, epochs, lambda step, metrics: step == 2).state == "pruned"


def test_folder_of_another_run_is_left_alone(task):
    new_run(task.config, run_id="somebody", folder=task.folder)
    outcome = do(task, lambda on_epoch, stop: {})
    assert outcome.state == "failed"
    assert "somebody" in outcome.error


def test_record_is_completed_where_the_run_was_killed_after_its_result(task):
    """Between the result and the end of the record, kill -9 may come."""
    do(task, lambda on_epoch, stop: run_summary())
    paths = RunPaths(task.folder)
    assert read_record(paths.journal).status == "failed"
    summary = run_summary(0.75)
    paths.model.mkdir()
    summary.write(paths.fitted)
    outcome = run_task(task, report=never, stop=StopRequest())
    assert outcome.state == "finished"
    assert outcome.summary == summary
    record = read_record(paths.journal)
    assert record.status == "finished"
    assert record.metrics["validation/image_auroc"][-1].value == 0.75


def test_second_attempt_waits_until_the_first_has_ended(task):
    """A node that was only thought dead may still be writing."""
    task.folder.mkdir(parents=True)
    with RunPaths(task.folder).lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = threading.Event()

        def end() -> None:
            ended.set()
            fcntl.flock(held, fcntl.LOCK_UN)

        threading.Timer(0.5, end).start()
        outcome = do(task, lambda on_epoch, stop: run_summary(notes=["ended" if ended.is_set() else "still"]))
        assert outcome.state == "finished"
        assert outcome.summary.notes == ("ended",)


def test_stop_ends_the_waiting(task):
    task.folder.mkdir(parents=True)
    stop = StopRequest()
    stop.ask()
    with RunPaths(task.folder).lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_task(task, report=never, stop=stop).state == "interrupted"


def test_task_survives_the_way_to_another_machine(task):
    assert TrialSpec.from_json(task.as_json()) == task


def test_end_comes_by_request_by_the_clock_or_by_file_and_stays(tmp_path):
    file = tmp_path / "sweep" / "stop"
    file.parent.mkdir()
    file.touch()
    stop = StopRequest()
    ending = StopCondition(stop, file)
    assert not ending.come, "a file that is left from before means nothing"
    assert not file.exists()
    stop.ask()
    assert ending.come
    assert file.exists()
    assert StopCondition(StopRequest(), file, time_budget=0).come
    by_hand = StopCondition(StopRequest(), file)
    file.touch()
    assert by_hand.come
    file.unlink()
    assert by_hand.come


def test_stop_request_follows_a_condition(tmp_path):
    with stop_when((tmp_path / "stop").exists) as stop:
        assert not stop.requested
        (tmp_path / "stop").touch()
        threading.Event().wait(1.2)
        assert stop.requested

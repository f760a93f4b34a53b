"""Points that are suggested again: avoided where there are others, and never run twice."""

from __future__ import annotations

from functools import partial

import pytest
from optuna.samplers import BaseSampler, RandomSampler

from nfbmr.config import Config
from nfbmr.paths import RunPaths
from nfbmr.tracking import FolderTracker
from tests.tune.search.test_study import cost_of, quality, report_all, summary_of
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.children import record_copy
from tune.records.paths import SweepPaths
from tune.search.choice import choose
from tune.search.importance import Readiness
from tune.search.new_points import AGAIN, NewPointSampler
from tune.search.plan import SAMPLERS, SweepPlan
from tune.search.repeats import Repeats
from tune.search.report import grid_of, summarise
from tune.search.samplers import STARTUP, sampler_of
from tune.search.space import Space
from tune.search.study import GRACE, Study
from tune.search.trial_facts import COPY_OF, is_copy

SMALL = """
flow.blocks: {choice: [2, 4, 6]}
flow.hidden: {choice: [32, 64]}
method: {choice: [nf, nf-bmr]}
mapping.latent: {choice: [64, 128], when: {method: nf-bmr}}
"""
POINTS = 18


@pytest.fixture
def make(tmp_path):
    """Opens the study of a sweep, anew at each call."""

    def make(name: str = "tiles", *, space: str = SMALL, **asked) -> Study:
        asked = {"trials": 6, "base_trial": False, "prune": False, **asked}
        return Study(SweepPaths(tmp_path / name), SweepPlan(name, Config(), Space.parse(space), **asked))

    return make


def finish(study: Study, task: TrialSpec) -> None:
    study.done(TrialResult(task.key, "finished", summary_of(task), seconds=1.0, cost=cost_of(task)))


def run_all(study: Study) -> list[TrialSpec]:
    done = []
    while (task := study.next()) is not None:
        finish(study, task)
        done.append(task)
    return done


def _same(sampler: BaseSampler, _: int) -> BaseSampler:
    return sampler


def settings(study: Study) -> list[str]:
    return [str(sorted(trial.user_attrs["settings"].items())) for trial in study.trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_is_tried_to_its_end_before_a_point_is_repeated(make, sampler):
    study = make(trials=POINTS + 3, sampler=sampler)
    tasks = run_all(study)
    assert len({task.config.model_dump_json() for task in tasks}) == len(tasks) == POINTS
    copies = [trial for trial in study.trials if is_copy(trial)]
    assert [trial.number for trial in copies] == [POINTS, POINTS + 1, POINTS + 2]
    for copy in copies:
        first = study.trials[copy.user_attrs[COPY_OF]]
        assert (copy.params, copy.values, copy.state) == (first.params, first.values, first.state)
        assert copy.user_attrs["parameters"] == first.user_attrs["parameters"]
        assert copy.user_attrs["seconds"] == 0
    assert study.counts["finished"] == POINTS + 3


def test_a_study_that_was_killed_takes_the_points_of_a_small_space_in_the_same_order(make):
    whole = run_all(make("whole", trials=POINTS))
    pieces: list[TrialSpec] = []
    while len(pieces) < POINTS:
        study = make("pieces", trials=POINTS)
        for task in (study.next(), study.next()):
            finish(study, task)
            pieces.append(task)
    assert [task.config for task in pieces] == [task.config for task in whole]


def test_where_no_point_is_in_the_way_the_sampler_suggests_what_it_would_have(make):
    """In a wide space there are no repeats: whole points, drawn through the draft, are the sampler's own."""
    wide = "flow.blocks: {int: [1, 40]}\ntrain.flow.lr: {float: [1e-5, 1e-2], log: true}"
    space = SMALL.replace("flow.blocks: {choice: [2, 4, 6]}", wide)
    for sampler in SAMPLERS:
        plain, careful = make(f"{sampler}-plain", space=space), make(f"{sampler}-careful", space=space)
        for number in range(STARTUP + 3):
            plain.study.sampler = sampler_of(plain.plan, number)
            trial = plain.study.ask()
            expected = plain.space.suggest(trial)
            drawn = sampler_of(careful.plan, number)
            careful.study.sampler = NewPointSampler(careful.space, Repeats([]), partial(_same, drawn), (0,))
            ours = careful.study.ask()
            assert careful.space.suggest(ours) == expected
            assert ours.params == trial.params
            for study, asked in ((plain, trial), (careful, ours)):
                study.study.tell(asked, 0.9 - 0.01 * abs(trial.params["flow.blocks"] - 20))


def test_a_point_that_was_asked_for_twice_ends_as_the_first(make):
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    study = make(trials=2)
    for _ in range(2):
        study.study.enqueue_trial(point)
    task = study.next()
    finish(study, task)
    assert study.next() is None
    ((copied, outcome),) = study.take_copies()
    assert (copied.key, outcome.state, outcome.copy_of, outcome.seconds) == ("0001", "finished", "0000", 0)
    assert copied.config == task.config
    assert study.take_copies() == []
    summary = summarise(study, None, None, seconds=1.0)
    assert summary.repeats == {"0001": 0}
    assert summary.repeated == (
        "1 of 2 trials repeated an earlier point, took its result and were not run (0001 is 0000)."
    )
    assert [row[2] for row in grid_of(study).rows] == ["finished", "finished, as 0000"]


def test_a_pruned_trial_is_repeated_up_to_where_it_was_pruned(make):
    study = make(trials=2)
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    for _ in range(2):
        study.study.enqueue_trial(point)
    task = study.next()
    for step, value in ((1, 0.5), (2, 0.6), (3, 0.4)):
        study.report(task.key, step, {"objective": value})
    study.study.trials  # noqa: B018 - read, as a dashboard does
    study.done(TrialResult(task.key, "pruned"))
    assert study.next() is None
    first, copy = study.trials
    assert copy.state == first.state
    assert copy.intermediate_values == first.intermediate_values
    assert study.take_copies()[0].outcome.state == "pruned"


def test_a_trial_waits_for_the_one_that_runs_with_its_point(make):
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    study = make(trials=3)
    for _ in range(2):
        study.study.enqueue_trial(point)
    running = study.next()
    other = study.next()  # the second trial waits, a third is drawn
    assert (running.key, other.key) == ("0000", "0002")
    assert study.next() is None
    assert study.take_copies() == []
    finish(study, running)
    assert [copied.outcome.copy_of for copied in study.take_copies()] == ["0000"]
    finish(study, other)
    assert study.counts == {"finished": 3, "pruned": 0, "failed": 0, "unfinished": 0}


def test_a_trial_that_waited_for_one_that_fails_fails_and_later_the_point_is_run_again(make):
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    study = make(trials=3)
    for _ in range(2):
        study.study.enqueue_trial(point)
    running, other = study.next(), study.next()
    finish(study, other)
    study.done(TrialResult(running.key, "failed", error="out of memory"))
    assert "trial 0000, which failed: out of memory" in str(study.error_of("0001"))
    assert study.counts["failed"] == 2
    again = make(trials=4)
    again.study.enqueue_trial(point)
    task = again.next()
    assert task.key == "0003"
    assert task.config == running.config


def test_a_failed_point_is_avoided_while_others_are_left(make):
    study = make(trials=POINTS)
    failed = study.next()
    study.done(TrialResult(failed.key, "failed", error="a loss that is not finite"))
    tasks = run_all(study)
    assert len({task.config.model_dump_json() for task in [failed, *tasks]}) == POINTS
    assert not any(map(is_copy, study.trials))


def test_after_a_kill_a_trial_that_waited_waits_again(make):
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    study = make(trials=2)
    for _ in range(2):
        study.study.enqueue_trial(point)
    running = study.next()
    assert study.next() is None
    again = make(trials=2)
    assert again.next() == running
    assert again.next() is None
    finish(again, running)
    (copied,) = again.take_copies()
    assert copied.task.key == "0001"
    record_copy(copied.task, copied.outcome, None)
    assert not make(trials=2).has_more


def test_a_repeat_that_an_earlier_version_had_begun_is_not_run_to_its_end(make):
    """Its process was killed while it trained a point that had been tried already."""
    study = make(trials=2)
    finish(study, study.next())
    first = study.trials[0]
    study.study.enqueue_trial(first.params)
    trial = study.study.ask()
    trial.set_user_attr("settings", study.space.suggest(trial))
    again = make(trials=2)
    assert again.has_more
    assert again.next() is None
    assert [copied.outcome.copy_of for copied in again.take_copies()] == ["0000"]
    assert not again.has_more


def test_two_names_for_the_same_settings_are_one_point(make):
    space = "sizes: {preset: {a: {flow.blocks: 4}, b: {flow.blocks: 4}}}"
    study = make(space=space, trials=2, sampler="random")
    assert len(run_all(study)) == 1
    assert len(set(settings(study))) == 1


def test_of_a_repeated_point_the_first_trial_counts(make):
    point = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}
    study = make(trials=8, objectives=("auroc", "parameters"))
    for _ in range(3):
        study.study.enqueue_trial(point)
    tasks = run_all(study)
    assert len(tasks) == 6
    assert study.best.number == min(
        t.number for t in study.trials if t.values[0] == max(map(quality, tasks)) and not is_copy(t)
    )
    assert not any(map(is_copy, study.pareto))
    assert Readiness.of(study.trials).finished == 6
    assert study.feature_hits == 6


def test_a_sampler_is_asked_again_only_where_that_can_help(make):
    asked: list[int] = []

    def stubborn(again: int) -> BaseSampler:
        """Draws the same point whenever it is asked."""
        asked.append(again)
        return RandomSampler(seed=0)

    def times(study: Study, tried: Repeats) -> int:
        asked.clear()
        study.study.sampler = NewPointSampler(study.space, tried, stubborn, (0,))
        trial = study.study.ask()
        tried.first(trial.number, study.space.suggest(trial))
        return len(asked)

    two, tried = make("two", space="flow.blocks: {choice: [2, 4]}"), Repeats([])
    assert [times(two, tried) for _ in range(5)] == [1, 2, 1, 1, 1]  # new, one is left, none
    assert {trial.params["flow.blocks"] for trial in two.study.trials[:2]} == {2, 4}
    wide, tried = make("wide", space="train.flow.lr: {float: [1e-5, 1e-2]}"), Repeats([])
    assert [times(wide, tried) for _ in range(2)] == [1, 1 + AGAIN]


def test_instead_of_a_tried_point_one_of_the_nearest_to_a_good_trial_is_taken(make):
    asked: list[int] = []
    good = {"flow.blocks": 4, "flow.hidden": 64, "method": "nf"}

    def stubborn(again: int) -> BaseSampler:
        """Draws the same point whenever it is asked."""
        asked.append(again)
        return RandomSampler(seed=0)

    study, tried, points = make(trials=9), Repeats([]), []
    fixed = [{}, {}, {"flow.blocks": 6}, {}, {}, {}]
    for values in fixed:
        study.study.enqueue_trial(values)
        study.study.sampler = NewPointSampler(study.space, tried, stubborn, (0,), lambda: [good])
        trial = study.study.ask()
        tried.first(trial.number, study.space.suggest(trial))
        points.append(trial.params)
    assert asked == [0] * len(fixed)  # TPE would cost as much each time
    assert points[1] == good
    assert points[2] == {**good, "flow.blocks": 6}
    neighbours = [{**good, "flow.blocks": 2}, {**good, "flow.hidden": 32}, points[2]]
    assert all(point in points for point in neighbours)
    assert len({str(point) for point in points}) == len(points)


def test_the_best_is_a_trial_that_was_run(make):
    """An earlier version ran a point twice, and was killed while the first of the two trained."""
    asked = {"space": "flow.blocks: {int: [1, 40]}", "trials": 2, "base_trial": True}
    study = make(**asked)
    for _ in range(2):
        study.study.enqueue_trial(study.plan.base_point)
    first, second = study.study.ask(), study.study.ask()
    for trial in (first, second):
        trial.set_user_attr("settings", study.space.suggest(trial))
    study.study.tell(second, 0.9)
    for again in (make(**asked), make(**asked)):  # when the first ends as the second, and afterwards
        assert again.trials[0].user_attrs[COPY_OF] == 1
        assert (again.best.number, again.base_trial.number) == (1, 1)
        assert choose(again).chosen.number == 1


@pytest.mark.parametrize("state", ["finished", "pruned", "failed"])
def test_a_copy_whose_record_a_kill_prevented_is_told_again(make, state):
    study = make(trials=2)
    for _ in range(2):
        study.study.enqueue_trial({"flow.blocks": 4, "flow.hidden": 64, "method": "nf"})
    running = study.next()
    assert study.next() is None  # the second waits
    if state == "finished":
        finish(study, running)
    else:
        study.done(TrialResult(running.key, state, error="out of memory" if state == "failed" else None))
    again = make(trials=2)
    assert again.has_more
    assert again.untold == 1
    assert again.next() is None
    (copied,) = again.take_copies()
    assert [copied] == study.take_copies()
    FolderTracker(  # a kill while it is written
        RunPaths(copied.task.folder).journal, run_id=copied.task.run_id, system_metrics_every=None
    )
    assert make(trials=2).take_copies() == [copied]
    record_copy(copied.task, copied.outcome, None)
    assert not make(trials=2).has_more


def test_pruning_waits_for_trials_that_were_run(make):
    one_method = "flow.blocks: {choice: [2, 4, 6]}\nflow.hidden: {choice: [32, 64]}"
    asked = {"trials": 12, "prune": True, "space": one_method}
    study = make(**asked)
    for _ in range(GRACE):
        study.study.enqueue_trial({"flow.blocks": 4, "flow.hidden": 64})
    for value in (0.9, 0.1, 0.9):
        task = study.next()
        assert not report_all(study, task, value)
        finish(study, task)
        study = make(**asked)
    assert study.count("COMPLETE") == GRACE + 2
    assert report_all(study, study.next(), 0.1)

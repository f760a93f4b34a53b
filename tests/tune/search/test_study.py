"""The study: exactly N trials whatever is killed in between, and suggestions by the journal alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from nfbmr.config import Config
from nfbmr.evaluation.summary import RunSummary
from nfbmr.methods.registry import sharing_key
from tests.summaries import run_summary
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.paths import SweepPaths
from tune.search.plan import SAMPLERS, SweepPlan
from tune.search.samplers import STARTUP, scaled_step
from tune.search.space import Space
from tune.search.study import GRACE, Study

SPACE = """
flow.blocks: {int: [1, 8]}
flow.hidden: {int: [8, 256], log: true}
mapping.latent: {int: [8, 256], log: true}
features.taps: {choice: [[blocks.3], [blocks.4], [blocks.5]]}
"""


@pytest.fixture
def make(tmp_path):
    """Opens the study of a sweep, anew at each call as a driver does after a kill."""

    def make(name: str = "tiles", *, lookahead: int = 0, space: str = SPACE, **asked) -> Study:
        plan = SweepPlan(name, Config(), Space.parse(space), **{"trials": 6, **asked})
        return Study(SweepPaths(tmp_path / name), plan, lookahead=lookahead)

    return make


def quality(task: TrialSpec) -> float:
    """A made-up validation AUROC: best at four blocks and 64 channels."""
    flow = task.config.flow
    return 0.99 - 0.02 * abs(flow.blocks - 4) - 0.001 * abs(flow.hidden - 64)


def summary_of(task: TrialSpec, value: float | None = None) -> RunSummary:
    return run_summary(
        quality(task) if value is None else value,
        parameters={"flow": 1000 * task.config.flow.hidden},
        reused={"flow": False},
        saved_seconds={"flow": 0.0},
    )


def cost_of(task: TrialSpec) -> dict[str, float]:
    return {"parameters": 1000 * task.config.flow.hidden}


def finish(study: Study, task: TrialSpec, value: float | None = None) -> None:
    study.done(TrialResult(task.key, "finished", summary_of(task, value), seconds=1.0, cost=cost_of(task)))


def run_all(study: Study, limit: int = 10**6) -> list[TrialSpec]:
    done: list[TrialSpec] = []
    while len(done) < limit and (task := study.next()) is not None:
        finish(study, task)
        done.append(task)
    return done


def test_hands_out_the_trials_asked_for_each_in_a_folder_of_its_own(make):
    study = make()
    tasks = run_all(study)
    assert [task.key for task in tasks] == [f"{n:04d}" for n in range(6)]
    assert {task.folder for task in tasks} == {study.paths.trial(n) for n in range(6)}
    assert {task.run_id for task in tasks} == {f"tiles-{n:04d}" for n in range(6)}
    assert all(task.parent_id == "tiles" and not task.test for task in tasks)
    assert study.counts == {"finished": 6, "pruned": 0, "failed": 0, "unfinished": 0}
    assert study.best is not None
    assert study.best.values[0] == max(map(quality, tasks))


def test_after_a_kill_what_was_running_goes_on_first_and_nothing_is_run_twice(make):
    study = make()
    finish(study, study.next())
    running = [study.next(), study.next()]
    study.done(TrialResult(running[1].key, "interrupted"))
    again = make()
    first, second = again.next(), again.next()
    assert [first, second] == running
    finish(again, first)
    finish(again, second)
    rest = run_all(again)
    assert [task.key for task in rest] == ["0003", "0004", "0005"]
    assert make().next() is None


def test_a_driver_killed_while_it_asked_leaves_no_trial_behind(make):
    """The trial was made, and nothing chosen for it yet."""
    study = make()
    finish(study, study.next())
    study.study.ask()
    again = make()
    assert [task.key for task in run_all(again)] == ["0001", "0002", "0003", "0004", "0005"]


def test_a_finished_study_can_be_extended(make):
    first = run_all(make(trials=3))
    more = run_all(make(trials=5))
    assert [task.key for task in first + more] == [f"{n:04d}" for n in range(5)]


def test_a_gaussian_process_has_all_that_it_needs(tmp_path):
    """In a process of its own: what is missing is said once, when it is looked for."""
    program = (
        "import sys, pathlib, tests.tune.search.test_study as t\n"
        "paths = t.SweepPaths(pathlib.Path(sys.argv[1]))\n"
        "space = t.Space.parse('train.flow.lr: {float: [1e-5, 1e-3], log: true}')\n"
        "plan = t.SweepPlan('tiles', t.Config(), space, trials=t.STARTUP + 1, sampler='gp')\n"
        "print(len(t.run_all(t.Study(paths, plan))))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "tiles")], capture_output=True, text=True, check=False
    )
    assert (completed.stdout, completed.stderr) == (f"{STARTUP + 1}\n", "")


WHEN = "method: {choice: [nf, nf-bmr]}\nmapping.latent: {int: [8, 256], log: true, when: {method: nf-bmr}}\n"


@pytest.mark.parametrize(
    "space", [SPACE, SPACE.replace("mapping.latent: {int: [8, 256], log: true}\n", WHEN)]
)
@pytest.mark.parametrize("objectives", [("auroc",), ("auroc", "parameters")])
@pytest.mark.filterwarnings("error")
def test_tpe_is_joint_for_one_objective_and_by_parameter_for_several_whatever_the_space(
    make, space, objectives
):
    study = make(space=space, objectives=objectives, trials=STARTUP + 4, sampler="tpe")
    assert len(run_all(study)) == STARTUP + 4
    trial = study.study.ask()
    asked = study.study.sampler.first  # by the one that looks for new points
    joint = asked.infer_relative_search_space(study.study, study.study.trials[trial.number])
    assert bool(joint) == (len(objectives) == 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_was_killed_suggests_what_it_would_have_suggested(make, sampler):
    total = STARTUP + (2 if sampler == "gp" else 4)
    whole = run_all(make("whole", trials=total, sampler=sampler))
    pieces: list[TrialSpec] = []
    while len(pieces) < total:  # a driver that dies after every third trial
        pieces += run_all(make("pieces", trials=total, sampler=sampler), limit=3)
    assert [task.config for task in pieces] == [task.config for task in whole]
    assert len({task.config.model_dump_json() for task in whole}) > STARTUP / 2


def test_the_sampler_learns_beyond_its_start(make):
    tasks = run_all(make(trials=40, prune=False))
    later = [quality(task) for task in tasks[STARTUP:]]
    start = [quality(task) for task in tasks[:STARTUP]]
    assert sum(later) / len(later) > sum(start) / len(start)


def test_another_seed_searches_elsewhere(make, tmp_path):
    plan = SweepPlan("other", Config(seed=1), Space.parse(SPACE), trials=3)
    other = run_all(Study(SweepPaths(tmp_path / "other"), plan))
    same = run_all(make(trials=3))
    assert [t.config.flow for t in other] != [t.config.flow for t in same]


def report_all(study: Study, task: TrialSpec, value: float) -> bool:
    """Whether it was pruned on its way."""
    return any(study.report(task.key, step, {"objective": value}) for step in range(1, task.epochs + 1))


def test_trials_that_do_worse_are_pruned_but_never_the_first(make):
    study = make(trials=12)
    pruned = []
    for n in range(12):
        task = study.next()
        if report_all(study, task, 0.9 - 0.05 * n):
            pruned.append(n)
            study.done(TrialResult(task.key, "pruned"))
        else:
            finish(study, task, 0.9 - 0.05 * n)
    assert pruned == list(range(GRACE, 12))
    assert study.counts["pruned"] == len(pruned)
    assert study.best.number == 0


def test_a_trial_is_pruned_among_those_of_its_own_method(make):
    """What an epoch's map finds says little beside another method's: some join levels after the last one."""
    study = make(trials=24, space="method: {choice: [nf, nf-bmr]}\nflow.blocks: {int: [1, 16]}")
    finished = Counter[str]()
    for n in range(20):
        task = study.next()
        method = task.config.method
        value = {"nf": 0.9, "nf-bmr": 0.7}[method] + 0.001 * n  # better than all before of the method
        assert not report_all(study, task, value)
        finish(study, task, value)
        finished[method] += 1
    for _ in range(4):
        task = study.next()
        assert report_all(study, task, 0.5)
        study.done(TrialResult(task.key, "pruned"))
    assert min(finished.values()) >= GRACE


def test_without_pruning_nobody_is_pruned(make):
    study = make(trials=12, prune=False)
    for n in range(12):
        task = study.next()
        assert not report_all(study, task, 0.9 - 0.05 * n)
        finish(study, task, 0.9 - 0.05 * n)


def test_epochs_without_a_validation_decide_nothing(make):
    study = make()
    task = study.next()
    assert not study.report(task.key, 1, {"loss": 2.0})


def test_a_flow_that_is_replayed_counts_once(make):
    study = make()
    task = study.next()
    for value in (0.8, 0.1):  # the same epochs again after a restart
        for step in (2, 4):
            study.report(task.key, step, {"objective": value})
    assert set(study.study.trials[0].intermediate_values.values()) == {0.8}


def test_a_decision_to_prune_outlives_the_driver(make):
    study = make(trials=12)
    for _ in range(GRACE):
        task = study.next()
        report_all(study, task, 0.9)
        finish(study, task, 0.9)
    task = study.next()
    assert report_all(study, task, 0.1)
    again = make(trials=12)
    assert again.next() == task
    assert again.report(task.key, 1, {"loss": 1.0})


def test_steps_of_longer_trials_are_scaled_to_their_share():
    for epochs in (10, 30, 45, 300):
        steps = [scaled_step(step, epochs, 30) for step in range(1, epochs + 1)]
        assert steps == sorted(steps)
        assert steps[-1] == 30
        assert steps[0] >= 1


def test_failures_are_told_and_not_tried_again(make):
    study = make()
    bad = study.next()
    study.done(TrialResult(bad.key, "failed", error="a loss that is not finite"))
    undefined = study.next()
    finish(study, undefined, float("nan"))
    rest = run_all(make())
    assert {bad.key, undefined.key}.isdisjoint(task.key for task in rest)
    assert make().counts == {"finished": 4, "pruned": 0, "failed": 2, "unfinished": 0}
    assert study.error_of(bad.key) == "a loss that is not finite"
    assert "undefined" in study.error_of(undefined.key)


def test_points_to_start_with_come_first_and_once(make):
    points = ({"flow.blocks": 4, "flow.hidden": 64}, {"features.taps": "[blocks.5]"})
    make(start=points)
    tasks = run_all(make(start=points))
    assert len(tasks) == 6
    assert tasks[0].config == Config()
    assert (tasks[1].config.flow.blocks, tasks[1].config.flow.hidden) == (4, 64)
    assert tasks[2].config.features.taps == ("blocks.5",)


def test_an_earlier_sweep_is_learned_from_and_not_counted(make):
    old = make("old", trials=STARTUP)
    earlier = [
        ({**task.config.flow.model_dump(), **_flat(task)}, (quality(task),), task.run_id)
        for task in run_all(old)
    ]
    outside = ({"flow.blocks": 50}, (1.0,), "old-outside")
    study = make("new", trials=4)
    assert study.import_trials([*earlier, outside]) == STARTUP
    assert study.import_trials(earlier) == 0
    tasks = run_all(study)
    assert len(tasks) == 4
    assert study.counts["finished"] == 4
    assert study.best.number >= STARTUP
    cold = run_all(make("cold", trials=4))
    assert [t.config for t in tasks] != [t.config for t in cold]


def _flat(task: TrialSpec) -> dict:
    config = task.config
    return {
        "flow.blocks": config.flow.blocks,
        "flow.hidden": config.flow.hidden,
        "mapping.latent": config.mapping.latent,
        "features.taps": list(config.features.taps),
    }


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_several_objectives_give_a_pareto_front(make, sampler):
    study = make(trials=12, objectives=("auroc", "parameters"), sampler=sampler)
    run_all(study)
    front = study.pareto
    assert front
    for trial in front:
        assert not any(
            other.values[0] >= trial.values[0]
            and other.values[1] <= trial.values[1]
            and other.values != trial.values
            for other in study.trials
        )
    assert study.best.values[0] == max(trial.values[0] for trial in study.trials)


def test_imported_trials_beat_nobody_off_the_front(make):
    study = make(trials=3, objectives=("auroc", "parameters"), sampler="random")
    run_all(study)
    front = [trial.number for trial in study.pareto]
    settings = study.trials[0].user_attrs["settings"]
    assert study.import_trials([(settings, [1.0, 1.0], "earlier-0000")]) == 1
    assert [trial.number for trial in study.pareto] == front
    assert study.best.number in front


def test_of_equally_good_trials_the_smallest_is_the_best(make):
    study = make()
    tasks = [study.next() for _ in range(6)]
    for task in tasks:
        finish(study, task, 1.0)
    smallest = min(tasks, key=lambda task: (task.config.flow.hidden, task.key))
    assert f"{study.best.number:04d}" == smallest.key


def test_trials_that_share_a_flow_do_not_run_at_once_where_there_is_a_choice(make):
    space = "flow.blocks: {choice: [1, 2, 3]}\nmapping.latent: {int: [8, 256]}"
    study = make(trials=30, sampler="random", space=space, lookahead=8)
    running: list[TrialSpec] = []
    clashes = 0
    for _ in range(30):
        task = study.next()
        clashes += sharing_key(task.config) in {sharing_key(other.config) for other in running}
        running.append(task)
        if len(running) == 2:
            finish(study, running.pop(0))
    assert clashes <= 2
    assert len({task.key for task in [*running]}) == 1
    assert study.asked == 30


def test_a_line_cut_short_and_a_lock_left_behind_do_not_matter(make):
    study = make()
    finish(study, study.next())
    journal = study.paths.study
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    journal.with_name(journal.name + ".lock").symlink_to(journal)
    again = make()
    assert [task.key for task in run_all(again)] == ["0001", "0002", "0003", "0004", "0005"]
    assert Counter(trial.state.name for trial in make().trials) == {"COMPLETE": 6}

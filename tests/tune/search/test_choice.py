"""Which trial is chosen: the best by the objective, unless the base configuration is as good."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest

from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.paths import RunPaths, write_json
from nfbmr.resolve import values_of
from tests.summaries import run_summary
from tune.execution.resources import Resources
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.paths import SweepPaths
from tune.records.sweep_summary import SweepSummary
from tune.search.choice import Choice, choose
from tune.search.imported_trials import has_imported
from tune.search.plan import SweepPlan
from tune.search.report import headline, summarise, write_tables
from tune.search.samplers import STARTUP
from tune.search.space import Space
from tune.search.study import GRACE, Study
from tune.search.sweep import new_sweep

SPACE = """
flow.blocks: {int: [2, 8], step: 2}
train.flow.lr: {float: [1.0e-4, 1.0e-2], log: true}
features.taps: {choice: [[blocks.4], [blocks.5]]}
"""
BASE = {"flow.blocks": 4, "train.flow.lr": 2e-4, "features.taps": "[blocks.5]"}
PARTS = [f"part {i}" for i in range(10)]
ERROR = 0.05
"""Roughly the standard error of the difference of two trials that rank different parts wrongly."""


@dataclass
class Made:
    """A sweep of which results are made up, opened anew at each call."""

    paths: SweepPaths
    plan: SweepPlan

    def open(self) -> Study:
        return Study(self.paths, self.plan)


@pytest.fixture
def make(tmp_path):
    def make(name: str = "tiles", *, space: str = SPACE, config: Config | None = None, **asked) -> Made:
        config = config or Config(flow={"blocks": 4}, train={"flow": {"lr": 2e-4}})
        config = config.model_copy(update={"output": tmp_path})
        plan = SweepPlan(name, config, Space.parse(space), **{"trials": 4, **asked})
        return Made(SweepPaths(tmp_path / name), plan)

    return make


def finish(study: Study, task: TrialSpec, value: float, *, latency: float = 1.0) -> None:
    """Ends a trial; each ranks another part wrongly, so that any two differ by about :data:`ERROR`."""
    adds = dict.fromkeys(PARTS, 0.005)
    adds[PARTS[int(task.key) % len(PARTS)]] -= 0.05
    write_json(RunPaths(study.paths.trial(int(task.key))).influence, adds)
    summary = run_summary(value, parameters={"flow": 1000})
    cost = {"parameters": 1000, "latency_ms": latency}
    study.done(TrialResult(task.key, "finished", summary, seconds=1.0, cost=cost))


def run(made: Made, values: list[float]) -> tuple[Study, Choice]:
    study = made.open()
    for value in values:
        task = study.next()
        assert task is not None
        finish(study, task, value)
    choice = choose(study)
    assert choice is not None
    return study, choice


def told(study: Study, choice: Choice) -> tuple[dict, list[str]]:
    """The summary, and the texts that people read."""
    summary = summarise(study, choice, None, seconds=1.0)
    write_tables(study, study.paths, summary)
    return summary.as_json(), [headline(summary), study.paths.table("md").read_text()]


def test_the_first_trial_is_the_base_configuration_itself(make):
    made = make(trials=3)
    study = made.open()
    tasks = [study.next() for _ in range(3)]
    assert tasks[0].config == made.plan.config
    assert study.study.trials[0].params == BASE
    assert study.next() is None  # it is one of the three


def test_within_two_errors_of_the_best_the_base_configuration_is_chosen(make):
    study, choice = run(make(), [0.90, 0.75, 0.90 + ERROR / 2, 0.70])
    assert (choice.best.number, choice.chosen.number) == (2, 0)
    summary, texts = told(study, choice)
    assert summary["best"]["number"] == 0
    assert summary["best"]["run_dir"] == str(study.paths.trial(0))
    assert summary["highest"]["number"] == 2
    assert summary["highest"]["values"] == {"validation/image_auroc": 0.925}
    trust = summary["trust"]
    assert (trust["best"], trust["chosen"], trust["trials"][0]) == (2, 0, 2)
    assert trust["sentence"] == (
        "2 of 4 finished trials cannot be told from the best (within two standard errors of the paired "
        "difference)."
    )
    assert trust["why"] == (
        "Trial 0000, the base configuration, is chosen: trial 0002, the best by the objective, leads it by "
        "no more than two standard errors of the paired difference (0.9250 against 0.9000), and then the "
        "base configuration is preferred."
    )
    for text in texts:
        assert text.count(trust["why"]) == 1
    assert "chosen      trial 0000" in texts[0]
    assert "best        trial 0002, objective 0.925" in texts[0]


def test_the_frame_of_a_sweep_has_every_trial_and_what_the_chosen_one_reached(make):
    study, choice = run(make(objectives=("auroc", "latency")), [0.80, 0.70, 0.95, 0.60])
    metrics = {"image_auroc": {"value": 0.9, "low": 0.8, "high": 1.0}, "image_auroc/dent": {"value": 0.7}}
    tested = run_summary(0.95, test_peeked=False, parameters={"flow": 1})
    tested = tested.model_copy(
        update={"metrics": {**tested.metrics, **run_summary(metrics={"test": metrics}).metrics}}
    )
    summary = summarise(study, choice, tested, seconds=1.0)
    write_tables(study, study.paths, summary)
    rows = pq.read_table(study.paths.results).to_pylist()
    aurocs = [row for row in rows if (row["side"], row["metric"]) == ("validation", "image_auroc")]
    assert [row["row"] for row in aurocs] == ["0000", "0001", "0002", "0003"]
    assert [row["value"] for row in aurocs] == [0.80, 0.70, 0.95, 0.60]
    assert [row["difference"] for row in aurocs] == pytest.approx([0.0, -0.1, 0.15, -0.2])
    assert {row["reference"] for row in aurocs} == {"0000"}
    assert all(row["low"] < row["value"] for row in aurocs)
    assert [row["value"] for row in rows if row["metric"] == "latency_ms"] == [1.0] * 4
    assert json.loads(aurocs[0]["settings"])["flow.blocks"] == 4
    on_test = {row["category"]: (row["row"], row["value"]) for row in rows if row["side"] == "test"}
    assert on_test == {None: ("0002", 0.9), "dent": ("0002", 0.7)}


def test_beyond_two_errors_the_best_is_chosen(make):
    study, choice = run(make(), [0.80, 0.70, 0.80 + 3 * ERROR, 0.60])
    assert (choice.best.number, choice.chosen.number) == (2, 2)
    summary, texts = told(study, choice)
    assert summary["best"]["number"] == summary["highest"]["number"] == 2
    assert summary["trust"]["why"] == (
        "Trial 0002, the best by the objective, is chosen: it leads the base configuration, trial 0000, by "
        "more than two standard errors of the paired difference (0.9500 against 0.8000)."
    )
    for text in texts:
        assert text.count(summary["trust"]["why"]) == 1
    assert "best        trial" not in texts[0]


def test_a_base_configuration_that_is_the_best_is_chosen_for_that(make):
    study, choice = run(make(), [0.95, 0.80, 0.70, 0.70])
    assert (choice.best.number, choice.chosen.number) == (0, 0)
    assert choice.why == "Trial 0000, the base configuration, is chosen: it is the best by the objective."
    assert "guess" not in " ".join(SweepSummary.from_json(told(study, choice)[0]).notes)


def test_others_of_the_best_remain_a_guess(make):
    _, choice = run(make(), [0.70, 0.80, 0.90, 0.90])
    assert choice.chosen.number == 2
    assert choice.trust.sentence.endswith("the choice among them is a guess.")


@pytest.mark.parametrize("ending", ["failed", "pruned"])
def test_a_base_configuration_that_did_not_finish_is_not_chosen(make, ending):
    study = make(trials=2).open()
    study.done(TrialResult(study.next().key, ending))
    finish(study, study.next(), 0.6)
    choice = choose(study)
    assert choice.chosen.number == 1
    assert choice.why.endswith("the base configuration, trial 0000, did not finish.")


def test_with_no_base_trial_the_best_by_the_objective_is_chosen(make):
    made = make(base_trial=False, start=(BASE,))
    _, choice = run(made, [0.90, 0.80, 0.91, 0.70])
    assert choice.chosen.number == 2
    assert "--no-base-trial" in choice.why
    assert make("none", base_trial=False).plan.points == ()


def test_outside_of_the_space_there_is_no_base_trial(make):
    config = Config(flow={"blocks": 5}, features={"taps": ["blocks.3"]}, train={"flow": {"lr": 2e-4}})
    made = make(config=config)
    assert made.plan.points == ()
    assert made.plan.space.lacks(values_of(config)) == [
        "flow.blocks=5 (flow.blocks: 2 to 8 in steps of 2)",
        "features.taps=[blocks.3] (features.taps: [blocks.4], [blocks.5])",
    ]
    _, choice = run(made, [0.90, 0.80, 0.91, 0.70])
    assert choice.chosen.number == 2
    assert "no trial of this sweep has the base configuration" in choice.why


CONDITIONAL = """
method: {choice: [nf, nf-bmr]}
mapping.residual_blocks: {int: [1, 4], when: {method: nf-bmr}}
light:
  preset:
    as-it-is: {}
    even: {features.photometric: brightness}
"""


@pytest.mark.parametrize(
    ("settings", "point"),
    [
        ({}, {"method": "nf-bmr", "mapping.residual_blocks": 2, "light": "as-it-is"}),
        ({"method": "nf"}, {"method": "nf", "light": "as-it-is"}),
        (
            {"features": {"photometric": "brightness"}},
            {"method": "nf-bmr", "mapping.residual_blocks": 2, "light": "even"},
        ),
        ({"mapping": {"residual_blocks": 6}}, None),
        ({"method": "nf", "mapping": {"residual_blocks": 6}}, {"method": "nf", "light": "as-it-is"}),
        ({"method": "padim"}, None),
    ],
)
def test_conditions_and_presets_are_kept(make, settings, point):
    made = make(space=CONDITIONAL, config=Config(**settings))
    assert made.plan.base_point == point
    if point is not None:
        assert made.open().next().config == made.plan.config


def test_it_comes_before_the_points_to_start_with_and_once(make):
    other = {"flow.blocks": 8, "features.taps": "[blocks.4]"}
    assert make(start=(other,)).plan.points == (BASE, other)
    made = make("same", start=(other, BASE), trials=3)
    assert made.plan.points == (other, BASE)
    first = made.open().next()
    second, third = (made.open().next() for _ in range(2))  # a driver that is killed asks again
    assert first == second == third
    study = made.open()
    tasks = [study.next() for _ in range(3)]
    assert [task.config == made.plan.config for task in tasks] == [False, True, False]


def test_a_driver_that_was_killed_does_not_begin_with_it_again(make):
    made = make(trials=3)
    for _ in range(3):
        study = made.open()
        finish(study, study.next(), 0.9)
    assert [trial.params == BASE for trial in made.open().trials] == [True, False, False]


def test_where_the_warm_start_has_it_already_it_is_not_run_again(make):
    made = make(trials=2)
    study = made.open()
    settings = {**values_of(made.plan.config)}
    assert study.import_trials([(settings, [0.9], "earlier-0000")]) == 1
    tasks = [study.next() for _ in range(2)]
    assert made.plan.config not in [task.config for task in tasks]
    assert has_imported(study.study, BASE)
    for task in tasks:
        finish(study, task, 0.8)
    assert choose(study).chosen.number in (1, 2)


def test_it_is_not_pruned_since_it_is_what_others_are_measured_by(make):
    study = make(trials=STARTUP).open()
    base, *others = (study.next() for _ in range(GRACE + 2))
    for task in others[:GRACE]:
        assert not any(study.report(task.key, n, {"objective": 0.9}) for n in range(1, task.epochs + 1))
        finish(study, task, 0.9)
    late = others[GRACE]
    assert not any(study.report(base.key, n, {"objective": 0.1}) for n in range(1, base.epochs + 1))
    assert any(study.report(late.key, n, {"objective": 0.1}) for n in range(1, late.epochs + 1))


def test_with_several_objectives_the_first_decides_as_ever(make):
    made = make(objectives=("auroc", "latency"), trials=2)
    study = made.open()
    base = study.next()
    assert base.config == made.plan.config
    finish(study, base, 0.90)
    finish(study, study.next(), 0.901, latency=2.0)
    choice = choose(study)
    assert choice.chosen.number == choice.best.number == 1
    assert choice.why == ""


def test_where_nothing_finished_nothing_is_chosen(make):
    assert choose(make().open()) is None


def test_a_plan_of_an_earlier_version_goes_on_without_it(make):
    made = make()
    made.plan.write(made.paths.plan)
    assert SweepPlan.read(made.paths.plan) == made.plan
    text = made.paths.plan.read_text()
    assert "base_trial: true\n" in text
    made.paths.plan.write_text(text.replace("base_trial: true\n", ""))
    assert not SweepPlan.read(made.paths.plan).base_trial


def test_more_points_than_trials_are_refused_with_a_way_out(make):
    made = make(start=({"flow.blocks": 8},), trials=1, resources=Resources(backend="local"))
    with pytest.raises(
        ConfigError, match=r"2 points to start with, the base configuration first, and 1 trial"
    ) as e:
        new_sweep(made.plan)
    assert "--no-base-trial" in str(e.value)
    assert not made.paths.plan.exists()

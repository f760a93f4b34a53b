"""What a sweep found: its summary and its table of trials."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nfbmr import yaml_text
from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import write_text
from nfbmr.tables import Grid
from tune.records.children import short_names
from tune.records.paths import SweepPaths
from tune.records.sweep_summary import (
    ChosenTrial,
    ImportanceFacts,
    SavedSeconds,
    Shared,
    SweepSummary,
    TrialCounts,
    TrialPoint,
)
from tune.search.choice import Choice
from tune.search.importance import Readiness
from tune.search.study import Study
from tune.search.trial_facts import COPY_OF, ERROR, SETTINGS, is_copy, validation_auroc
from tune.tables.frame import Result, with_estimate, write_results

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}
"""Optuna's states of a trial, in our words."""


def summarise(
    study: Study, choice: Choice | None, tested: RunSummary | None, *, seconds: float
) -> SweepSummary:
    """The summary of a sweep.

    ``best`` is the trial that was chosen and scored: the model to take. ``highest`` is the one with the best
    first objective, often the same; ``trust`` says which is which, and why.

    Args:
        study: The search.
        choice: Choice of its finished trials; None where there are none.
        tested: Summary of the chosen trial, scored on the test set.
        seconds: What this driver took.
    """
    resume = f"nfbmr sweep --resume {study.paths.root}"
    readiness = Readiness.of(study.study.get_trials(deepcopy=False))
    saved = sum(trial.user_attrs.get("saved_seconds", 0.0) for trial in study.trials)
    return SweepSummary(
        name=study.plan.name,
        folder=str(study.paths.root),
        method=study.plan.config.method,
        objective=tuple(goal.number for goal in study.plan.goals),
        sampler=study.plan.sampler,
        trials=TrialCounts(asked=study.plan.trials, **study.counts),
        best=None if choice is None else _chosen(study, choice.chosen, tested),
        highest=None if choice is None else _point(study, choice.best),
        trust=None if choice is None else choice.facts,
        importance=ImportanceFacts(
            finished=readiness.finished,
            needed=readiness.needed,
            missing=readiness.missing(len(study.trials), resume),
        ),
        pareto=tuple(_point(study, trial) for trial in study.pareto),
        hits=Shared(
            features=study.feature_hits,
            flows=sum(bool(trial.user_attrs.get("flow_reused")) for trial in study.trials),
        ),
        saved_seconds=SavedSeconds(features=round(study.saved_by_passes(), 3), stages=round(saved, 3)),
        repeats={f"{t.number:04d}": t.user_attrs[COPY_OF] for t in study.trials if is_copy(t)},
        errors={f"{t.number:04d}": t.user_attrs[ERROR] for t in study.trials if ERROR in t.user_attrs},
        seconds=round(seconds, 1),
        table=str(study.paths.table("md")),
        resume=resume,
        files=study.paths.files("md", "csv"),
    )


def _point(study: Study, trial: FrozenTrial) -> TrialPoint:
    values = {goal.number: value for goal, value in zip(study.plan.goals, trial.values, strict=True)}
    return TrialPoint(number=trial.number, params=dict(trial.user_attrs[SETTINGS]), values=values)


def _chosen(study: Study, trial: FrozenTrial, tested: RunSummary | None) -> ChosenTrial:
    point = _point(study, trial)
    chosen = ChosenTrial(
        number=point.number,
        params=point.params,
        values=point.values,
        run_id=f"{study.plan.name}-{trial.number:04d}",
        run_dir=str(study.paths.trial(trial.number)),
    )
    if tested is None:
        return chosen
    sides = {"validation": tested.metrics.get("validation"), "test": tested.metrics.get("test")}
    same = ("leak", "report", "dataset", "split", "test_peeked", "known_defects")
    return chosen.model_copy(update={**sides, **{name: getattr(tested, name) for name in same}})


def write_tables(study: Study, paths: SweepPaths, summary: SweepSummary) -> None:
    """Write the table of trials, the best first, with what it is worth below it; and the frame of results."""
    grid = grid_of(study)
    notes = "".join(f"\n{note}\n" for note in (*summary.notes, summary.failures) if note)
    write_text(paths.table("md"), grid.markdown() + "\n" + notes)
    write_text(paths.table("csv"), grid.csv())
    write_results(paths.results, results_of(study, summary))


def grid_of(study: Study) -> Grid:
    """A row a trial: objectives, state, what was searched, what it took."""
    searched = dict.fromkeys(key for trial in study.trials for key in trial.user_attrs.get(SETTINGS, {}))
    goals = study.plan.goals
    head = ["trial", *(g.name for g in goals), "state", *short_names(searched).values(), "seconds", "flow"]
    sign = -1 if goals[0].maximise else 1

    def order(trial: FrozenTrial) -> tuple[bool, float, int]:
        finished = trial.state.name == "COMPLETE"
        return (not finished, sign * trial.values[0] if finished else 0.0, trial.number)

    rows = []
    for trial in sorted(study.trials, key=order):
        facts, settings = trial.user_attrs, trial.user_attrs.get(SETTINGS, {})
        finished = trial.state.name == "COMPLETE"
        values = [_number(value) for value in trial.values] if finished else [""] * len(goals)
        if finished and len(values) == 1 and (auroc := validation_auroc(trial)).has_interval:
            values = [f"{trial.values[0]:.4f} [{auroc.low:.3f}, {auroc.high:.3f}]"]
        flow = {True: "reused", False: "trained"}.get(facts.get("flow_reused"), "")  # type: ignore[arg-type]
        rows.append(
            [
                f"{trial.number:04d}",
                *values,
                _state(trial),
                *(_setting(settings[key]) if key in settings else "" for key in searched),
                f"{facts['seconds']:.1f}" if "seconds" in facts else "",
                flow,
            ]
        )
    return Grid.of(head, rows)


def results_of(study: Study, summary: SweepSummary) -> Iterator[Result]:
    """The long frame: each trial's objectives and what it took, then all metrics of the chosen one.

    The first objective is compared with that of the base configuration, where a trial has it.
    """
    base = study.base_trial
    reached = base.values[0] if base is not None and base.state.name == "COMPLETE" else math.nan
    for trial in study.trials:
        about: dict[str, Any] = {
            "row": f"{trial.number:04d}",
            "state": _state(trial),
            "settings": json.dumps(trial.user_attrs.get(SETTINGS, {}), default=str),
            "seed": study.plan.config.seed,
        }
        values = trial.values if trial.state.name == "COMPLETE" else [math.nan] * len(study.plan.goals)
        for goal, value in zip(study.plan.goals, values, strict=True):
            result = _of_number(goal.number, Estimate(value, math.nan, math.nan), about)
            auroc = validation_auroc(trial)
            if auroc.value == value:
                result = replace(result, low=auroc.low, high=auroc.high)
            if goal is study.plan.goals[0] and base is not None:
                result = replace(result, reference=f"{base.number:04d}", difference=value - reached)
            yield result
        if "seconds" in trial.user_attrs:
            yield Result(metric="seconds", value=trial.user_attrs["seconds"], **about)
        best = summary.best
        if best is None or best.number != trial.number:
            continue
        for side in ("validation", "test"):
            for name, estimate in (getattr(best, side) or {}).items():
                if f"{side}/{name}" != study.plan.goals[0].number:  # which stands there already
                    result = _of_number(f"{side}/{name}", estimate, about)
                    yield replace(result, test_peeked=best.test_peeked)


def _of_number(name: str, estimate: Estimate, about: Mapping[str, Any]) -> Result:
    """A number by the name that objectives have: ``validation/image_auroc``, ``cost.latency_ms``."""
    side, _, metric = name.rpartition("/") if name.count("/") < 2 else name.partition("/")
    if side in ("validation", "test"):
        metric, _, kind = metric.partition("/")
        category = {"category": kind, "breakdown": "kind"} if kind else {}
        return with_estimate(metric=metric, estimate=estimate, side=side, **category, **about)
    return with_estimate(metric=name.rpartition(".")[2], estimate=estimate, **about)


def _state(trial: FrozenTrial) -> str:
    """How a trial ended: ``finished``, or ``finished, as 0003`` where that one had its settings before."""
    state = STATES.get(trial.state.name, trial.state.name.lower())
    return f"{state}, as {trial.user_attrs[COPY_OF]:04d}" if is_copy(trial) else state


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else yaml_text.inline(value).strip("[]")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def headline(summary: SweepSummary) -> str:
    """What a person reads at the end."""
    from tune.execution.progress import duration

    counts, best = summary.trials, summary.best
    ended = ", ".join(f"{number} {state}" for state in STATES.values() if (number := getattr(counts, state)))
    lines = [
        f"sweep {summary.name}: {ended} of {counts.asked} trials in {duration(summary.seconds)}",
        "",
    ]
    if best is not None:
        lines.append(f"  chosen      trial {best.number:04d}: {_settings(best)}")
        for side, estimate in (("validation", best.auroc("validation")), ("test", best.auroc("test"))):
            if estimate is not None:
                lines.append(f"  {side:<11} image AUROC {str(estimate).replace(' [', '  [')}")
        if best.leak:
            lines.append(f"  LEAK        {best.leak}")
        highest = summary.highest
        if highest is not None and highest.number != best.number:
            value = next(iter(highest.values.values()))
            lines.append(
                f"  best        trial {highest.number:04d}, objective {_number(value)}: {_settings(highest)}"
            )
    lines += [f"  NOTE        {note}" for note in summary.notes]
    if summary.pareto:
        lines += ["", "  Pareto front"]
        for point in summary.pareto:
            values = ", ".join(f"{name} {_number(value)}" for name, value in point.values.items())
            lines.append(f"    {point.number:04d}  {values}  ({_settings(point)})")
    hits, saved = summary.hits, summary.saved_seconds
    lines += [
        "",
        f"  shared      features {hits.features} times, flows {hits.flows} times; "
        f"{duration(saved.features + saved.stages)} saved",
        f"  table       {summary.table}",
    ]
    if best is not None and best.report:
        lines += [f"  report      {best.report}", f"  model       {best.run_dir}"]
    lines.append(f"  more        {summary.resume} --trials {counts.asked * 2}")
    return "\n".join(lines)


def _settings(point: TrialPoint) -> str:
    return ", ".join(f"{key}={_setting(value)}" for key, value in point.params.items())

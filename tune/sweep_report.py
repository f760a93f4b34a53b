"""What a sweep found: its summary and its table of trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nfbmr import yaml_text
from nfbmr.paths import write_text
from tune.children import short_names
from tune.paths import SweepPaths
from tune.study import ERROR, SETTINGS, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}


def summarise(study: Study, tested: Mapping[str, Any] | None, *, seconds: float) -> dict[str, Any]:
    """The summary of a sweep, as ``--json`` prints it.

    Args:
        study: The search.
        tested: Summary of the best trial, scored on the test set.
        seconds: What this driver took.
    """
    best = study.best
    flows = [trial for trial in study.trials if trial.user_attrs.get("flow_reused")]
    saved = {
        "features": round(study.saved_by_passes(), 3),
        "flows": round(sum(trial.user_attrs.get("saved_seconds", 0.0) for trial in study.trials), 3),
    }
    return {
        "name": study.plan.name,
        "folder": str(study.paths.root),
        "method": study.plan.config.method,
        "objective": [goal.number for goal in study.plan.goals],
        "sampler": study.plan.sampler,
        "trials": {"asked": study.plan.trials, **study.counts},
        "best": None if best is None else _best(study, best, tested),
        "pareto": [_point(study, trial) for trial in study.pareto],
        "hits": {"features": study.feature_hits, "flows": len(flows)},
        "saved_seconds": saved,
        "errors": {f"{t.number:04d}": t.user_attrs[ERROR] for t in study.trials if ERROR in t.user_attrs},
        "seconds": round(seconds, 1),
        "table": str(study.paths.table("md")),
        "resume": f"nfbmr sweep --resume {study.paths.root}",
    }


def _best(study: Study, trial: FrozenTrial, tested: Mapping[str, Any] | None) -> dict[str, Any]:
    metrics = {} if tested is None else tested["metrics"]
    return {
        **_point(study, trial),
        "run_id": f"{study.plan.name}-{trial.number:04d}",
        "run_dir": str(study.paths.trial(trial.number)),
        "validation": metrics.get("validation"),
        "test": metrics.get("test"),
        "leak": None if tested is None else tested.get("leak"),
        "report": None if tested is None else tested.get("report"),
        "dataset": None if tested is None else tested["dataset"],
        "split": None if tested is None else tested["split"],
        "test_peeked": None if tested is None else tested["test_peeked"],
    }


def _point(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    values = {goal.number: value for goal, value in zip(study.plan.goals, trial.values, strict=True)}
    return {"number": trial.number, "params": dict(trial.user_attrs[SETTINGS]), "values": values}


def write_tables(study: Study, paths: SweepPaths) -> None:
    """Write ``table.md`` and ``table.csv``: a row a trial, the best first."""
    header, rows = table_of(study)
    write_text(paths.table("md"), as_markdown(header, rows))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(paths.table("csv"), text.getvalue())


def table_of(study: Study) -> tuple[list[str], list[list[str]]]:
    """Header and rows: objectives, state, what was searched, what it took."""
    searched = dict.fromkeys(key for trial in study.trials for key in trial.user_attrs.get(SETTINGS, {}))
    names = short_names(searched)
    goals = study.plan.goals
    header = ["trial", *(goal.name for goal in goals), "state", *names.values(), "seconds", "flow"]
    sign = -1 if goals[0].maximise else 1

    def order(trial: FrozenTrial) -> tuple[bool, float, int]:
        finished = trial.state.name == "COMPLETE"
        return (not finished, sign * trial.values[0] if finished else 0.0, trial.number)

    return header, [_row(study, trial, searched) for trial in sorted(study.trials, key=order)]


def _row(study: Study, trial: FrozenTrial, searched: Mapping[str, Any]) -> list[str]:
    facts, settings = trial.user_attrs, trial.user_attrs.get(SETTINGS, {})
    finished = trial.state.name == "COMPLETE"
    values = [_number(value) for value in trial.values] if finished else [""] * len(study.plan.goals)
    if finished and len(values) == 1:
        values = [_with_interval(trial.values[0], facts.get("validation"))]
    flow = {True: "reused", False: "trained"}.get(facts.get("flow_reused"), "")  # type: ignore[arg-type]
    return [
        f"{trial.number:04d}",
        *values,
        STATES.get(trial.state.name, trial.state.name.lower()),
        *(_setting(settings[key]) if key in settings else "" for key in searched),
        f"{facts['seconds']:.1f}" if "seconds" in facts else "",
        flow,
    ]


def as_markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table for people.

    Example:
        >>> print(as_markdown(["trial", "auroc"], [["0001", "0.9"]]), end="")
        | trial | auroc |
        |-------|-------|
        | 0001  | 0.9   |
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _with_interval(value: float, estimate: Mapping[str, Any] | None) -> str:
    if not estimate or estimate.get("low") is None:
        return _number(value)
    return f"{value:.4f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else yaml_text.inline(value).strip("[]")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def headline(summary: Mapping[str, Any]) -> str:
    """What a person reads at the end."""
    from tune.progress import duration

    trials, best = summary["trials"], summary["best"]
    ended = ", ".join(f"{trials[state]} {state}" for state in STATES.values() if trials[state])
    lines = [
        f"sweep {summary['name']}: {ended} of {trials['asked']} trials in {duration(summary['seconds'])}",
        "",
    ]
    if best is not None:
        settings = ", ".join(f"{key}={_setting(value)}" for key, value in best["params"].items())
        lines.append(f"  best        trial {best['number']:04d}: {settings}")
        for side in ("validation", "test"):
            estimate = (best[side] or {}).get("image_auroc")
            if estimate and estimate["value"] is not None:
                lines.append(f"  {side:<11} image AUROC {_interval(estimate)}")
        if best["leak"]:
            lines.append(f"  LEAK        {best['leak']}")
    if summary["pareto"]:
        lines += ["", "  Pareto front"]
        for point in summary["pareto"]:
            values = ", ".join(f"{name} {_number(value)}" for name, value in point["values"].items())
            settings = ", ".join(f"{key}={_setting(value)}" for key, value in point["params"].items())
            lines.append(f"    {point['number']:04d}  {values}  ({settings})")
    hits, saved = summary["hits"], summary["saved_seconds"]
    lines += [
        "",
        f"  shared      features {hits['features']} times, flows {hits['flows']} times; "
        f"{duration(saved['features'] + saved['flows'])} saved",
        f"  table       {summary['table']}",
    ]
    if best is not None and best["report"]:
        lines += [f"  report      {best['report']}", f"  model       {best['run_dir']}"]
    lines.append(f"  more        {summary['resume']} --trials {trials['asked'] * 2}")
    return "\n".join(lines)


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f}  [{estimate['low']:.3f}, {estimate['high']:.3f}]"

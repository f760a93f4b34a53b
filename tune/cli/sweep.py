"""``nfbmr sweep``: search a space of configurations, choose a trial, and score it once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import config_options, emit, json_option, settings_given
from tune.cli.running import name_of, running_options

TABLE_ROWS = 20
"""A table of trials that is no longer is printed whole; it is in a file anyway."""

_SAMPLERS = ("tpe", "gp", "qmc", "random", "nsga2")
_OBJECTIVES = ("auroc", "latency", "parameters")


class Names(click.ParamType[Any]):
    """Some of a few names, with commas between."""

    name = "names"

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Read them."""
        from nfbmr.fields import did_you_mean

        names = tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in self.known:
                hint = did_you_mean(name, self.known) or f"; choose from {', '.join(self.known)}"
                self.fail(f"no {name}{hint}", param, ctx)
        if len(set(names)) != len(names):
            self.fail(f"{value!r} names one twice", param, ctx)
        return names


@click.command()
@config_options
@click.option(
    "--space",
    metavar="NAME|FILE",
    help="Search space: default, wide, methods, or a YAML file (docs/sweeps.md).  [default: default]",
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Number of trials.  [default: 20]")
@click.option("--sampler", type=click.Choice(_SAMPLERS), help="Sampler that suggests trials.  [default: tpe]")
@click.option(
    "--objective",
    "objectives",
    type=Names(_OBJECTIVES),
    metavar="NAMES",
    help="Objectives, with commas between: auroc (validation images), latency, parameters.  [default: auroc]",
)
@click.option(
    "--prune/--no-prune",
    default=None,
    help="Stop unpromising trials early (successive halving).  [default: prune]",
)
@click.option(
    "--start",
    "starts",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="Trial to begin with, such as flow.blocks=4,flow.hidden=128. Repeatable.",
)
@click.option(
    "--base-trial/--no-base-trial",
    default=None,
    help="Begin with the base configuration, and choose it unless another is better by more than two "
    "standard errors.  [default: base-trial]",
)
@click.option(
    "--warm-start", metavar="SWEEP", help="Earlier sweep to learn from: its folder, or its name in MLflow."
)
@click.option("--name", metavar="NAME", help="Name of the sweep and its folder.  [default: the time]")
@click.option("--resume", metavar="NAME", help="Sweep to resume; with --trials a finished one too.")
@running_options("trial", auto="; gpu=auto measures the first")
@json_option
def sweep(resolved: Any, resume: str | None, address: str | None, as_json: bool, **asked: Any) -> int:
    """Search a space of configurations; score the chosen one on the test set, once.

    The base configuration is the first trial, and is chosen where validation data cannot tell a better one.
    Features that any trial needs are extracted first, in as few passes as they take. Trials share them, and
    flows. Ctrl-C stops after a checkpoint; --resume goes on, also after the machine went down.
    """
    from tune.records.parent import table_alone
    from tune.search.plan import SweepPlan
    from tune.search.report import headline
    from tune.search.sweep import execute_sweep, find_sweep, new_sweep

    if resume is None:
        plan = _new_plan(resolved, asked)
        summary = new_sweep(plan, address=address)
    else:
        paths = find_sweep(resume, resolved.config.output)
        given = [option for name, option in _SETTLED.items() if asked[name] not in (None, ())]
        given += settings_given(resolved, but=("output",))
        if given:
            raise click.UsageError(
                "a sweep goes on as it was begun; with --resume leave out "
                f"{', '.join(given)}, or begin another"
            )
        plan = _changed(SweepPlan.read(paths.plan), asked)
        summary = execute_sweep(plan, paths, address=address)
    from nfbmr.trackers import ui_url
    from tune.records.paths import SweepPaths

    hint = ui_url(plan.config.tracking, SweepPaths(Path(summary.folder)).journal)
    text = headline(summary)
    text = text if hint is None else f"{text}\n  MLflow      {hint}"
    text = text if summary.failures is None else f"{text}\n  FAILED      {summary.failures}"
    if plan.trials <= TABLE_ROWS:
        text = f"{table_alone(Path(summary.table).read_text(encoding='utf-8'))}\n{text}"
    emit(summary.as_json(), as_json=as_json, text=text)
    return 0


def _new_plan(resolved: Any, asked: Mapping[str, Any]) -> Any:
    """The plan that the options ask for."""
    from tune.execution.method_settings import chosen_layer
    from tune.execution.resources import Resources
    from tune.search.plan import SweepPlan
    from tune.search.space import Space
    from tune.search.space_checks import check_space

    name = name_of(asked["name"], "sweep")
    space = Space.load(asked["space"] or "default")
    objectives = asked["objectives"] or ("auroc",)
    several = len(objectives) > 1
    if several and asked["prune"]:
        raise click.UsageError("several objectives cannot be pruned by one of them: leave out --prune")
    plan = SweepPlan(
        name=name,
        config=resolved.config,
        space=space,
        trials=20,
        objectives=objectives,
        sampler=asked["sampler"] or "tpe",
        prune=not several and asked["prune"] is not False,
        base_trial=asked["base_trial"] is not False,
        warm_start=asked["warm_start"],
        resources=Resources(),
        chosen=tuple(chosen_layer(resolved).values),
    )
    plan = _changed(plan, asked)
    check_space(space, plan.config, plan.chosen)  # before points of it are looked at
    from dataclasses import replace

    return replace(plan, start=tuple(space.point(_point(text)) for text in asked["starts"]))


def _changed(plan: Any, asked: Mapping[str, Any]) -> Any:
    """The plan with what may differ from one call to the next."""
    from dataclasses import replace

    share = asked["resources"] or {}
    given = {
        "concurrent": asked["concurrent"],
        "cpus": share.get("cpu"),
        "gpus": share.get("gpu"),
        "workers": asked["workers_per_trial"],
        "backend": {True: "local", False: "ray", None: None}[asked["local"]],
    }
    resources = replace(
        plan.resources,
        time_budget=asked["time_budget"],
        **{name: value for name, value in given.items() if value is not None},
    )
    return replace(plan, resources=resources, trials=asked["trials"] or plan.trials)


_SETTLED = {
    "space": "--space",
    "sampler": "--sampler",
    "objectives": "--objective",
    "prune": "--prune",
    "starts": "--start",
    "base_trial": "--base-trial",
    "warm_start": "--warm-start",
    "name": "--name",
}


def _point(text: str) -> dict[str, Any]:
    """``flow.blocks=4,features.taps=[blocks.4,blocks.5]`` as keys and values."""
    from nfbmr import yaml_text

    values: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(
                f"{part!r} should read KEY=VALUE, such as flow.blocks=4", param_hint="--start"
            )
        try:
            values[key.strip()] = yaml_text.parse(value.strip()).value
        except yaml_text.YamlError as error:
            raise click.BadParameter(
                f"{part!r}: the value is not YAML ({error})", param_hint="--start"
            ) from error
    return values

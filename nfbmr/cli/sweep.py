"""``nfbmr sweep``: search a space of configurations, and score the best one once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import config_options, emit, json_option
from nfbmr.cli.running import name_of, running_options, settings_given

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
    help="What is searched: default, wide, or a YAML file (docs/sweeps.md). Default: default.",
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="How many trials. Default: 20.")
@click.option("--sampler", type=click.Choice(_SAMPLERS), help="Who suggests. Default: tpe.")
@click.option(
    "--objective",
    "objectives",
    type=Names(_OBJECTIVES),
    metavar="NAMES",
    help="auroc (of the validation images), or several with commas: auroc,latency; auroc,parameters.",
)
@click.option("--prune/--no-prune", default=None, help="End trials early that do worse. Default: do.")
@click.option(
    "--start",
    "starts",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="A point to begin with: flow.blocks=4,flow.hidden=128. Repeatable.",
)
@click.option(
    "--warm-start", metavar="SWEEP", help="Learn from an earlier sweep: its folder, or its name in MLflow."
)
@click.option("--name", metavar="NAME", help="Of the sweep and its folder. Default: the time.")
@click.option("--resume", metavar="NAME", help="Go on with a sweep; with --trials also with a finished one.")
@running_options("trial", auto="; gpu=auto measures the first")
@json_option
def sweep(resolved: Any, resume: str | None, address: str | None, as_json: bool, **asked: Any) -> int:
    """Search a space of configurations; score the best on the test set, once.

    Features that any trial needs are extracted first, in as few passes as they take. Trials share them, and
    flows. Ctrl-C stops after a checkpoint; --resume goes on, also after the machine went down.
    """
    from tune.plan import SweepPlan
    from tune.sweep import carry_out, find_sweep, new_sweep
    from tune.sweep_report import headline

    if resume is None:
        plan = _new_plan(resolved.config, asked)
        summary = new_sweep(plan, address=address)
    else:
        paths = find_sweep(resume, resolved.config.output)
        _refuse_changes(resolved, asked)
        plan = _changed(SweepPlan.read(paths.plan), asked)
        summary = carry_out(plan, paths, address=address)
    from mlflow_server.choice import where_to_look
    from tune.paths import SweepPaths

    hint = where_to_look(plan.config.tracking, SweepPaths(Path(summary["folder"])).journal)
    text = headline(summary)
    text = text if hint is None else f"{text}\n  MLflow      {hint}"
    if plan.trials <= TABLE_ROWS:
        text = f"{Path(summary['table']).read_text(encoding='utf-8')}\n{text}"
    emit(summary, as_json=as_json, text=text)
    return 0


def _new_plan(config: Any, asked: Mapping[str, Any]) -> Any:
    """The plan that the options ask for."""
    from tune.plan import SweepPlan
    from tune.resources import Resources
    from tune.space import Space

    name = name_of(asked["name"], "sweep")
    space = Space.load(asked["space"] or "default")
    objectives = asked["objectives"] or ("auroc",)
    several = len(objectives) > 1
    if several and asked["prune"]:
        raise click.UsageError("several objectives cannot be pruned by one of them: leave out --prune")
    plan = SweepPlan(
        name=name,
        config=config,
        space=space,
        trials=20,
        objectives=objectives,
        sampler=asked["sampler"] or "tpe",
        prune=not several and asked["prune"] is not False,
        warm_start=asked["warm_start"],
        resources=Resources(),
    )
    plan = _changed(plan, asked)
    space.check(config)  # before points of it are looked at
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
        "backend": {True: "here", False: "ray", None: None}[asked["local"]],
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
    "warm_start": "--warm-start",
    "name": "--name",
}


def _refuse_changes(resolved: Any, asked: Mapping[str, Any]) -> None:
    """A sweep that goes on keeps what makes its trials comparable."""
    given = [option for name, option in _SETTLED.items() if asked[name] not in (None, ())]
    given += settings_given(resolved)
    if given:
        raise click.UsageError(
            f"a sweep goes on as it was begun; with --resume leave out {', '.join(given)}, or begin another"
        )


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

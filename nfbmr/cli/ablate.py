"""``nfbmr ablate``: a table of rows, each run with several seeds, and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from nfbmr.cli.options import config_options, emit, json_option
from nfbmr.cli.running import name_of, running_options, settings_given

_SPLIT_SEEDS = ("same", "vary")


def _list(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from tune.lattice import named_tables

    names = [CompletionItem(name) for name in named_tables() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("table", required=False, metavar="[TABLE]", shell_complete=_complete)
@config_options
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", help="How many, from --seed on. Default: 3."
)
@click.option(
    "--categories", callback=_list, metavar="A,B,...", help="Of the data set; all of them by default."
)
@click.option(
    "--split-seeds",
    type=click.Choice(_SPLIT_SEEDS),
    help="Whether all seeds share one split, or each draws its own. Default: same.",
)
@click.option(
    "--name", metavar="NAME", help="Of the ablation and its folder. Default: the time and the table's."
)
@click.option("--resume", metavar="NAME", help="Go on with an ablation, also with more --seeds.")
@running_options("cell")
@json_option
def ablate(resolved: Any, table: str | None, resume: str | None, as_json: bool, **asked: Any) -> int:
    """Run every row of TABLE with several seeds, and say what tells the rows apart.

    TABLE is a named table (paper-table5) or a YAML file of rows (docs/ablations.md). Rows share features,
    and flows where they can. Every cell scores its test set once; nothing is chosen among rows. Ctrl-C stops
    after a checkpoint, and --resume goes on; with more --seeds only the new ones are run.
    """
    from nfbmr.cli.ending import emit_despite
    from tune.ablation import ablate as go_on
    from tune.ablation import find_ablation, how_to_go_on, new_ablation
    from tune.ablation_report import failed_cells, headline

    resources = _resources(asked)
    if resume is None:
        if table is None:
            raise click.UsageError("which TABLE? A named one such as paper-table5, or a YAML file")
        plan = _new_plan(table, resolved, asked)
        summary = new_ablation(plan, resources, address=asked["address"])
    else:
        _refuse_changes(table, resolved, asked)
        plan = find_ablation(resume, resolved.config.output).extended(asked["seeds"], asked["categories"])
        from tune.ablation_plan import check_plan

        check_plan(plan)
        summary = go_on(plan, resources, address=asked["address"])
    from mlflow_server.choice import where_to_look

    text, hint = headline(summary), where_to_look(plan.config.tracking, plan.paths.journal)
    text = text if hint is None else f"{text}\n  MLflow    {hint}"
    error = failed_cells(summary, how_to_go_on(plan))
    if error is not None:
        return emit_despite(error, summary, as_json=as_json, text=text)
    emit(summary, as_json=as_json, text=text)
    return 0


def _new_plan(table: str, resolved: Any, asked: Mapping[str, Any]) -> Any:
    from tune.ablation_plan import plan_ablation
    from tune.lattice import load_lattice

    lattice = load_lattice(table)
    name = name_of(asked["name"], lattice.name)
    return plan_ablation(
        lattice,
        resolved,
        name=name,
        categories=asked["categories"],
        seeds=asked["seeds"] or 3,
        split_seeds=asked["split_seeds"] or "same",
    )


def _resources(asked: Mapping[str, Any]) -> Any:
    from tune.resources import Resources

    share = asked["resources"] or {}
    if share.get("gpu") == "auto":
        raise click.BadParameter("gpu=auto is for sweeps: give a number", param_hint="--resources")
    return Resources(
        backend="here" if asked["local"] else "ray",
        concurrent=asked["concurrent"],
        cpus=share.get("cpu", 1.0),
        gpus=share.get("gpu", 0.0),
        workers=asked["workers_per_trial"] or 1,
        time_budget=asked["time_budget"],
    )


def _refuse_changes(table: str | None, resolved: Any, asked: Mapping[str, Any]) -> None:
    """An ablation that goes on keeps what makes its cells comparable."""
    given = [] if table is None else [f"TABLE ({table})"]
    given += [f"--{name.replace('_', '-')}" for name in ("name", "split_seeds") if asked[name] is not None]
    given += settings_given(resolved)
    if given:
        raise click.UsageError(
            f"it goes on as it was begun; with --resume leave out {', '.join(given)}, or begin another"
        )

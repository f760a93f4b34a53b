"""``nfbmr compare``: methods on one's own data, by quality, speed and size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from click.shell_completion import CompletionItem

from nfbmr.cli.options import config_options_but, json_option
from tune.cli.running import cell_resources, emit_table, name_of, refuse_changes, running_options, words


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nfbmr.methods.registry import methods

    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in methods() if name.startswith(last)]


@click.command()
@click.argument("table", required=False, metavar="[TABLE]", type=click.Path(dir_okay=False))
@config_options_but("--method", "--split")
@click.option(
    "--methods",
    callback=words,
    metavar="A,B,...",
    shell_complete=_complete,
    help="Methods (nfbmr methods), named configurations such as differnet-published, or module:attribute. "
    "Default: every method, in the configuration that needs nothing but packages.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="auto, official, legacy, group or random. Repeatable: each is a column.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", help="Number of seeds, from --seed on.  [default: 1]"
)
@click.option(
    "--categories", callback=words, metavar="A,B,...", help="Categories of the data set.  [default: all]"
)
@click.option(
    "--name", metavar="NAME", help="Name of the comparison and its folder.  [default: time and compare]"
)
@click.option("--resume", metavar="NAME", help="Comparison to resume, also with more --seeds or --split.")
@click.option(
    "--measure-again",
    is_flag=True,
    help="With --resume: time everything once more, say on a machine that is idle now.",
)
@running_options("cell")
@json_option
def compare(resolved: Any, table: str | None, resume: str | None, as_json: bool, **asked: Any) -> int:
    """Train and test methods on your own data, and measure what each costs to use.

    It ends in one table (image AUROC with intervals, pixel AUROC and AUPRO where there are masks, training
    time, milliseconds an image, size) and one picture: quality against latency. TABLE, a YAML file of rows as
    nfbmr ablate takes it, compares those instead of methods. Ctrl-C stops after a checkpoint, and --resume
    goes on; docs/compare.md says how things are measured.
    """
    from tune.ablation.ablation import ablate, find_ablation, new_ablation
    from tune.ablation.benchmark_runs import forget_costs
    from tune.ablation.comparison import NAME, comparison_spec, with_costs
    from tune.ablation.plan import check_plan, plan_ablation
    from tune.ablation.report import headline
    from tune.ablation.spec import load_spec

    resources = cell_resources(asked)
    if resume is None:
        if asked["measure_again"]:
            raise click.UsageError("--measure-again needs --resume: a new comparison measures everything")
        if table is not None and asked["methods"] is not None:
            raise click.UsageError("give a TABLE of rows or --methods, not both")
        if table is None:
            spec = comparison_spec(asked["methods"])
        else:
            spec = replace(with_costs(load_spec(table)), name=NAME)
        plan = plan_ablation(
            spec,
            resolved,
            name=name_of(asked["name"], NAME),
            categories=asked["categories"],
            seeds=asked["seeds"] or 1,
            splits=asked["splits"],
            compares=True,
        )
        summary = new_ablation(plan, resources, address=asked["address"])
    else:
        given = [] if table is None else [f"TABLE ({table})"]
        given += [f"--{name}" for name in ("name", "methods") if asked[name] is not None]
        refuse_changes(given, resolved)
        plan = find_ablation(resume, resolved.config.output)
        if not plan.compares:
            raise click.UsageError(
                f"{plan.name} is an ablation: go on with nfbmr ablate --resume {plan.name}"
            )
        plan = plan.extended(asked["seeds"], asked["categories"], asked["splits"])
        check_plan(plan)
        if asked["measure_again"]:
            forget_costs(plan.cells())
        summary = ablate(plan, resources, address=asked["address"])
    return emit_table(summary, plan, headline(summary), as_json=as_json)

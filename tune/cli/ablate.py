"""``nfbmr ablate``: a table of rows, each run with several seeds, and what tells them apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from click.shell_completion import CompletionItem

from nfbmr.cli.options import config_options, json_option
from tune.cli.running import cell_resources, emit_table, name_of, refuse_changes, running_options, words

_SPLIT_SEEDS = ("same", "vary")


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from tune.ablation.spec import named_tables

    names = [CompletionItem(name) for name in named_tables() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("table", required=False, metavar="[TABLE]", shell_complete=_complete)
@config_options
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", help="Number of seeds, from --seed on.  [default: 3]"
)
@click.option(
    "--categories", callback=words, metavar="A,B,...", help="Categories of the data set.  [default: all]"
)
@click.option(
    "--split-seeds",
    type=click.Choice(_SPLIT_SEEDS),
    help="One split for all seeds, or one for each.  [default: same]",
)
@click.option(
    "--as-published",
    is_flag=True,
    help="Give each row its source's own settings (nfbmr methods NAME shows them), which want a GPU.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the ablation and its folder.  [default: time and table]"
)
@click.option("--resume", metavar="NAME", help="Ablation to resume, also with more --seeds.")
@running_options("cell")
@json_option
def ablate(resolved: Any, table: str | None, resume: str | None, as_json: bool, **asked: Any) -> int:
    """Run every row of TABLE with several seeds, and say what tells the rows apart.

    TABLE is a named table (paper-table5) or a YAML file of rows (docs/ablations.md). Rows share features,
    and flows where they can. Every cell scores its test set once; nothing is chosen among rows. Ctrl-C stops
    after a checkpoint, and --resume goes on; with more --seeds only the new ones are run.
    """
    from tune.ablation.ablation import ablate as go_on
    from tune.ablation.ablation import find_ablation, new_ablation
    from tune.ablation.report import headline

    resources = cell_resources(asked)
    if resume is None:
        if table is None:
            raise click.UsageError("which TABLE? A named one such as paper-table5, or a YAML file")
        from tune.ablation.plan import plan_ablation
        from tune.ablation.spec import load_spec

        spec = load_spec(table)
        if asked["as_published"]:
            spec = replace(spec, rows=tuple(row.configured_as_published() for row in spec.rows))
        plan = plan_ablation(
            spec,
            resolved,
            name=name_of(asked["name"], spec.name),
            categories=asked["categories"],
            seeds=asked["seeds"] or 3,
            split_seeds=asked["split_seeds"] or "same",
        )
        summary = new_ablation(plan, resources, address=asked["address"])
    else:
        given = [] if table is None else [f"TABLE ({table})"]
        given += ["--as-published"] if asked["as_published"] else []
        given += [
            f"--{name.replace('_', '-')}" for name in ("name", "split_seeds") if asked[name] is not None
        ]
        refuse_changes(given, resolved)
        plan = find_ablation(resume, resolved.config.output)
        if plan.compares:
            raise click.UsageError(
                f"{plan.name} is a comparison: go on with nfbmr compare --resume {plan.name}"
            )
        plan = plan.extended(asked["seeds"], asked["categories"])
        from tune.ablation.plan import check_plan

        check_plan(plan)
        summary = go_on(plan, resources, address=asked["address"])
    return emit_table(summary, plan, headline(summary), as_json=as_json)

"""``nfbmr track verify``: whether all records of a sweep or an ablation agree, and mending MLflow's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.errors import require_package

_PLAN = click.argument("plan", metavar="NAME|FOLDER")
_OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="FOLDER",
    help="Where sweeps and ablations are looked for by name.",
)
_URI = click.option(
    "--uri", metavar="ADDRESS", help="A tracking server; else the one the runs were recorded for."
)


@click.command()
@_PLAN
@_OUTPUT
@_URI
@click.option("--mend", is_flag=True, help="Send MLflow what it lacks, and close records that are over.")
@json_option
@click.pass_context
def verify(context: click.Context, /, mend: bool, **given: Any) -> None:
    """Compare all records of a sweep or an ablation.

    The run folders, Optuna's journal and MLflow are compared trial by trial: missing and duplicate runs,
    wrong states, missing points of metrics, files and parents. With --mend what MLflow lacks is sent again
    from the folders; of duplicates the younger ones are deleted there.

    Exits with 0 when all records agree in the end and with 1 when something differs still.
    """
    _verify(context, mend=mend, **given)


@click.command(deprecated="use nfbmr track verify --mend")
@_PLAN
@_OUTPUT
@_URI
@click.option("--dry-run", is_flag=True, help="Only compare; change nothing.")
@json_option
@click.pass_context
def reconcile(context: click.Context, /, dry_run: bool, **given: Any) -> None:
    """Compare all records of a sweep or an ablation, and mend MLflow's."""
    _verify(context, mend=not dry_run, **given)


def _verify(
    context: click.Context, *, plan: str, output: Path, uri: str | None, mend: bool, as_json: bool
) -> None:
    require_package("mlflow")
    from tune import verify as verification

    result = verification.verify(verification.find_plan(plan, output), uri=uri, mend=mend)
    emit(result.as_json(), as_json=as_json, text=result.text())
    context.exit(0 if result.agreed else 1)

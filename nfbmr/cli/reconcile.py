"""``nfbmr reconcile``: whether all records of a sweep or an ablation agree, and mending MLflow's."""

from __future__ import annotations

from pathlib import Path

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.errors import MissingPackageError


@click.command()
@click.argument("plan", metavar="NAME|FOLDER")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="FOLDER",
    help="Where sweeps and ablations are looked for by name.",
)
@click.option("--uri", metavar="ADDRESS", help="A tracking server; else the one the runs were recorded for.")
@click.option("--dry-run", is_flag=True, help="Only compare; change nothing.")
@json_option
@click.pass_context
def reconcile(
    context: click.Context, plan: str, output: Path, uri: str | None, dry_run: bool, as_json: bool
) -> None:
    """Compare all records of a sweep or an ablation, and mend MLflow's.

    The run folders, Optuna's journal and MLflow are compared trial by trial: missing and duplicate runs,
    wrong states, missing points of metrics, files and parents. What MLflow lacks is sent again from the
    folders; of duplicates the younger ones are deleted there.

    Exits with 0 when all records agree in the end and with 1 when something differs still.
    """
    import importlib.util

    if importlib.util.find_spec("mlflow") is None:
        raise MissingPackageError("a package is not installed", where="mlflow", fix="pip install mlflow")
    from tune import reconcile as reconciling

    result = reconciling.reconcile(reconciling.find_plan(plan, output), uri=uri, mend=not dry_run)
    emit(result.as_json(), as_json=as_json, text=result.text())
    context.exit(0 if result.agreed else 1)

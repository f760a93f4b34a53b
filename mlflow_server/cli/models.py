"""``nfbmr models``: registered models, their promotion, and whether their thresholds still hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.errors import GateError, require_package

if TYPE_CHECKING:
    from mlflow_server.registry.promotion import AliasChange

_NAME = click.argument("name")
_URI = click.option(
    "--uri", metavar="ADDRESS", help="A tracking server; else MLFLOW_TRACKING_URI, else SQLite here."
)
_ALIAS = click.option("--alias", default="champion", show_default=True, help="Which alias is meant.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Images with their kinds of defect to evaluate both on. Default: as they were evaluated.",
)
_GATES_FILE = click.option(
    "--gates",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML: a gate and its limit a line.",
)
_GATE = click.option(
    "--gate",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set one gate, such as latency=200 or latency=off. Repeatable.",
)


@click.group()
def models() -> None:
    """Register models, compare them, promote them through gates, and roll back."""


@models.command()
@click.argument("run")
@click.option("--name", required=True, help="Of the registered model; made where it is missing.")
@click.option(
    "--backbone",
    type=click.Choice(["included", "referenced"]),
    help="Whether the backbone's weights are in the model, or only their hash. Default: as the run says.",
)
@click.option("--description", default="", help="Of the version.")
@click.option(
    "--export",
    "exports",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="What nfbmr export made of this model, to go with it as an artifact. Repeatable.",
)
@_URI
@json_option
def register(
    run: str,
    name: str,
    backbone: Any,
    description: str,
    exports: tuple[Path, ...],
    uri: str | None,
    as_json: bool,
) -> None:
    """Make the model of a RUN a version of a registered model.

    RUN is a run's folder, a sweep's (its best trial is meant), or the name of a run that the tracking server
    has. What the server lacks of the run is sent first. A model that is registered already stays the version
    it is; exported files are added to it.
    """
    require_package("mlflow")
    from mlflow_server.registry import registering

    done = registering.register(
        run, name, uri=uri, backbone=backbone, description=description, exports=exports
    )
    how = "registered" if done.is_new else "registered already"
    text = f"{how}: {done.version} on {done.address}\n  load it as models:/{done.version}"
    emit(done.as_json(), as_json=as_json, text=text)


@models.command("list")
@_URI
@json_option
def list_(uri: str | None, as_json: bool) -> None:
    """List registered models."""
    require_package("mlflow")
    from mlflow_server.registry.overview import format_list, list_data

    rows = list_data(uri)
    emit({"models": rows}, as_json=as_json, text=format_list(rows))


@models.command()
@_NAME
@_URI
@json_option
def show(name: str, uri: str | None, as_json: bool) -> None:
    """Show a registered model: its versions, what they are worth, and where its aliases point."""
    require_package("mlflow")
    from mlflow_server.registry.overview import format_model, show_data

    model = show_data(name, uri)
    emit(model, as_json=as_json, text=format_model(model))


@models.command()
@click.argument("a")
@click.argument("b")
@_DATA
@_URI
@json_option
def compare(a: str, b: str, data: Path | None, uri: str | None, as_json: bool) -> None:
    """Compare two models, A and B, on the same images.

    Each is NAME/VERSION, NAME@ALIAS, NAME (its champion) or the folder of a finished run.
    """
    require_package("mlflow")
    from mlflow_server.registry.commands import comparison

    compared = comparison(a, b, uri=uri, data=data)
    emit(compared.as_json(), as_json=as_json, text=compared.text())


@models.command()
@_NAME
@click.argument("version")
@_ALIAS
@_GATES_FILE
@_GATE
@_DATA
@click.option("--force", is_flag=True, help="Promote although a gate refuses; needs --reason.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history.")
@_DRY_RUN
@_URI
@json_option
def promote(
    name: str,
    version: str,
    alias: str,
    file: Path | None,
    limits: tuple[str, ...],
    data: Path | None,
    force: bool,
    reason: str,
    dry_run: bool,
    uri: str | None,
    as_json: bool,
) -> int:
    """Let an alias point to a VERSION, if it passes every gate.

    The gates and their limits: nfbmr models gates. Exits with 2, and changes nothing, when one refuses.
    """
    require_package("mlflow")
    from mlflow_server.registry.commands import promotion
    from mlflow_server.registry.gate_settings import gate_settings

    settings = gate_settings(file, limits)
    if force and not reason.strip():
        raise click.UsageError("--force needs --reason TEXT, which stays in the history")
    move = promotion(
        name,
        version.removeprefix("v"),
        uri=uri,
        alias=alias,
        settings=settings,
        data=data,
        reason=reason,
        force=force,
        dry_run=dry_run,
    )
    return _tell(move, as_json)


@models.command()
@_NAME
@_ALIAS
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history.")
@_DRY_RUN
@_URI
@json_option
def rollback(name: str, alias: str, reason: str, dry_run: bool, uri: str | None, as_json: bool) -> int:
    """Let an alias point to the version before the present one again."""
    require_package("mlflow")
    from mlflow_server.registry.commands import return_to_previous

    return _tell(return_to_previous(name, uri=uri, alias=alias, reason=reason, dry_run=dry_run), as_json)


@models.command()
@_NAME
@_ALIAS
@_URI
@json_option
def history(name: str, alias: str, uri: str | None, as_json: bool) -> None:
    """Show every move of an alias: who, when, why, and what the gates said."""
    require_package("mlflow")
    from mlflow_server.registry.overview import format_history, history_data

    entries = history_data(name, alias, uri)
    emit(entries, as_json=as_json, text=format_history(entries))


@models.command()
@_NAME
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="PATH",
    help="Images of new good parts, or folders of them. Repeatable.",
)
@_ALIAS
@click.option("--version", "number", metavar="N", help="A version, instead of the one with the alias.")
@_URI
@json_option
def check(
    name: str, images: tuple[Path, ...], alias: str, number: str | None, uri: str | None, as_json: bool
) -> int:
    """Say whether a model's threshold still holds for new good parts.

    Exits with 0 when it does and with 1 when it does not, or when there are too few images to tell.
    """
    require_package("mlflow")
    from mlflow_server.registry.commands import check_threshold
    from mlflow_server.registry.overview import format_drift

    version, drift = check_threshold(name, images, uri=uri, alias=alias, number=number)
    summary = {"name": name, "version": version.number} | drift.as_json()
    emit(summary, as_json=as_json, text=format_drift(version, drift))
    return 0 if drift.holds else 1


@models.command()
@_GATES_FILE
@_GATE
@json_option
def gates(file: Path | None, limits: tuple[str, ...], as_json: bool) -> None:
    """Print the gates of a promotion and their limits, as a file that --gates takes."""
    from mlflow_server.registry.gate_settings import as_yaml, gate_settings

    settings = gate_settings(file, limits)
    emit(settings.model_dump(mode="json"), as_json=as_json, text=as_yaml(settings))


def _tell(move: AliasChange, as_json: bool) -> int:
    from mlflow_server.registry.overview import format_change
    from nfbmr.cli.ending import emit_despite

    if move.refused and move.entry is None:
        names = ", ".join(finding.gate for finding in move.refused)
        error = GateError(
            f"refused by {names}: {move.refused[0].sentence}",
            where=f"{move.name}/{move.after}",
            fix=f"mend it, change the limit (--gate {move.refused[0].gate}=...), or overrule it: "
            "--force --reason TEXT",
        )
        return emit_despite(error, move.as_json(), as_json=as_json, text=format_change(move))
    emit(move.as_json(), as_json=as_json, text=format_change(move))
    return 0

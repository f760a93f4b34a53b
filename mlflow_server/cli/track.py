"""``nfbmr track``: what the tracking server has, and sending it the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.errors import require_package

if TYPE_CHECKING:
    from mlflow_server.tracking.sync import Sent

_PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
_URI = click.option(
    "--uri", metavar="ADDRESS", help="A tracking server; else the one each run was recorded for."
)


@click.group()
def track() -> None:
    """See what the tracking server has of your runs, and send it the rest."""


@track.command()
@_PATHS
@_URI
@click.option(
    "--again", is_flag=True, help="Send everything once more; what is there already is not doubled."
)
@json_option
@click.pass_context
def sync(
    context: click.Context, paths: tuple[Path, ...], uri: str | None, again: bool, as_json: bool
) -> None:
    """Send what the tracking server has missed of runs, or folders of runs (default: runs).

    Exits with 0 when the server has everything and with 1 when something is missing.
    """
    require_package("mlflow")
    from mlflow_server.tracking import sync as syncing

    journals = syncing.find_journals(paths or (Path("runs"),))
    _tell(context, syncing.sync(journals, uri, again=again), as_json)


@track.command()
@_PATHS
@_URI
@json_option
@click.pass_context
def status(context: click.Context, paths: tuple[Path, ...], uri: str | None, as_json: bool) -> None:
    """Say what the tracking server has taken so far of runs, or folders of runs (default: runs).

    The server is not asked. Exits with 0 when it has taken everything and with 1 when something is missing.
    """
    from mlflow_server.tracking import sync as syncing

    journals = syncing.find_journals(paths or (Path("runs"),))
    _tell(context, [syncing.status(folder, uri) for folder in journals], as_json)


def _tell(context: click.Context, runs: list[Sent], as_json: bool) -> None:
    complete = all(run.complete for run in runs)
    summary = {"complete": complete, "runs": [run.as_json() for run in runs]}
    emit(summary, as_json=as_json, text="\n".join(run.line() for run in runs))
    context.exit(0 if complete else 1)

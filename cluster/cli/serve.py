"""``nfbmr serve``: a model behind HTTP, which follows its alias."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfbmr.cli.options import Size, emit, json_option

if TYPE_CHECKING:
    from nfbmr.model_source import ServedModel


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@click.option(
    "--local", is_flag=True, help="Serve from this process alone, without Ray: less memory, one replica."
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that hold the model; they share the cores.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Requests that a replica takes together.",
)
@click.option(
    "--queue",
    "places",
    type=click.IntRange(1, 10_000),
    default=128,
    show_default=True,
    help="Requests under way at most; the next one is answered with 503.",
)
@click.option(
    "--max-body",
    type=Size(),
    metavar="SIZE",
    default="32MB",
    show_default=True,
    help="Of the largest request.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=50_000_000,
    show_default=True,
    help="Of the largest image; a larger one is not decoded.",
)
@click.option(
    "--watch",
    type=click.FloatRange(0.1),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at where the alias points.",
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(1.0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up where the model is not loaded by then and the machine is busy.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Holds what requests have to show; - reads it from standard input. Else NFBMR_SERVE_TOKEN.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option(
    "--uri", metavar="ADDRESS", help="A tracking server; else MLFLOW_TRACKING_URI, else SQLite here."
)
@json_option
def serve(
    model: str,
    host: str,
    port: int,
    local: bool,
    replicas: int,
    batch: int,
    places: int,
    max_body: int,
    max_pixels: int,
    watch: float,
    start_timeout: float,
    token_file: Path | None,
    device: str,
    uri: str | None,
    as_json: bool,
) -> None:
    """Serve a MODEL over HTTP, with a page to try images on, until Ctrl-C.

    MODEL is NAME or NAME@ALIAS, whose newly promoted versions are taken while it serves; NAME/VERSION; or
    the folder of a finished run. Beyond this machine (--host) it asks for a token.
    """
    from nfbmr.errors import require_package

    for package in ("fastapi", "uvicorn") if local else ("ray",):
        require_package(package, otherwise="" if local else "use --local")
    from cluster.serving import service
    from cluster.serving.settings import TOKEN_VARIABLE, ServingSettings
    from nfbmr.model_source import model_source
    from nfbmr.secret_files import password_from

    settings = ServingSettings(
        host,
        port,
        local=local,
        replicas=replicas,
        batch=batch,
        queue=places,
        max_body=max_body,
        max_pixels=max_pixels,
        watch=watch,
        start_seconds=start_timeout,
        device=device,
        token=password_from(token_file, TOKEN_VARIABLE),
    )

    def ready(address: str, served: ServedModel) -> None:
        summary = {"address": address, "model": served.name, "version": served.version, "replicas": replicas}
        emit(summary, as_json=as_json, text=f"{served} answers at {address} (Ctrl-C ends it)")

    with tempfile.TemporaryDirectory(prefix="nfbmr-serve-") as folder:
        service.serve(model_source(model, Path(folder), uri), settings, on_ready=ready)

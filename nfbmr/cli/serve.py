"""``nfbmr serve``: a model behind HTTP, which follows its alias."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfbmr.cli.options import emit, json_option

if TYPE_CHECKING:
    from cluster.serving.service import ServedModel, Source


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
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
@click.option("--max-body", metavar="SIZE", default="32MB", show_default=True, help="Of the largest request.")
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
    replicas: int,
    batch: int,
    places: int,
    max_body: str,
    max_pixels: int,
    watch: float,
    token_file: Path | None,
    device: str,
    uri: str | None,
    as_json: bool,
) -> None:
    """Serve a MODEL over HTTP, with a page to try images on, until Ctrl-C.

    MODEL is NAME or NAME@ALIAS, whose newly promoted versions are taken while it serves; NAME/VERSION; or
    the folder of a finished run. Beyond this machine (--host) it asks for a token.
    """
    from cluster.serving import service
    from cluster.serving.settings import TOKEN_VARIABLE, ServingSettings
    from mlflow_server.hosting.secret_files import password_from
    from mlflow_server.hosting.settings import bytes_of

    settings = ServingSettings(
        host,
        port,
        replicas,
        batch=batch,
        queue=places,
        max_body=bytes_of(max_body),
        max_pixels=max_pixels,
        watch=watch,
        device=device,
        token=password_from(token_file, TOKEN_VARIABLE),
    )

    def ready(address: str, found: ServedModel) -> None:
        summary = {"address": address, "model": found.name, "version": found.version, "replicas": replicas}
        emit(summary, as_json=as_json, text=f"{found} answers at {address} (Ctrl-C ends it)")

    with tempfile.TemporaryDirectory(prefix="nfbmr-serve-") as folder:
        service.serve(_source(model, uri, Path(folder)), settings, on_ready=ready)


def _source(text: str, uri: str | None, folder: Path) -> Source:
    from nfbmr.paths import RunPaths

    run = RunPaths(Path(text))
    if run.model.exists():
        return _Run(Path(text).resolve())
    if (Path(text) / "model.json").exists():
        return _Run(Path(text).resolve(), Path(text))
    return _Registered(text, uri, folder)


class _Run:
    """A finished run, which stays what it is."""

    def __init__(self, folder: Path, model: Path | None = None) -> None:
        from nfbmr.paths import RunPaths

        self._folder, self._model = folder, model or RunPaths(folder).model

    def newest(self, known: str | None) -> ServedModel | None:
        """The run's model, once."""
        from cluster.serving.service import ServedModel

        return None if known else ServedModel(self._folder.name, None, self._model, str(self._folder))

    def forget(self, model: ServedModel) -> None:
        """It stays where it is."""


class _Registered:
    """A registered model: what its name means at the moment."""

    def __init__(self, text: str, uri: str | None, folder: Path) -> None:
        from mlflow_server.destination import Destination
        from mlflow_server.named import Named
        from mlflow_server.registry import Registry

        self._named = Named.of(text)
        self._registry = Registry(Destination.resolve(uri))
        self._folder = folder
        self._fetched = 0

    def newest(self, known: str | None) -> ServedModel | None:
        """The version, fetched if it is another one."""
        from cluster.serving.service import ServedModel
        from mlflow_server.named import model_in

        version = self._named.version(self._registry)
        key = f"{version} {version.model_id}"
        if key == known:
            return None
        self._fetched += 1
        place = self._registry.download(version, self._folder / f"{self._fetched}")
        return ServedModel(version.name, version.number, model_in(place), key)

    def forget(self, model: ServedModel) -> None:
        """Remove its files."""
        place = next(folder for folder in model.folder.parents if folder.parent == self._folder)
        shutil.rmtree(place, ignore_errors=True)

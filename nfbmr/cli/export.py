"""``nfbmr export``: a model for a runtime that knows no Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import emit, json_option


@click.command()
@click.argument("model")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "openvino"]),
    default="onnx",
    show_default=True,
    help="File format to write.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to write to: a new or an empty one.",
)
@click.option(
    "--resize",
    type=click.Choice(["auto", "inside", "outside"]),
    default="auto",
    show_default=True,
    help="Resize inside the graph, or leave it to the caller; auto: inside for ONNX, outside for OpenVINO.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FOLDER|FILE",
    help="Images to check the export on. Repeatable.  [default: the test images of the run or model]",
)
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Check on N of them only, evenly drawn.")
@click.option(
    "--uri",
    metavar="ADDRESS",
    help="A tracking server, for a MODEL by name; else MLFLOW_TRACKING_URI, else SQLite here.",
)
@json_option
def export(
    model: str,
    form: Any,
    out: Path,
    resize: Any,
    images: tuple[Path, ...],
    limit: int | None,
    uri: str | None,
    as_json: bool,
) -> None:
    """Write a MODEL as ONNX or OpenVINO: pixels in; score, map and decision out.

    MODEL is the folder of a finished run, or a registered model: NAME, NAME@ALIAS or NAME/VERSION.

    The file is run on images and its scores compared with those of nfbmr predict: where one differs by more
    than a thousandth of their spread, nothing is written, and the image is named.
    """
    from nfbmr.cli.predict import model_folder
    from nfbmr.devices import limit_threads
    from nfbmr.export.export_model import export_model, text_of

    limit_threads()
    with model_folder(model, uri) as folder:
        exported = export_model(folder, out, form=form, resize=resize, images=images, limit=limit)
    emit({"folder": exported.folder, **exported.about}, as_json=as_json, text=text_of(exported))

"""``nfbmr predict``: scores, decisions and heat maps of new images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.wording import count, visible


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("predictions"),
    show_default=True,
    help="Folder for the table and the heat maps.",
)
@click.option(
    "--format",
    "ending",
    type=click.Choice(["csv", "json", "parquet"]),
    default="csv",
    show_default=True,
    help="Of the table.",
)
@click.option("--heatmaps/--no-heatmaps", default=True, show_default=True, help="Draw a heat map an image.")
@click.option("--threshold", type=float, help="Reject above this score, instead of the model's threshold.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option(
    "--uri",
    metavar="ADDRESS",
    help="A tracking server, for a MODEL by name; else MLFLOW_TRACKING_URI, else SQLite here.",
)
@json_option
def predict(
    model: str,
    images: tuple[Path, ...],
    out: Path,
    ending: str,
    heatmaps: bool,
    threshold: float | None,
    device: str,
    uri: str | None,
    as_json: bool,
) -> int:
    """Score IMAGES (files or folders) with a MODEL.

    MODEL is the folder of a finished run, or a registered model: NAME, NAME@ALIAS or NAME/VERSION.

    An image that cannot be read is reported, and the others are scored; the exit code is then 2.
    """
    from nfbmr import prediction
    from nfbmr.cli.ending import emit_despite
    from nfbmr.errors import ConfigError, ImageError
    from nfbmr.training.compute import device_of, limit_threads

    limit_threads()
    try:
        device_of(device)
    except ConfigError as unknown:
        raise ConfigError(unknown.what, where="--device", fix="use auto or cpu") from unknown
    drawn = out / "heatmaps" if heatmaps else None
    with _found(model, uri) as folder:
        found = prediction.predict(folder, images, threshold=threshold, heatmaps=drawn, device=device)
    table = out / f"predictions.{ending}"
    prediction.write_predictions(found, table)
    broken = [p for p in found if p.error is not None]
    rejected = sum(p.rejected is True for p in found)
    lines = [
        f"{count(len(found), 'image')}: {rejected} rejected, {len(broken)} unreadable",
        f"  table     {table}",
    ]
    if heatmaps:
        lines.append(f"  heat maps {out / 'heatmaps'}")
    summary = {
        "images": len(found),
        "rejected": rejected,
        "unreadable": len(broken),
        "table": table,
        "predictions": found,
    }
    text = "\n".join(lines)
    if broken:
        listed = "".join(f"\n     {visible(p.path)}: {p.error}" for p in broken)
        error = ImageError(
            f"{count(len(broken), 'image')} could not be read{listed}", fix="repair or remove them"
        )
        return emit_despite(error, summary, as_json=as_json, text=text)
    emit(summary, as_json=as_json, text=text)
    return 0


@contextmanager
def _found(model: str, uri: str | None) -> Iterator[Path]:
    """The folder that is meant, for as long as it is needed: a registered model's is fetched."""
    import re

    path = Path(model)
    if path.exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)?", model):
        yield path
        return
    from mlflow_server.named import fetched

    with fetched(model, uri) as folder:
        yield folder

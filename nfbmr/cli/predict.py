"""``nfbmr predict``: scores, decisions and heat maps of new images."""

from __future__ import annotations

from pathlib import Path

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.wording import count, visible


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
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
@json_option
def predict(
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    ending: str,
    heatmaps: bool,
    threshold: float | None,
    device: str,
    as_json: bool,
) -> int:
    """Score IMAGES (files or folders) with a MODEL (a finished run, or its model folder).

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
    found = prediction.predict(
        model, images, threshold=threshold, heatmaps=out / "heatmaps" if heatmaps else None, device=device
    )
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

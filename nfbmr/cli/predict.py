"""``nfbmr predict``: scores, decisions, heat maps and predicted masks of new images."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfbmr.cli.options import emit, json_option
from nfbmr.text import count, visible

if TYPE_CHECKING:
    from nfbmr.data.video import Every
    from nfbmr.prediction import Prediction

NO_REGIONS = (
    "no regions: the model has no threshold for positions (its method has no map of them, or it was trained "
    "before there was one: train again)"
)
"""Said where regions are asked for and the model has no threshold for positions."""


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--watch",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Score what comes into this folder until Ctrl-C or SIGTERM, and append to the table; begun again "
    "with the same --out it goes on where it was.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("predictions"),
    show_default=True,
    help="Folder for the table, the heat maps and the predicted masks.",
)
@click.option(
    "--format",
    "ending",
    type=click.Choice(["csv", "json", "parquet"]),
    default="csv",
    show_default=True,
    help="File format of the table.",
)
@click.option(
    "--heatmaps/--no-heatmaps", default=True, show_default=True, help="Draw a heat map for each image."
)
@click.option(
    "--masks/--no-masks",
    default=True,
    show_default=True,
    help="Write a predicted mask for each image, black and white, of its own size.",
)
@click.option(
    "--every",
    metavar="N|SECONDS",
    help="Of a video: every N-th frame (10), or one in so many seconds (0.5s).  [default: all]",
)
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
    watch: Path | None,
    out: Path,
    ending: str,
    heatmaps: bool,
    masks: bool,
    every: str | None,
    threshold: float | None,
    device: str,
    uri: str | None,
    as_json: bool,
) -> int:
    """Score IMAGES (files or folders, videos among them) with a MODEL.

    MODEL is the folder of a finished run, or a registered model: NAME, NAME@ALIAS or NAME/VERSION.
    With --watch the images and videos are those that come into a folder.

    What looks like a mask in a folder is left out and named; a file that is given is scored whatever it is.
    An image that cannot be read is reported, and the others are scored; the exit code is then 2.
    A video stands for its frames: a row each, with number and seconds. It is scored as it is decoded; Ctrl-C
    ends it after the frame at hand, and the table has those before.
    """
    from nfbmr.data.files import is_video
    from nfbmr.data.given import sorted_in
    from nfbmr.data.video import Every
    from nfbmr.devices import device_of, limit_threads
    from nfbmr.errors import ConfigError, require_package
    from nfbmr.prediction import predict as predictions_of
    from nfbmr.stopping import StopRequest

    if (watch is None) == (not images):
        raise click.UsageError("give IMAGES, or a folder to --watch")
    videos = any(map(is_video, sorted_in(images, videos=True)[0]))
    if every is not None and not videos and watch is None:
        raise click.UsageError("--every is for videos, and there is none among the images")
    which = None if every is None else Every.of(every)
    if videos:
        require_package("av")
    limit_threads()
    try:
        device_of(device)
    except ConfigError as unknown:
        raise ConfigError(unknown.what, where="--device", fix="use auto or cpu") from unknown
    folders = {"heatmaps": out / "heatmaps" if heatmaps else None, "masks": out / "masks" if masks else None}
    if watch is not None:
        with model_folder(model, uri) as folder:
            return _watched(folder, watch, out, ending, threshold, device, which, folders, as_json=as_json)
    with model_folder(model, uri) as folder:
        stop = StopRequest() if videos else None
        with stop or nullcontext():
            predictions = predictions_of(
                folder,
                images,
                threshold=threshold,
                heatmaps=folders["heatmaps"],
                masks=folders["masks"],
                device=device,
                every=which,
                stop=stop,
            )
            stopped = stop is not None and stop.requested
            return _reported(predictions, images, out, ending, heatmaps, as_json=as_json, stopped=stopped)


def _reported(
    predictions: list[Prediction],
    images: tuple[Path, ...],
    out: Path,
    ending: str,
    heatmaps: bool,
    *,
    as_json: bool,
    stopped: bool = False,
) -> int:
    """Write the table and say what is where; 2 where images could not be read, 130 where it was stopped."""
    from nfbmr.cli.ending import emit_despite
    from nfbmr.data.given import sorted_in
    from nfbmr.errors import ImageError, Interrupted
    from nfbmr.prediction_table import write_predictions

    table = out / f"predictions.{ending}"
    write_predictions(predictions, table)
    broken = [p for p in predictions if p.error is not None]
    rejected = sum(p.rejected is True for p in predictions)
    lines = [
        f"{count(len(predictions), _unit(predictions))}: {rejected} rejected, {len(broken)} unreadable",
        f"  table     {table}",
    ]
    if heatmaps:
        lines.append(f"  heat maps {out / 'heatmaps'}")
    if any(p.mask is not None for p in predictions):
        lines.append(f"  masks     {out / 'masks'}")
    if len(broken) < len(predictions) and all(p.regions is None for p in predictions):
        lines.append(f"  {NO_REGIONS}")
    summary = {
        "images": len(predictions),
        "rejected": rejected,
        "unreadable": len(broken),
        "left_out": sorted_in(images)[1],
        "table": table,
        "predictions": predictions,
    }
    text = "\n".join(lines)
    if stopped:
        early = Interrupted(
            f"stopped after {count(len(predictions), _unit(predictions))}",
            where=table,
            fix="run the command again for all",
        )
        return emit_despite(early, summary, as_json=as_json, text=text)
    if broken:
        listed = "".join(f"\n     {visible(p.path)}: {p.error}" for p in broken)
        error = ImageError(
            f"{count(len(broken), _unit(broken))} could not be read{listed}", fix="repair or remove them"
        )
        return emit_despite(error, summary, as_json=as_json, text=text)
    emit(summary, as_json=as_json, text=text)
    return 0


def _unit(predictions: list[Prediction]) -> str:
    """What rows are of, in a word."""
    from nfbmr.data.files import is_video

    if not any(is_video(p.path) for p in predictions):
        return "image"
    return "frame" if all(p.frame is not None for p in predictions) else "row"


def _watched(
    model: Path,
    watched: Path,
    out: Path,
    ending: str,
    threshold: float | None,
    device: str,
    every: Every | None,
    folders: Mapping[str, Path | None],
    *,
    as_json: bool,
) -> int:
    """Score what comes until a stop is asked for."""
    from nfbmr.prediction import Predictor
    from nfbmr.stopping import StopRequest
    from nfbmr.watching import ResultTable, Watcher, only_watcher, watch

    if ending == "parquet":
        raise click.UsageError("nothing can be appended to Parquet: --watch takes --format csv or json")
    path = out / ("predictions.csv" if ending == "csv" else "predictions.jsonl")
    numbers = {"images": 0, "rejected": 0, "unreadable": 0}
    units: set[str] = set()
    with StopRequest() as stop:
        predictor = Predictor.load(model, device)
        with only_watcher(out):
            table = ResultTable(path, predictor.scorer.components, predictor.detector.digest())
            before = table.rows
            heatmaps, masks = folders["heatmaps"], folders["masks"]
            # A restart may name the folder otherwise; rows name files from the root.
            watcher = Watcher(predictor, watched.absolute(), table, out, threshold, heatmaps, masks, every)
            click.echo(f"watching {watched}: results go to {path}; Ctrl-C ends it", err=True)
            for prediction in watch(watcher, stop):
                numbers["images"] += 1
                units.add(_unit([prediction]))
                numbers["rejected"] += prediction.rejected is True
                numbers["unreadable"] += prediction.error is not None
    unit = "row" if len(units) > 1 else next(iter(units), "image")
    text = (
        f"{count(numbers['images'], unit)}: "
        f"{numbers['rejected']} rejected, {numbers['unreadable']} unreadable\n"
        f"  table     {path} ({table.rows} rows in all)"
    )
    emit({**numbers, "before": before, "table": path}, as_json=as_json, text=text)
    return 0


@contextmanager
def model_folder(model: str, uri: str | None) -> Iterator[Path]:
    """The folder that is meant, for as long as it is needed: a registered model's is fetched."""
    path = Path(model)
    if path.exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)?", model):
        yield path
        return
    from nfbmr.model_source import model_source

    with tempfile.TemporaryDirectory(prefix="nfbmr-model-") as folder:
        registered = model_source(model, Path(folder), uri).poll(None)
        assert registered is not None  # nothing is known yet, so the model is another one
        yield registered.folder

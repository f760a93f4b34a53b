"""``nfbmr evaluate``: a finished run again, with another fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import emit, json_option, resolve_options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--fuse",
    metavar="WEIGHTS",
    help="Weights of the score parts, such as source=1,target=1,norm=0.5; or auto, or paper.",
)
@click.option("--reduction", metavar="NAME", help="auto, max, mean, topk or image.")
@click.option("--smooth", metavar="SIGMA", help="Smoothing of the map, in feature positions.")
@json_option
def evaluate(run: Path, fuse: str | None, reduction: str | None, smooth: str | None, as_json: bool) -> None:
    """Evaluate a finished RUN again: other scores, pictures and report, without training.

    The threshold, and whatever is left to be chosen, come from validation data. The run's own results stay.
    """
    from nfbmr.cli.results import headline
    from nfbmr.rescoring import evaluate as evaluate_run
    from nfbmr.rescoring import finished, parse_fusion, parts_of

    paths = finished(run)
    given: dict[str, tuple[str, Any]] = {}
    if fuse is not None:
        weights = fuse if fuse in ("auto", "paper") else list(parse_fusion(fuse, parts_of(run)))
        given["scoring.weights"] = ("--fuse", weights)
    if reduction is not None:
        given["scoring.reduction"] = ("--reduction", reduction)
    if smooth is not None:
        given["scoring.smooth"] = ("--smooth", smooth)
    resolved = resolve_options((str(paths.config),), (), given)
    summary = evaluate_run(run, resolved.config.scoring)
    emit(summary, as_json=as_json, text=headline(summary))

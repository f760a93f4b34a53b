"""``nfbmr evaluate``: a finished run again, with another fusion or on another data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import emit, json_option, resolve_options


@click.command()
@click.argument("run")
@click.option(
    "--fuse",
    metavar="WEIGHTS",
    help="Weights of the score components, such as source=1,target=1,norm=0.5; or auto, or paper.",
)
@click.option("--reduction", metavar="NAME", help="auto, max, mean, topk or image.")
@click.option("--smooth", metavar="SIGMA", help="Smoothing of the map, in feature positions.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="Another labelled data set to test the model on, as it is; RUN may then be a registered model.",
)
@click.option("--layout", metavar="NAME", help="With --data: how its folders are read.  [default: auto]")
@click.option("--category", metavar="NAME", help="With --data: which one, where there are several.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --data: folder for the results.  [default: evaluations/ in the run's folder, or here]",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="With --data: feature store to use.  [default: the run's]",
)
@click.option("--device", help="With --data: auto, cpu, cuda, ...  [default: auto]")
@click.option("--uri", metavar="ADDRESS", help="With --data: the tracking server of a registered model.")
@json_option
def evaluate(
    run: str,
    fuse: str | None,
    reduction: str | None,
    smooth: str | None,
    data: Path | None,
    as_json: bool,
    **of_data: Any,
) -> int:
    """Evaluate a finished RUN again: other scores, pictures and report, without training.

    The threshold, and whatever is left to be chosen, come from validation data. The run's own results stay.

    With --data the model is tested on another labelled data set, as it is: nothing is chosen, and everything
    that comes of it lies in a folder of its own. RUN may then be NAME, NAME@ALIAS or NAME/VERSION.
    """
    from nfbmr.cli.results import headline
    from nfbmr.rescoring import evaluate as evaluate_run
    from nfbmr.rescoring import finished, parse_fusion, parts_of

    scores = {"--fuse": fuse, "--reduction": reduction, "--smooth": smooth}
    other = {f"--{name}": value for name, value in of_data.items()}
    given = [option for option, value in (other if data is None else scores).items() if value is not None]
    if given:
        why = "only with --data:" if data is None else "--data takes the model as it is: leave out"
        raise click.UsageError(f"{why} {', '.join(given)}")
    if data is not None:
        return _elsewhere(run, data, as_json=as_json, **of_data)
    folder = Path(run)
    paths = finished(folder)
    settings: dict[str, tuple[str, Any]] = {}
    if fuse is not None:
        weights = fuse if fuse in ("auto", "paper") else list(parse_fusion(fuse, parts_of(folder)))
        settings["scoring.weights"] = ("--fuse", weights)
    if reduction is not None:
        settings["scoring.reduction"] = ("--reduction", reduction)
    if smooth is not None:
        settings["scoring.smooth"] = ("--smooth", smooth)
    resolved = resolve_options((str(paths.config),), (), settings)
    summary = evaluate_run(folder, resolved.config.scoring)
    emit(summary.as_json(), as_json=as_json, text=headline(summary))
    return 0


def _elsewhere(
    run: str,
    data: Path,
    *,
    layout: str | None,
    category: str | None,
    out: Path | None,
    store: Path | None,
    device: str | None,
    uri: str | None,
    as_json: bool,
) -> int:
    """Test the model on another data set; 2 where images of it could not be read."""
    from nfbmr.cli.ending import emit_despite
    from nfbmr.cli.predict import model_folder
    from nfbmr.cli.results import headline, unreadable_images
    from nfbmr.external_evaluation import evaluate_elsewhere

    with model_folder(run, uri) as folder:
        summary = evaluate_elsewhere(
            folder,
            data,
            layout=layout or "auto",
            category=category,
            out=out,
            store=store,
            device=device or "auto",
        )
    error = unreadable_images(summary)
    if error is not None:
        return emit_despite(error, summary.as_json(), as_json=as_json, text=headline(summary))
    emit(summary.as_json(), as_json=as_json, text=headline(summary))
    return 0

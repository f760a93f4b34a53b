"""``nfbmr train``: from a folder of images to an evaluated, tracked model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import config_options, emit, json_option

if TYPE_CHECKING:
    from nfbmr.run import Run
    from nfbmr.tracking import Tracker


@click.command()
@config_options
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of an interrupted run to go on with; other options then do not count.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Share the work among N processes on Ray: in the cluster that RAY_ADDRESS names, else in one "
    "started here. The same batches give the same model, whatever N is; a run may be resumed with another.",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    metavar="G",
    help="GPUs of each worker, or a share of one such as 0.5; none by default. Needs --workers.",
)
@json_option
def train(
    resolved: Any, resume: Path | None, workers: int | None, gpus_per_worker: float | None, as_json: bool
) -> int:
    """Train a model on good images, and evaluate it.

    Features and flows that the store holds are used again. The test set is read once, after every choice.
    """
    import nfbmr
    from mlflow_server.choice import where_to_look
    from nfbmr import run
    from nfbmr.cli.ending import emit_despite
    from nfbmr.cli.results import headline, unreadable_images
    from nfbmr.paths import RunPaths
    from nfbmr.training.stopping import StopRequest

    if gpus_per_worker is not None and workers is None:
        raise click.UsageError("--gpus-per-worker needs --workers")
    if workers is None:
        summary = run.train(resolved.config, resume=resume, tracking=tracker_of)
    else:
        from cluster.training import carry_out

        opened = run.new_run(resolved.config) if resume is None else run.open_run(resume)
        with StopRequest() as stop:
            summary = carry_out(
                opened, tracker_of, stop, workers=workers, gpus_per_worker=gpus_per_worker or 0.0
            )
    text = headline(summary)
    tracking = nfbmr.Config.model_validate(summary["config"]).tracking
    hint = where_to_look(tracking, RunPaths(Path(summary["run_dir"])).journal)
    text = text if hint is None else f"{text}\n  MLflow    {hint}"
    error = unreadable_images(summary)
    if error is not None:
        return emit_despite(error, summary, as_json=as_json, text=text)
    emit(summary, as_json=as_json, text=text)
    return 0


def tracker_of(opened: Run) -> Tracker:
    """The tracker that a run's configuration asks for; workers find it by its name."""
    from mlflow_server.choice import choose

    return choose(opened.config.tracking, opened.paths, opened.run_id)

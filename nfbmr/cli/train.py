"""``nfbmr train``: from a folder of images to an evaluated, tracked model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import config_options, emit, json_option, settings_given

if TYPE_CHECKING:
    from nfbmr.category_runs import CategorySummary
    from nfbmr.config import Config
    from nfbmr.evaluation.summary import RunSummary
    from nfbmr.resolve import Resolved
    from nfbmr.run import Run
    from nfbmr.tracking import Tracker


@click.command()
@config_options
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of an interrupted run to go on with, as it was begun: settings that differ are refused.",
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

    Features and stages that the store holds are used again. The test set is read once, after every choice.
    With --category all each category is trained on in turn, and a table shows them all with their means.
    """
    from nfbmr.progress import working

    with working("starting"):
        from nfbmr import run
    from nfbmr.category_runs import (
        is_category_runs,
        new_category_runs,
        open_category_runs,
        train_categories,
        wants_all,
    )
    from nfbmr.cli.ending import emit_despite
    from nfbmr.cli.results import headline, unreadable_images
    from nfbmr.neighbours import LAUNCHER, load_object
    from nfbmr.paths import RunPaths
    from nfbmr.stopping import StopRequest
    from nfbmr.trackers import ui_url

    if gpus_per_worker is not None and workers is None:
        raise click.UsageError("--gpus-per-worker needs --workers")

    def do(opened: Run) -> RunSummary:
        with StopRequest() as stop:
            if workers is None:
                return run.execute_run(opened, tracker_of, stop)
            execute_run = load_object(LAUNCHER)
            gpus = gpus_per_worker or 0.0
            summary: RunSummary = execute_run(opened, tracker_of, stop, workers=workers, gpus_per_worker=gpus)
            return summary

    if is_category_runs(resume) if resume is not None else wants_all(resolved.config):
        runs = new_category_runs(resolved.config) if resume is None else open_category_runs(resume)
        if resume is not None:
            _refuse_changes(resolved, runs.config, resume, done=False)
        return _all_ended(train_categories(runs, do), as_json=as_json)
    opened = run.new_run(resolved.config) if resume is None else run.open_run(resume)
    if resume is not None:
        _refuse_changes(resolved, opened.config, resume, done=run.finished(opened) is not None)
    summary = do(opened)
    text = headline(summary)
    hint = ui_url(summary.configuration.tracking, RunPaths(Path(summary.run_dir)).journal)
    text = text if hint is None else f"{text}\n  MLflow    {hint}"
    error = unreadable_images(summary)
    if error is not None:
        return emit_despite(error, summary.as_json(), as_json=as_json, text=text)
    emit(summary.as_json(), as_json=as_json, text=text)
    return 0


def _refuse_changes(resolved: Resolved, kept: Config, folder: Path, *, done: bool) -> None:
    """What goes on keeps its settings; one that would change nothing may be repeated.

    Raises:
        ConfigError: A setting differs from what was begun.
    """
    from nfbmr.errors import ConfigError

    changes = settings_given(resolved, kept=kept)
    if changes:
        other = "train anew with them: without --resume"
        raise ConfigError(
            f"{'the run is finished' if done else 'it goes on as it was begun'}, and these settings of the "
            f"command line would not count: {', '.join(changes)}",
            where=folder,
            fix=f"{other}; the run on other images: nfbmr evaluate {folder} --data OTHER"
            if done
            else f"leave them out, or {other}",
        )


def _all_ended(summary: CategorySummary, *, as_json: bool) -> int:
    """Print the table of all categories; 2 where one failed."""
    from nfbmr.cli.ending import emit_despite
    from nfbmr.errors import NfbmrError

    folder = summary.run_dir
    text = f"{Path(summary.table).read_text(encoding='utf-8')}\n  runs      {folder}"
    if not summary.failed:
        emit(summary.as_json(), as_json=as_json, text=text)
        return 0
    listed = "".join(f"\n     {name}: {what}" for name, what in summary.failed.items())
    error = NfbmrError(f"categories failed:{listed}", where=folder, fix=f"nfbmr train --resume {folder}")
    return emit_despite(error, summary.as_json(), as_json=as_json, text=text)


def tracker_of(opened: Run) -> Tracker:
    """The tracker that a run's configuration asks for; workers find it by its name."""
    from nfbmr.trackers import make_tracker

    return make_tracker(opened.config.tracking, opened.paths, opened.run_id)

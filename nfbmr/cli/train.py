"""``nfbmr train``: from a folder of images to an evaluated, tracked model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfbmr.cli.options import config_options, emit, json_option


@click.command()
@config_options
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of an interrupted run to go on with; other options then do not count.",
)
@json_option
def train(resolved: Any, resume: Path | None, as_json: bool) -> int:
    """Train a model on good images, and evaluate it.

    Features and flows that the store holds are used again. The test set is read once, after every choice.
    """
    import nfbmr
    from mlflow_server.choice import choose, where_to_look
    from nfbmr import run
    from nfbmr.cli.ending import emit_despite
    from nfbmr.cli.results import headline, unreadable_images

    summary = run.train(
        resolved.config,
        resume=resume,
        tracking=lambda opened: choose(opened.config.tracking, opened.paths, opened.run_id),
    )
    text = headline(summary)
    hint = where_to_look(nfbmr.Config.model_validate(summary["config"]).tracking)
    text = text if hint is None else f"{text}\n  MLflow    {hint}"
    error = unreadable_images(summary)
    if error is not None:
        return emit_despite(error, summary, as_json=as_json, text=text)
    emit(summary, as_json=as_json, text=text)
    return 0

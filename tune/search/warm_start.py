"""What an earlier sweep found, from its folder or from MLflow, for another sweep to learn from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nfbmr.config import Config
from nfbmr.errors import ConfigError, MissingPackageError
from nfbmr.fields import keys
from nfbmr.layers import set_layer
from nfbmr.resolve import resolve, values_of
from tune.records.children import COPY_OF
from tune.records.paths import SweepPaths
from tune.search.dimension import Settings
from tune.search.plan import SweepPlan
from tune.search.trial_facts import is_copy

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

INCOMPARABLE = ("data", "selection", "seed", "train", "scoring")
"""Sections and keys that change what a validation score means; a difference in them is told."""


class Found(NamedTuple):
    """A finished trial of an earlier sweep.

    Attributes:
        settings: All of its configuration, by dotted key.
        values: Its objectives, in the order of the new sweep's.
        source: Its ``run_id``.
    """

    settings: Settings
    values: tuple[float, ...]
    source: str


def trials_of(source: str, plan: SweepPlan) -> list[Found]:
    """Finished trials of an earlier sweep.

    Args:
        source: Its folder, its name in the same output folder, or its name in MLflow.
        plan: Plan of the new sweep: its objectives, and where its runs are recorded.

    Raises:
        ConfigError: There is no such sweep, or it does not know an objective.
    """
    for folder in (Path(source), plan.config.output / source):
        if SweepPaths(folder).plan.exists():
            trials = list(_in_folder(SweepPaths(folder), plan))
            break
    else:
        trials = list(_in_mlflow(source, plan))
    _tell_differences(trials, plan)
    return trials


def _in_folder(paths: SweepPaths, plan: SweepPlan) -> Iterable[Found]:
    from optuna.trial import TrialState

    from tune.search.plots import load_study

    earlier = SweepPlan.read(paths.plan)
    missing = [name for name in plan.objectives if name not in earlier.objectives]
    if missing:
        raise ConfigError(
            f"it did not measure {', '.join(missing)}", where=f"--warm-start {paths.root}", fix=_ANOTHER
        )
    order = [earlier.objectives.index(name) for name in plan.objectives]
    study = load_study(paths.study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if is_copy(trial):  # the one that it repeats is here
            continue
        config = earlier.config_of(trial.user_attrs["settings"])
        source = trial.user_attrs.get("from", f"{earlier.name}-{trial.number:04d}")
        yield Found(values_of(config), tuple(trial.values[i] for i in order), source)


_ANOTHER = "name another sweep, or leave --warm-start out"


def _in_mlflow(name: str, plan: SweepPlan) -> Iterable[Found]:
    if plan.objectives != ("auroc",):
        raise ConfigError(
            "MLflow has the validation AUROC of trials, and no other objective",
            where=f"--warm-start {name}",
            fix="give the folder of the earlier sweep",
        )
    for run in _children(name, plan.config):
        value = run.data.metrics.get(plan.goals[0].number)
        state = run.data.tags.get("nfbmr.state", "finished")
        copied = COPY_OF in run.data.tags
        if run.info.status == "FINISHED" and state == "finished" and value is not None and not copied:
            assignments = [f"{key}={text}" for key, text in run.data.params.items() if key in keys()]
            config = resolve([set_layer(assignments)]).config
            yield Found(values_of(config), (float(value),), run.data.tags["nfbmr.run_id"])


def _children(name: str, config: Config) -> list[Run]:
    """The runs on the tracking server whose parent is the sweep of this name."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingPackageError(
            "no sweep of this name is here, and MLflow is not installed to look there",
            where=name,
            fix='pip install "nfbmr[mlflow]"',
        ) from error
    from mlflow_server.client import CLIENT_SETTINGS
    from mlflow_server.destination import Destination, without_password
    from mlflow_server.tracking.remote_run import PARENT_LINK, RUN_ID

    for setting, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(setting, value)
    where = Destination.resolve(config.tracking.uri, config.tracking.experiment)
    try:
        client = MlflowClient(tracking_uri=where.uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        quoted = name.replace("'", "")
        parents = client.search_runs(experiments, f"tags.`{RUN_ID}` = '{quoted}'", max_results=1)
        if not parents:
            raise ConfigError(
                "no such sweep in this folder, nor in MLflow",
                where=f"--warm-start {name}",
                fix=f"looked in {config.output} and in {without_password(where.uri)}; give its folder",
            )
        children: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = client.search_runs(
                experiments,
                f"tags.`{PARENT_LINK}` = '{parents[0].info.run_id}'",
                page_token=token or None,
            )
            children.extend(page)
            token = page.token or None
        return children
    except MlflowException as error:
        raise ConfigError(
            f"MLflow cannot be asked ({str(error).splitlines()[0]})",
            where=without_password(where.uri),
            fix="give the folder of the earlier sweep, or try again",
        ) from error


def _tell_differences(trials: list[Found], plan: SweepPlan) -> None:
    """Say which settings, that are not searched, the earlier trials had otherwise."""
    values = values_of(plan.config)
    searched = {key for d in plan.space.dimensions for label in d.corners() for key in d.settings(label)}
    differ = sorted(
        {
            key
            for trial in trials
            for key, value in trial.settings.items()
            if key not in searched and key.startswith(INCOMPARABLE) and values.get(key) != value
        }
    )
    if differ:
        log.warning(
            "warm start: the earlier trials differ in %s; their scores may mean something else",
            ", ".join(differ),
        )

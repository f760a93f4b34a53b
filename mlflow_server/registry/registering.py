"""From a finished run to a version of a registered model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.destination import Destination
from mlflow_server.naming import value_text
from mlflow_server.packaging.exported_files import checked_export, send_export
from mlflow_server.packaging.logged_model import BACKBONE, ModelUploader, is_whole, results_of
from mlflow_server.registry.history import begin
from mlflow_server.registry.registry import Registry, Version, check_name
from mlflow_server.tracking.remote_run import RUN_ID
from mlflow_server.tracking.sync import destination_of, sync
from nfbmr import journal
from nfbmr.errors import RegistryError
from nfbmr.evaluation.summary import Part, Summary, Text
from nfbmr.paths import RunPaths
from nfbmr.records import read_record

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

    from mlflow_server.packaging.packing import Backbone

log = logging.getLogger(__name__)

_DESCRIPTION = (
    "Finds defective parts in photographs: scores how far a part is from the good ones it was trained on."
)


class ChosenRun(Part):
    """Where the chosen trial's run is."""

    run_dir: Text


class ChosenTrial(Summary):
    """Of a sweep's summary what registering it takes; None where no trial finished."""

    WHAT = "summary of a sweep"
    FORMAT = 2  # the sweep's own, which this room does not import

    best: ChosenRun | None = None


@dataclass(frozen=True)
class Registration:
    """A version, and whether this registration made it."""

    version: Version
    is_new: bool
    address: str

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.version.name,
            "version": self.version.number,
            "new": self.is_new,
            "model_id": self.version.model_id,
            "run_id": self.version.run_id,
            "uri": self.address,
            "load": f"models:/{self.version.name}/{self.version.number}",
        }


def register(
    run: str,
    name: str,
    *,
    uri: str | None = None,
    backbone: Backbone | None = None,
    description: str = "",
    exports: Sequence[Path] = (),
) -> Registration:
    """Make a run's model a version of a registered model.

    Args:
        run: The run's folder, or a sweep's, of which the chosen trial is meant; or the run's name, or
            MLflow's name for it, where it is on the server already.
        name: Name of the registered model, made where it is missing.
        uri: The tracking server; by default the one the run was recorded for, else as everywhere.
        backbone: Whether the backbone's weights are in the model; by default as the run's configuration says.
        description: Description of the version.
        exports: Folders that ``nfbmr export`` made of this model: they become artifacts of it.

    Raises:
        RegistryError: The run is not finished, was not recorded, or cannot be sent now; or what was exported
            is another model.
        WeightsError: The backbone's weights were asked for, and cannot be had here.
    """
    check_name(name)
    folder = _of_sweep(Path(run))
    if RunPaths(folder).config.exists():
        destination = _destination(folder, uri)
        registry = Registry(destination)
        checked = [(place, checked_export(place, RunPaths(folder).model)) for place in exports]
        model = _sent(registry, folder, destination, backbone)
        for place, form in checked:
            with registry.asking():
                send_export(registry.client, model.model_id, place, form)
    elif exports:
        raise RegistryError(
            "what was exported can be compared with the run's model alone, whose folder is not here",
            where=run,
            fix="give the run's folder: nfbmr models register FOLDER --name NAME --export DIR",
        )
    else:
        registry = Registry(Destination.resolve(uri))
        model = _logged_model(registry, run, backbone)
    begin(registry, name, _DESCRIPTION)
    with registry.asking():
        source = registry.client.get_run(model.source_run_id or "")
    version, is_new = registry.add(name, model, _tags(source, model), description)
    return Registration(version, is_new, registry.address)


def _of_sweep(folder: Path) -> Path:
    """The folder of a finished sweep's chosen trial; any other folder as it is."""
    summary = RunPaths(folder).summary
    if RunPaths(folder).config.exists() or not summary.is_file():
        return folder
    best = ChosenTrial.read(summary).best
    return folder if best is None else Path(best.run_dir)


def _destination(folder: Path, uri: str | None) -> Destination:
    paths = RunPaths(folder)
    if not (paths.summary.exists() or paths.fitted.exists()):
        raise RegistryError(
            "the run is not finished", where=folder, fix=f"go on with: nfbmr train --resume {folder}"
        )
    if not (paths.journal / journal.FILE).exists():
        raise RegistryError(
            "the run was not recorded, so a server would know nothing of it",
            where=folder,
            fix="run it again with tracking.kind other than none",
        )
    recorded = destination_of(paths.journal)
    if uri is not None or recorded is None:
        return Destination.resolve(uri, recorded.experiment if recorded else "nfbmr")
    return recorded


def _sent(
    registry: Registry, folder: Path, destination: Destination, backbone: Backbone | None
) -> LoggedModel:
    """The model of a run's folder on the server, sent with all that is still missing of the run."""
    paths = RunPaths(folder)
    (sent,) = sync([paths.journal], destination.uri)
    if not sent.mlflow_run_id or sent.waiting:
        raise RegistryError(
            f"the run cannot be sent now ({sent.problem or 'something is still waiting'})",
            where=registry.address,
            fix=f"see what is missing: nfbmr track sync {folder}",
        )
    for refusal in sent.refused:
        log.warning("the server does not take an entry of the run: %s", refusal)
    with registry.asking():
        experiment = registry.client.get_run(sent.mlflow_run_id).info.experiment_id
        uploader = ModelUploader(registry.client, experiment, sent.mlflow_run_id)
        return uploader.put(
            folder, "model", results_of(read_record(paths.journal).metrics), backbone=backbone
        )


def _logged_model(registry: Registry, run: str, backbone: Backbone | None) -> LoggedModel:
    """The model of a run that is known to the server alone."""
    source = _run(registry, run)
    with registry.asking():
        models = registry.client.search_logged_models(
            [source.info.experiment_id], filter_string=f"source_run_id = '{source.info.run_id}'"
        )
    fitting = [
        model
        for model in models
        if is_whole(model) and (backbone is None or model.tags.get(BACKBONE) == backbone)
    ]
    if not fitting:
        raise RegistryError(
            "the run has no such model on the server",
            where=f"{run} on {registry.address}",
            fix="give the run's folder, where it is: nfbmr models register FOLDER --name NAME",
        )
    # The newest: a sweep's winner is logged once more after its test set.
    return max(fitting, key=lambda model: (model.creation_timestamp, model.model_id))


def _run(registry: Registry, run: str) -> Run:
    from mlflow.exceptions import MlflowException

    text = run.replace("\\", "\\\\").replace("'", "\\'")
    with registry.asking():
        try:
            return registry.client.get_run(run)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        experiments = [experiment.experiment_id for experiment in registry.client.search_experiments()]
        runs = registry.client.search_runs(experiments, f"tags.`{RUN_ID}` = '{text}'", max_results=2)
    if not runs:
        raise RegistryError(
            "neither the folder of a run nor a run on the server",
            where=f"{run} on {registry.address}",
            fix="give a folder that nfbmr train made, or a run's name as MLflow shows it",
        )
    return runs[0]


def _tags(run: Run, model: LoggedModel) -> Mapping[str, str]:
    """What is known of a version at a glance: from the run's labels and results."""
    labels = ("run_id", "method", "split", "split_digest", "test_peeked", "known_defects")
    wanted = [f"nfbmr.{label}" for label in labels]
    tags = {name: run.data.tags[name] for name in wanted if name in run.data.tags}
    if run.inputs and run.inputs.dataset_inputs:
        dataset = run.inputs.dataset_inputs[0].dataset
        tags |= {"nfbmr.dataset": dataset.name, "nfbmr.dataset_digest": dataset.digest}
    for metric in ("test/image_auroc", "test/image_auroc_low", "test/image_auroc_high"):
        if metric in run.data.metrics:
            tags[f"nfbmr.{metric.removeprefix('test/')}"] = f"{run.data.metrics[metric]:.4f}"
    tags[BACKBONE] = model.tags.get(BACKBONE, "")
    tags["nfbmr.threshold"] = model.params.get("threshold", "")
    return {name: value_text(value) for name, value in tags.items()}


def run_of(version: Version) -> str:
    """Our own name for the run that a version comes from."""
    return version.tags.get(RUN_ID, version.run_id)

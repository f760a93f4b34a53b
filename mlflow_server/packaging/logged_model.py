"""A run's model on a tracking server: made once, however often it is sent.

It is found by a tag that covers its contents. The server counts it as ready when everything has arrived: its
files, its link to the run, the run's results. Until then a later attempt goes on with it.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.naming import valid_name, value_text
from nfbmr.errors import WeightsError
from nfbmr.paths import RunPaths, read_json
from nfbmr.records import Point

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from mlflow_server.packaging.packing import Backbone

_MODEL_KEY = "nfbmr.model_key"
BACKBONE = "nfbmr.backbone"
"""The tag that says whether a model's backbone is in it."""
_RESULTS = ("test/", "validation/")
_PARAM_LENGTH = 250

logger = logging.getLogger(__name__)


def is_model(run: Path, path: str) -> bool:
    """Whether a folder that a run recorded is its trained method, rather than anything else."""
    return run / path == RunPaths(run).model and (run / path / "model.json").exists()


def is_whole(model: LoggedModel) -> bool:
    """Whether everything of it has arrived."""
    return bool(model.status == "READY")


@dataclass(frozen=True)
class ModelUploader:
    """Where a run's models are on a server.

    Attributes:
        client: Client of the server.
        experiment_id: The run's experiment.
        mlflow_run_id: MLflow's name for the run.
        on_progress: Called whenever the server has answered, and while a model is packed.
    """

    client: MlflowClient
    experiment_id: str
    mlflow_run_id: str
    on_progress: Callable[[], None] = lambda: None

    def find(self, key: str) -> LoggedModel | None:
        """The model with these contents: the oldest, where an attempt was interrupted at a bad moment."""
        query = f"tags.`{_MODEL_KEY}` = '{key}' AND source_run_id = '{self.mlflow_run_id}'"
        models = list(self.client.search_logged_models([self.experiment_id], filter_string=query))
        self.on_progress()
        return min(models, key=lambda model: (model.creation_timestamp, model.model_id), default=None)

    def has(self, run: Path) -> bool:
        """Whether the model of a run's folder is there, whole."""
        from mlflow_server.packaging.packing import backbone_of, key_of

        model = self.find(key_of(run, backbone_of(run)))
        return model is not None and is_whole(model)

    def put(
        self,
        run: Path,
        name: str,
        numbers: Mapping[str, Point],
        *,
        backbone: Backbone | None = None,
    ) -> LoggedModel:
        """Send the model of a run's folder; one that is there already stays as it is.

        Args:
            run: The run's folder.
            name: Name of the model.
            numbers: The run's results, which are the model's as well.
            backbone: Whether its weights are included; by default as the run's configuration says.

        Raises:
            WeightsError: The backbone's weights cannot be had here, and were asked for with `backbone`.
            NfbmrError: The run's folder is damaged.
        """
        from mlflow_server.packaging.packing import backbone_of, key_of

        how = backbone or backbone_of(run)
        key = key_of(run, how)
        model = self.find(key) or self._created(run, name, key, how)
        if is_whole(model):
            return model
        with tempfile.TemporaryDirectory(prefix="nfbmr-model-") as folder:
            packed = Path(folder) / "model"
            self._pack(run, packed, model, how, strict=backbone is not None)
            for file in sorted(file for file in packed.rglob("*") if file.is_file()):
                inner = file.relative_to(packed).parent.as_posix()
                self.client.log_model_artifact(model.model_id, str(file), None if inner == "." else inner)
                self.on_progress()
        self._link(model.model_id)
        self._results(model.model_id, numbers)
        return self.client.finalize_logged_model(model.model_id, "READY")

    def _created(self, run: Path, name: str, key: str, how: Backbone) -> LoggedModel:
        meta = read_json(RunPaths(run).model / "model.json")
        config, scorer = meta["config"], meta["scorer"] or {}
        params = {
            "method": config["method"],
            "seed": config["seed"],
            "backbone": config["features"]["backbone"],
            "features.size": config["features"]["size"],
            "weights_digest": meta["weights_digest"],
            "score parts": meta["parts"],
            "score weights": scorer.get("weights"),
            "reduction": scorer.get("reduction"),
            "threshold": scorer.get("threshold"),
        }
        return self.client.create_logged_model(
            self.experiment_id,
            name=name,
            source_run_id=self.mlflow_run_id,
            tags={_MODEL_KEY: key, BACKBONE: how},
            params={name: value_text(value, _PARAM_LENGTH) for name, value in params.items()},
            model_type=config["method"],
        )

    def _pack(self, run: Path, packed: Path, model: LoggedModel, how: Backbone, *, strict: bool) -> None:
        from mlflow_server.packaging.packing import pack

        try:
            pack(run, packed, backbone=how, about=self._about(model), on_progress=self.on_progress)
        except WeightsError as error:
            if strict:
                raise
            logger.warning("the model of %s is recorded without its backbone's weights: %s", run, error)
            self.client.set_logged_model_tags(model.model_id, {BACKBONE: "referenced"})
            pack(run, packed, backbone="referenced", about=self._about(model), on_progress=self.on_progress)

    def _about(self, model: LoggedModel) -> Any:
        from mlflow.models import Model

        return Model(
            artifact_path=model.artifact_location,
            model_uuid=model.model_id,
            run_id=self.mlflow_run_id,
            model_id=model.model_id,
        )

    def _link(self, model_id: str) -> None:
        """Make it an output of the run. Twice would be an error."""
        from mlflow.entities import LoggedModelOutput

        run = self.client.get_run(self.mlflow_run_id)
        known = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        if model_id not in known:
            self.client.log_outputs(self.mlflow_run_id, [LoggedModelOutput(model_id, step=0)])
        self.on_progress()

    def _results(self, model_id: str, numbers: Mapping[str, Point]) -> None:
        from mlflow.entities import Metric

        run = self.client.get_run(self.mlflow_run_id)
        data = {}  # the data set that the run's results are of, in MLflow's terms
        if run.inputs and run.inputs.dataset_inputs:
            dataset = run.inputs.dataset_inputs[0].dataset
            data = {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
        metrics = [
            Metric(
                valid_name(name),
                point.value,
                point.time,
                point.step,
                model_id=model_id,
                run_id=self.mlflow_run_id,
                **data,
            )
            for name, point in numbers.items()
        ]
        for start in range(0, len(metrics), 500):
            self.client.log_batch(self.mlflow_run_id, metrics=metrics[start : start + 500], synchronous=True)
            self.on_progress()


def results_of(metrics: Mapping[str, list[Point]]) -> dict[str, Point]:
    """Of a run's numbers those that say what its model is worth, the last of each."""
    last = {name: points[-1] for name, points in metrics.items() if name.startswith(_RESULTS)}
    return {name: point for name, point in last.items() if math.isfinite(point.value)}

"""A run's model arrives on the server as one logged model, whatever happens on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_server.destination import Destination
from mlflow_server.packaging.logged_model import BACKBONE, ModelUploader
from mlflow_server.tracking.server_comparison import Server
from mlflow_server.tracking.sync import status, sync
from nfbmr.journal import entries
from nfbmr.paths import RunPaths, read_json
from nfbmr.records import read_record
from nfbmr.run import Run, execute_run, new_run
from nfbmr.stopping import StopRequest
from nfbmr.trackers import make_tracker
from nfbmr.tracking import Tracker


@pytest.fixture
def run(runs: Any, tmp_path: Path) -> Path:
    """A copy of a finished run that nothing was sent of."""
    folder = tmp_path / "run"
    shutil.copytree(runs.first, folder, ignore=shutil.ignore_patterns("sent-*.json"))
    return folder


def models_on(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("nfbmr")
    return list(client.search_logged_models([experiment.experiment_id]))


def files_of(uri: str, model: Any) -> set[str]:
    from mlflow.artifacts import download_artifacts

    root = Path(download_artifacts(model.artifact_location, tracking_uri=uri))
    return {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}


WHOLE = {
    "MLmodel",
    "requirements.txt",
    "scoring_model.py",
    "input_example.json",
    "artifacts/nfbmr.zip",
    "artifacts/model/model.json",
    "artifacts/model/flow.safetensors",
    "artifacts/model/mapping.safetensors",
    "artifacts/model/backbones/source.safetensors",
    "artifacts/evidence/summary.json",
    "artifacts/evidence/scores.parquet",
    "artifacts/evidence/references/references.json",
}


def check_one_model(uri: str, run: Path) -> Any:
    from mlflow import MlflowClient

    (model,) = models_on(uri)
    assert model.status == "READY"
    assert files_of(uri, model) >= WHOLE
    client = MlflowClient(uri)
    source = client.get_run(model.source_run_id)
    assert [output.model_id for output in source.outputs.model_outputs] == [model.model_id]
    summary = read_json(RunPaths(run).summary)
    numbers = {metric.key: metric.value for metric in model.metrics}
    for side in ("test", "validation"):
        for name, estimate in summary["metrics"][side].items():
            if estimate["value"] is not None:
                assert numbers[f"{side}/{name}"] == pytest.approx(estimate["value"])
    assert {metric.dataset_name for metric in model.metrics} == {summary["dataset"]["name"]}
    return model


def test_a_run_that_is_sent_has_its_model(run: Path, uri: str) -> None:
    (sent,) = sync([RunPaths(run).journal], uri)
    assert sent.complete
    model = check_one_model(uri, run)
    assert model.params["method"] == model.model_type == "nf-bmr"
    assert float(model.params["threshold"]) == read_json(RunPaths(run).summary)["threshold"]
    assert model.tags[BACKBONE] == "included"


def test_sending_everything_again_makes_no_second_model(
    run: Path, uri: str, on_server: Callable[..., Any]
) -> None:
    folder = RunPaths(run).journal
    sync([folder], uri)
    first = check_one_model(uri, run)
    (again,) = sync([folder], uri, again=True)
    assert again.complete
    assert check_one_model(uri, run).model_id == first.model_id
    (record,) = on_server(uri, read_record(folder).run_id)
    assert {name: len(points) for name, points in record.metrics.items()} == {
        name: len(points) for name, points in read_record(folder).metrics.items()
    }


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 12, 25, 26, 27, 28])
def test_an_attempt_that_broke_off_is_gone_on_with(run: Path, uri: str, steps: int) -> None:
    """As if the process, or the line, had died after so many steps."""
    folder = RunPaths(run).journal
    (sent,) = sync([folder], uri)
    registered = status(folder, uri)
    client = Server(Destination.resolve(uri))._client
    (whole,) = models_on(uri)
    client.delete_logged_model(whole.model_id)
    left = steps

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("the line is dead")

    experiment = client.get_run(registered.mlflow_run_id).info.experiment_id
    try:
        ModelUploader(client, experiment, sent.mlflow_run_id, step).put(run, "model", {})
    except ConnectionError:
        pass
    else:
        pytest.fail("it has fewer steps than this")
    numbers = {name: points[-1] for name, points in read_record(folder).metrics.items()}
    shelf = ModelUploader(client, experiment, sent.mlflow_run_id)
    first = shelf.put(run, "model", numbers)
    assert shelf.put(run, "model", numbers).model_id == first.model_id
    (model,) = models_on(uri)
    assert model.status == "READY"
    assert files_of(uri, model) >= WHOLE
    assert shelf.has(run)


def test_a_model_that_the_server_lost_is_missed(run: Path, uri: str) -> None:
    from mlflow import MlflowClient

    folder = RunPaths(run).journal
    sync([folder], uri)
    record = read_record(folder)
    server = Server(Destination.resolve(uri))
    assert server.gaps(server.named(record.run_id), record, record.status) == []
    MlflowClient(uri).delete_logged_model(models_on(uri)[0].model_id)
    (gap,) = server.gaps(server.named(record.run_id), record, record.status)
    assert gap.kind == "model"
    sync([folder], uri, again=True)
    assert server.gaps(server.named(record.run_id), record, record.status) == []


def test_a_damaged_model_does_not_hold_up_the_rest(
    run: Path, uri: str, on_server: Callable[..., Any]
) -> None:
    RunPaths(run).summary.write_text("{")
    (sent,) = sync([RunPaths(run).journal], uri)
    assert sent.waiting == 0
    assert len([reason for reason in sent.refused if reason.startswith("model")]) == 1
    (record,) = on_server(uri, sent.run_id)
    assert record.status == "finished"


def trained(config: Any, **options: Any) -> tuple[Run, dict[str, Any]]:
    run = new_run(config)

    def tracking(run: Run) -> Tracker:
        return make_tracker(run.config.tracking, run.paths, run.run_id, patience=60)

    with StopRequest() as stop:
        return run, execute_run(run, tracking, stop, **options).as_json()


@pytest.mark.slow
def test_a_tracked_run_ends_with_its_model_on_the_server(tiny: Callable[..., Any], uri: str) -> None:
    run, _ = trained(tiny(tracking__kind="mlflow", tracking__uri=uri))
    assert status(run.paths.journal).complete
    check_one_model(uri, run.paths.root)


@pytest.mark.slow
def test_models_can_be_left_out_or_be_small(tiny: Callable[..., Any], uri: str) -> None:
    trained(tiny(tracking__kind="mlflow", tracking__uri=uri, tracking__log_model=False))
    assert models_on(uri) == []
    trained(tiny(tracking__kind="mlflow", tracking__uri=uri, tracking__backbone="referenced"))
    (model,) = models_on(uri)
    assert model.tags[BACKBONE] == "referenced"
    assert not any("backbones" in file for file in files_of(uri, model))


@pytest.mark.slow
def test_a_trial_refers_to_its_backbone_until_its_test_set_is_read(
    tiny: Callable[..., Any], uri: str
) -> None:
    config = tiny(tracking__kind="mlflow", tracking__uri=uri)
    run, _ = trained(config, test=False)
    (trial,) = models_on(uri)
    assert trial.tags[BACKBONE] == "referenced"
    assert not [metric.key for metric in trial.metrics if metric.key.startswith("test/")]
    with StopRequest() as stop:
        execute_run(run, lambda r: make_tracker(r.config.tracking, r.paths, r.run_id, patience=60), stop)
    both = models_on(uri)
    assert sorted(model.tags[BACKBONE] for model in both) == ["included", "referenced"]
    (winner,) = (model for model in both if model.tags[BACKBONE] == "included")
    assert "test/image_auroc" in {metric.key for metric in winner.metrics}


@pytest.mark.slow
def test_weights_that_are_gone_leave_a_model_that_refers_to_them(
    tiny: Callable[..., Any], uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import nfbmr
    from nfbmr.features.weights import resolve_weights
    from nfbmr.tensors import write_tensors

    weights = tmp_path / "weights.safetensors"
    write_tensors(weights, resolve_weights("tf_efficientnet_lite0").body)
    run = Path(nfbmr.train(tiny(features__weights=str(weights)))["run_dir"])
    weights.unlink()
    (sent,) = sync([RunPaths(run).journal], uri)
    assert sent.complete
    (model,) = models_on(uri)
    assert (model.status, model.tags[BACKBONE]) == ("READY", "referenced")
    assert "without its backbone" in caplog.text


@pytest.mark.slow
def test_a_server_that_is_down_gets_the_model_later(
    tiny: Callable[..., Any], uri: str, serve: Callable[[str, int], str], free_port: int
) -> None:
    address = f"http://127.0.0.1:{free_port}"
    run = new_run(tiny(tracking__kind="mlflow", tracking__uri=address))
    with StopRequest() as stop:
        execute_run(run, lambda r: make_tracker(r.config.tracking, r.paths, r.run_id, patience=0.5), stop)
    assert run.paths.summary.exists()
    assert [entry.kind for entry in entries(run.paths.journal)].count("model") == 1
    assert not status(run.paths.journal).complete
    serve(uri, free_port)
    (sent,) = sync([run.paths.journal])
    assert sent.complete
    check_one_model(address, run.paths.root)

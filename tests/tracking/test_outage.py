"""A tracking server that dies in the middle of a sweep: nothing stops, and nothing is missing afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mlflow_server.destination import Destination, page
from mlflow_server.tracking.sync import status
from mlflow_server.tracking.upload_queue import UploadQueue
from nfbmr.config import Config, TrackingConfig
from nfbmr.paths import RunPaths
from nfbmr.records import Record
from nfbmr.tracking import FolderTracker
from tests.summaries import run_summary
from tune.execution.trial_spec import TrialResult
from tune.records.parent import ParentRecord
from tune.records.paths import SweepPaths
from tune.verify import verify

OnServer = Callable[..., list[Record]]


def recorded(folder: Path, uri: str, run_id: str, parent_id: str | None = None) -> FolderTracker:
    """A record that is meant for a server, and of which nothing was sent."""
    destination = Destination.resolve(uri).as_fields()
    return FolderTracker(
        folder, run_id=run_id, parent_id=parent_id, system_metrics_every=None, destination=destination
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def courier() -> Iterator[UploadQueue]:
    courier = UploadQueue(every=0.1)
    yield courier
    courier.close(0)


def test_a_courier_brings_what_others_left(
    tmp_path: Path, uri: str, on_server: OnServer, courier: UploadQueue
) -> None:
    for number in range(3):
        folder = tmp_path / str(number) / "tracking"
        tracker = recorded(folder, uri, f"r{number}")
        tracker.metrics({"flow/loss": 0.5}, step=1)
        tracker.finish()
        courier.post(folder)
    assert courier.close(60) == ()
    assert all(on_server(uri, f"r{number}")[0].status == "finished" for number in range(3))


def test_a_courier_waits_for_the_parent(
    tmp_path: Path, uri: str, on_server: OnServer, courier: UploadQueue
) -> None:
    child, parent = tmp_path / "child" / "tracking", tmp_path / "parent" / "tracking"
    recorded(child, uri, "child", "parent").finish()
    courier.post(child)
    wait_for(lambda: bool(on_server(uri, "child")))
    assert courier.waiting == (child,)
    recorded(parent, uri, "parent").finish()
    courier.post(parent)
    assert courier.close(60) == ()
    (record,) = on_server(uri, "child")
    assert record.parent_id == str(on_server(uri, "parent")[0].models["mlflow"])


def test_a_courier_sends_what_is_added_later(tmp_path: Path, uri: str, courier: UploadQueue) -> None:
    folder = tmp_path / "run" / "tracking"
    recorded(folder, uri, "r").finish("killed")
    courier.post(folder)
    wait_for(lambda: courier.waiting == ())
    recorded(folder, uri, "r").finish()
    courier.post(folder)
    assert courier.close(60) == ()
    assert status(folder).waiting == 0


def test_a_courier_does_not_wait_long_for_a_server_that_is_away(
    tmp_path: Path, free_port: int, courier: UploadQueue
) -> None:
    """It would itself go on for ever: that closing returns is the test."""
    folder = tmp_path / "run" / "tracking"
    recorded(folder, f"http://127.0.0.1:{free_port}", "r").finish()
    courier.post(folder)
    assert courier.close(1.0) == (folder,)


def test_a_courier_does_not_wait_for_an_answer_that_never_comes(
    tmp_path: Path, tar_pit: Any, courier: UploadQueue
) -> None:
    folder = tmp_path / "run" / "tracking"
    recorded(folder, tar_pit.address, "r").finish()
    courier.post(folder)
    tar_pit.wait()
    assert courier.close(1.0) == (folder,)


def test_a_record_for_no_server_is_not_the_couriers(tmp_path: Path, courier: UploadQueue) -> None:
    folder = tmp_path / "run" / "tracking"
    FolderTracker(folder, run_id="r", system_metrics_every=None).finish()
    courier.post(folder)
    assert courier.close(1.0) == ()


def test_the_address_of_a_page_opens_the_side_for_model_training() -> None:
    address = page("http://127.0.0.1:5000/", "3", "abc")
    assert address == "http://127.0.0.1:5000/#/experiments/3/runs/abc?workflowType=machine_learning"
    assert "workflowType=machine_learning" in page("http://127.0.0.1:5000/", "3")


class Mlflow:
    """A real tracking server that can be killed and started again on the same database."""

    def __init__(self, folder: Path, database: str, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._folder, self._database, self._port = folder, database, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        from mlflow_server.destination import ui_hint

        log = (self._folder / "server.log").open("ab")
        command = (
            f"exec env {ui_hint(self._database)} --host 127.0.0.1 --port {self._port} --start-timeout 600"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command], cwd=self._folder, stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def answers(self) -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def mlflow(tmp_path: Path, empty_database: Path, free_port: int) -> Iterator[Mlflow]:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    server = Mlflow(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", free_port)
    server.start()
    wait_for(server.answers, 120)
    yield server
    server.kill()


def check_whole(paths: SweepPaths, trials: int) -> None:
    """MLflow has every trial once, each as its folder has it, without any mending."""
    result = verify(paths)
    assert result.agreed, result.text()
    assert result.runs == 1 + trials


@pytest.mark.slow
def test_records_of_a_sweep_outlive_the_server(
    tmp_path: Path, mlflow: Mlflow, connecting: Callable[[], AbstractContextManager[list[int]]]
) -> None:
    config = Config(tracking=TrackingConfig(kind="mlflow", uri=mlflow.address))
    paths = SweepPaths(tmp_path / "runs" / "tiles")
    paths.root.mkdir(parents=True)
    parent = ParentRecord(paths, config)
    parent.begin({"objective": "validation/image_auroc"}, config)
    with connecting() as threads:
        for number in range(12):
            if number == 3:
                mlflow.kill()
            if number == 9:  # six trials were recorded without it, and are all still to be sent
                assert all(status(RunPaths(paths.trial(away)).journal).waiting for away in range(3, 9))
                mlflow.start()
            key = f"{number:04d}"
            run = RunPaths(paths.trial(number))
            tracker = recorded(run.journal, mlflow.address, f"tiles-{key}", "tiles")
            for step in range(20):
                tracker.metrics({"flow/loss": 1 / (step + 1)}, step=step)
            tracker.finish()
            parent.outcome(TrialResult(key, "finished", run_summary()))
    assert threading.get_ident() not in threads
    wait_for(mlflow.answers, 120)
    parent.end({}, "finished")
    check_whole(paths, 12)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "outage", [pytest.param(10.0, id="ten seconds"), pytest.param(120.0, id="two minutes")]
)
def test_a_sweep_goes_on_while_the_server_is_down(
    tiny: Callable[..., Any], mlflow: Mlflow, outage: float
) -> None:
    from tune.execution.resources import Resources
    from tune.search.plan import SweepPlan
    from tune.search.space import Space
    from tune.search.sweep import new_sweep

    plan = SweepPlan(
        name="tiles",
        config=tiny(tracking__kind="mlflow", tracking__uri=mlflow.address, train__validate_every=1),
        space=Space.parse("flow.hidden: {int: [4, 8]}\nmapping.latent: {int: [4, 8]}\n", "test"),
        trials=6,
        sampler="random",
        resources=Resources(backend="local"),
    )
    paths = SweepPaths(plan.config.output / plan.name)

    def disturb() -> None:
        wait_for(RunPaths(paths.trial(1)).fitted.exists, 300)
        mlflow.kill()
        time.sleep(outage)
        mlflow.start()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    summary = new_sweep(plan).as_json()
    disturber.join()
    assert summary["trials"]["finished"] + summary["trials"]["pruned"] == 6
    wait_for(mlflow.answers, 120)
    # Where the sweep was over before the server was back, this is what sends the rest.
    assert verify(paths, mend=True).agreed
    check_whole(paths, 6)

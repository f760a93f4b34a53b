"""A run with several workers is the run it is with one: one process, a gloo group and Ray Train alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from nfbmr.config import Config
from nfbmr.errors import ImageError, Interrupted, Pruned
from nfbmr.evaluation.summary import RunSummary
from nfbmr.records import read_record
from nfbmr.run import Run, execute_run, journal_only, new_run, open_run
from nfbmr.stopping import StopRequest
from nfbmr.tensors import read_tensors

WEIGHTS, SCORES = 1e-5, 1e-3
"""How far weights and scores may differ: sums of fp32 in another order, over some ten steps of Adam; and
latents are stored in half precision."""

pytestmark = [
    # Ray Train's own use of Ray Data.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    # Ray forgets the processes of a cluster that it ends, or that did not start in time.
    pytest.mark.filterwarnings("ignore:subprocess \\d+ is still running:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function Popen:pytest.PytestUnraisableExceptionWarning"
    ),
]

OnEpoch = Callable[..., None]


@dataclass
class Backend:
    """A way to carry out a run; ``on_epoch`` is also given the stop request."""

    name: str
    do: Callable[..., RunSummary]

    def __call__(self, run: Run, *, on_epoch: OnEpoch | None = None, test: bool = True) -> RunSummary:
        return self.do(run, on_epoch, test)


def here(run: Run, on_epoch: OnEpoch | None, test: bool) -> RunSummary:
    stop = StopRequest()
    told = on_epoch and partial(on_epoch, stop=stop)
    return execute_run(run, journal_only, stop, test=test, on_epoch=told)


def in_a_group(workers: Any, folder: Path, on_epoch: OnEpoch | None, test: bool) -> RunSummary:
    stop = StopRequest()
    told = partial(on_epoch, stop=stop) if on_epoch and workers.rank == 0 else None
    return execute_run(open_run(folder), journal_only, stop, test=test, on_epoch=told, workers=workers)


def on_ray(run: Run, on_epoch: OnEpoch | None, test: bool) -> RunSummary:
    from cluster.training.trainer import execute_run as execute_on_ray

    stop = StopRequest()
    told = on_epoch and partial(on_epoch, stop=stop)
    return execute_on_ray(run, journal_only, stop, workers=2, test=test, on_epoch=told)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """A cluster in this process, for all runs of this file."""
    from cluster.connection import connect

    with connect("local", cpus=2) as cluster:
        yield cluster


BACKENDS = ["here", "group", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture
def backend(request: pytest.FixtureRequest, peers: Any) -> Backend:
    if request.param == "here":
        return Backend("here", here)
    if request.param == "group":
        return Backend("group", lambda run, *args: peers(in_a_group, run.paths.root, *args)[0])
    request.getfixturevalue("ray_cluster")
    return Backend("ray", on_ray)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, small: Any) -> Callable[..., Config]:
    """Makes a configuration; all share features, and no flow unless they ask for the same store."""
    few = {"features__compute": "fp32", "train__flow__batch": 5, "train__mapping__batch": 5}
    often = {"train__validate_every": 1, "train__checkpoint_every": 1}
    root = tmp_path_factory.mktemp("workers")
    return lambda **settings: small(root, **(few | often | {"evaluation__heatmaps": 0} | settings))


@pytest.fixture
def run(config: Any, tmp_path: Path) -> Callable[..., Run]:
    """Makes a run of a store that holds nothing, unless another is given."""
    return lambda **settings: new_run(config(**({"store": tmp_path / "store"} | settings)))


@pytest.fixture(scope="module")
def expected(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run as one process does it."""
    whole = new_run(config(store=tmp_path_factory.mktemp("alone")))
    here(whole, None, True)
    return whole


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("flow", "mapping")
        for name, tensor in read_tensors(run.paths.model / f"{part}.safetensors").items()
    }


def scores_of(run: Run) -> dict[tuple[str, str, str], float]:
    rows = pq.read_table(run.paths.scores).to_pylist()
    return {(row["side"], row["name"], row["defect"]): row["score"] for row in rows}


def assert_same_weights(run: Run, expected: Run) -> None:
    weights = weights_of(expected)
    for name, tensor in weights_of(run).items():
        torch.testing.assert_close(tensor, weights[name], atol=WEIGHTS, rtol=0, msg=name)


def assert_same_scores(run: Run, expected: Run) -> None:
    found, scores = scores_of(run), scores_of(expected)
    assert list(found) == list(scores), "in the same order"
    assert found == {key: pytest.approx(score, abs=SCORES) for key, score in scores.items()}


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_workers_give_the_model_and_the_scores_of_one(backend, run, expected):
    reported: list[tuple[str, int]] = []
    made = run()
    summary = backend(made, on_epoch=lambda stage, epoch, metrics, stop: reported.append((stage, epoch)))
    assert_same_weights(made, expected)
    assert_same_scores(made, expected)
    assert backend.name == "group" or reported == [
        ("flow", 1), ("flow", 2), ("flow", 3), ("mapping", 1), ("mapping", 2)
    ]  # fmt: skip
    assert summary.run_id == made.run_id
    assert summary.reused == {"flow": False, "mapping": False}
    record = read_record(made.paths.journal)
    assert record.status == "finished"
    assert [point.step for point in record.metrics["flow/loss"]] == [1, 2, 3]
    assert sorted(path.name for path in made.paths.root.iterdir()) == sorted(
        path.name for path in expected.paths.root.iterdir()
    )
    assert backend(made).as_json() == summary.as_json(), "a finished run is only read"


def stop_in(stage: str, epoch: int) -> OnEpoch:
    def on_epoch(told_stage: str, told_epoch: int, metrics: Any, stop: StopRequest) -> None:
        if (told_stage, told_epoch) == (stage, epoch):
            stop.ask()

    return on_epoch


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_a_run_changes_hands_in_the_middle_of_each_stage(backend, run, expected):
    """Begun with these workers, gone on with by one process, and finished by these workers again."""
    made = run()
    for do, stage in ((backend, "flow"), (Backend("here", here), "mapping")):
        with pytest.raises(Interrupted) as caught:
            do(made, on_epoch=stop_in(stage, 1), test=False)
        assert caught.value.exit_code == 130
        assert str(made.paths.root) in str(caught.value)
        assert read_record(made.paths.journal).status == "killed"
    summary = backend(open_run(made.paths.root), test=False)
    assert_same_weights(made, expected)
    assert summary.selection.epochs == {"flow": 3, "mapping": 2}
    assert read_record(made.paths.journal).status == "finished"
    assert not made.paths.summary.exists(), "the test set is not read"


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_an_error_in_a_worker_is_the_users_error(backend, run, textures, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(textures, data)
    first, second, *_ = sorted(data.glob("*/train/good/*.png"))
    first.write_text("not an image")
    second.write_text("nor this")
    made = run(data__path=str(data))
    with pytest.raises(ImageError) as caught:
        backend(made)
    assert first.name in caught.value.what
    assert second.name in caught.value.what
    assert "nfbmr data inspect" in caught.value.fix
    assert read_record(made.paths.journal).status == "failed"


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_a_pruned_run_is_pruned(backend, run):
    def prune(stage: str, epoch: int, metrics: Any, stop: StopRequest) -> None:
        if (stage, epoch) == ("flow", 2):
            raise Pruned("others do better")

    made = run()
    with pytest.raises(Pruned, match="others do better"):
        backend(made, on_epoch=prune, test=False)
    record = read_record(made.paths.journal)
    assert record.status == "pruned"
    assert [point.step for point in record.metrics["flow/loss"]] == [1, 2]


# --- Ray alone


def training_workers() -> list[Any]:
    """The processes of Ray Train's workers, which are below this one."""
    import psutil

    below = psutil.Process().children(recursive=True)
    return [one for one in below if any("RayTrainWorker" in word for word in _words(one))]


def _words(process: Any) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_killed_in_each_stage_costs_nothing_but_time(run):
    killed: list[str] = []

    def on_epoch(stage: str, epoch: int, metrics: Any, stop: StopRequest) -> None:
        if epoch == 2 and stage not in killed:
            killed.append(stage)
            victims = training_workers()
            assert len(victims) == 2
            victims[len(killed) % 2].kill()  # rank 0 is one of the two, and either must do

    made = run(train__mapping__epochs=3)
    summary = on_ray(made, on_epoch, True)
    assert killed == ["flow", "mapping"]
    assert summary.tested
    record = read_record(made.paths.journal)
    assert record.status == "finished"
    assert {point.step for point in record.metrics["mapping/loss"]} == {1, 2, 3}
    alone = run(train__mapping__epochs=3, store=made.config.store.parent / "alone")
    here(alone, None, True)
    assert_same_weights(made, alone)
    assert_same_scores(made, alone)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_bug_in_a_worker_is_not_tried_again(run):
    from cluster.training.trainer import execute_run as execute_on_ray

    tried = run().paths.root.parent / "tried"

    def broken(opened: Run) -> Any:
        with tried.open("a") as file:
            file.write("x")
        raise ZeroDivisionError("a bug in a tracker")

    def tracking(opened: Run) -> Any:
        return journal_only(opened) if tried.exists() and tried.stat().st_size else broken(opened)

    with pytest.raises(ZeroDivisionError, match="a bug in a tracker"):
        execute_on_ray(run(), tracking, StopRequest(), workers=2)
    assert tried.read_text() == "x"


def test_gpus_without_workers_are_refused(capsys):
    from nfbmr.cli.main import main

    assert main(["train", "--gpus-per-worker", "1"]) == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(run, tmp_path):
    """As a terminal does it: to the command and everything below it at once."""
    made = run(train__flow__epochs=5000, train__flow__lr=1e-6, train__validate_every=5000)
    program = str(Path(sys.executable).with_name("nfbmr"))
    command = [program, "train", "--workers", "2", "--resume", str(made.paths.root)]
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
    try:
        points: Any = ()
        while len(points) < 3:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
            if made.paths.journal.exists():
                points = read_record(made.paths.journal).metrics.get("flow/loss", ())
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, log.read_text()
    error = json.loads(out)["error"]
    assert error["type"] == "Interrupted"
    assert f"--resume {made.paths.root}" in error["fix"]
    assert read_record(made.paths.journal).status == "killed"
    (flow,) = (made.config.store / "stages").glob("*/checkpoints/last.json")
    assert json.loads(flow.read_text())["meta"]["state"]["epoch"] >= 3


@pytest.mark.slow
def test_workers_extract_side_by_side_and_leave_nothing_to_do(ray_cluster, config, tmp_path):
    from cluster.training.trainer import extract, spare_workers
    from nfbmr.data.pictures import picture_of
    from nfbmr.features import extraction
    from nfbmr.features.store import open_store
    from nfbmr.prepare import read_data

    made = config(store=tmp_path / "store")
    wanted = [made.features, made.features.model_copy(update={"size": 96})]
    folder = tmp_path / "extraction"
    seconds = extract(made, wanted, StopRequest(), workers=2, folder=folder, resume_command="the same")
    assert len(seconds) == 2
    assert not folder.exists()
    _, split = read_data(made)
    pictures = [picture_of(sample) for sample in (*split.train, *split.validation)]
    for features in wanted:
        assert extraction.extract(pictures, features, open_store(made.store)).computed == 0
    assert spare_workers() == 1, "on one machine a process with all threads does as well"

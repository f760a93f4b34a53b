"""One contract, three trackers: nothing, a folder, MLflow on SQLite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlflow_server.tracking.tracker import MLflowTracker
from nfbmr.errors import NfbmrError, TrackingError
from nfbmr.journal import FILE
from nfbmr.records import Record, read_record
from nfbmr.tracking import FolderTracker, NoTracker, Status, Tracker

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

Opener = Callable[..., Tracker]


@dataclass
class Seam:
    """A tracker, and a way to read back what it recorded."""

    name: str
    run: Path
    open: Opener
    read: Callable[[], Record]
    files: Callable[[], dict[str, bytes]]


@pytest.fixture(params=["folder", "mlflow"])
def seam(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    uri: str,
    on_server: Callable[..., list[Record]],
    files_on_server: Callable[[str, str], dict[str, bytes]],
) -> Seam:
    run = tmp_path / "run"
    folder = run / "tracking"

    def open_folder(**kwargs: object) -> Tracker:
        return FolderTracker(folder, run_id="r1", **{"system_metrics_every": None} | kwargs)  # type: ignore[arg-type]

    def open_mlflow(**kwargs: object) -> Tracker:
        return MLflowTracker(folder, run_id="r1", uri=uri, **{"system_metrics_every": None} | kwargs)  # type: ignore[arg-type]

    def on_mlflow() -> Record:
        (record,) = on_server(uri, "r1")
        return record

    def folder_files() -> dict[str, bytes]:
        record = read_record(folder)
        roots = [(path, "/".join(p for p in (inner, path.name) if p)) for path, inner in record.artifacts] + [
            (path, name) for name, path in record.models.items()
        ]
        files = {}
        for path, target in roots:
            for file in [path, *path.rglob("*")]:
                if not file.is_file():
                    continue
                inner = "" if path.is_file() else f"/{file.relative_to(path)}"
                files[f"{target}{inner}"] = file.read_bytes()
        return files

    if request.param == "folder":
        return Seam("folder", run, open_folder, lambda: read_record(folder), folder_files)
    return Seam(
        "mlflow",
        run,
        open_mlflow,
        on_mlflow,
        lambda: files_on_server(uri, str(on_mlflow().models["mlflow"])),
    )


def use_every_verb(tracker: Tracker, folder: Path) -> None:
    file = folder / "a file.txt"
    file.write_text("text")
    tracker.params({"flow": {"blocks": 4}})
    tracker.metrics({"flow/loss": 0.5}, step=1)
    tracker.tags({"nfbmr.method": "nf-bmr"})
    tracker.artifact(file)
    tracker.dataset("tiles", "ab" * 32, "group", "/data/tiles", {"train": 3})
    (folder / "model").mkdir(exist_ok=True)
    tracker.model(folder / "model")


def test_all_of_them_are_trackers(seam: Seam, tmp_path: Path) -> None:
    for tracker in (NoTracker(), seam.open()):
        assert isinstance(tracker, Tracker)
        use_every_verb(tracker, tmp_path)
        tracker.finish("finished")
        tracker.finish("failed")  # a second call changes nothing
    assert seam.read().status == "finished"


def test_no_tracker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = NoTracker()
    tracker.params({"a": 1})
    tracker.metrics({"a": 1.0})
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_flat_and_keep_their_first_value(seam: Seam) -> None:
    tracker = seam.open()
    tracker.params({"flow": {"blocks": 4, "kernels": (3, 5)}, "data": {"path": Path("parts")}, "seed": None})
    tracker.params({"flow": {"blocks": 8}})
    tracker.finish()
    params = {name: str(value) for name, value in seam.read().params.items()}
    assert params["flow.blocks"] == "4"
    assert params["flow.kernels"] == "[3, 5]"
    assert params["data.path"] == "parts"
    assert set(params) == {"flow.blocks", "flow.kernels", "data.path", "seed"}


def test_metrics_keep_steps_times_and_numbers_that_are_not_finite(seam: Seam) -> None:
    tracker = seam.open()
    before = time.time() * 1000
    for epoch in range(5):
        tracker.metrics({"flow/loss": 1.0 / (epoch + 1), "mapping/loss": epoch}, step=epoch)
    tracker.metrics({"test/image_auroc": math.nan})
    tracker.finish()
    metrics = seam.read().metrics
    assert [(p.step, p.value) for p in metrics["flow/loss"]] == [(e, 1.0 / (e + 1)) for e in range(5)]
    assert [p.value for p in metrics["mapping/loss"]] == [0, 1, 2, 3, 4]
    assert all(before - 1000 <= p.time <= time.time() * 1000 for p in metrics["flow/loss"])
    (point,) = metrics["test/image_auroc"]
    assert math.isnan(point.value)
    assert point.step == 0


def test_more_metrics_than_a_request_takes(seam: Seam) -> None:
    tracker = seam.open()
    for step in range(3):
        tracker.metrics({f"part {number}/loss": float(number) for number in range(450)}, step=step)
    tracker.params({f"key{number}": number for number in range(150)})
    tracker.finish()
    record = seam.read()
    assert len(record.metrics) == 450
    assert all(len(points) == 3 for points in record.metrics.values())
    assert len(record.params) == 150


def test_tags_keep_their_last_value(seam: Seam) -> None:
    tracker = seam.open(tags={"nfbmr.split": "group"})
    tracker.tags({"nfbmr.test_peeked": False, "note": "first"})
    tracker.tags({"note": "zweite Größe 划痕"})
    tracker.finish()
    tags = seam.read().tags
    assert tags["nfbmr.split"] == "group"
    assert tags["nfbmr.test_peeked"] == "false"
    assert tags["note"] == "zweite Größe 划痕"


def test_files_folders_and_the_model_are_kept(seam: Seam, tmp_path: Path) -> None:
    tracker = seam.open()
    pictures, model, elsewhere = seam.run / "pictures", seam.run / "model", tmp_path / "elsewhere.txt"
    (pictures / "heat maps").mkdir(parents=True)
    (pictures / "roc.png").write_bytes(b"roc")
    (pictures / "heat maps" / "Größe 'a'.png").write_bytes(b"heat")
    (seam.run / "report.html").write_text("draft")
    model.mkdir()
    (model / "weights.safetensors").write_bytes(b"weights")
    elsewhere.write_text("copied")
    tracker.artifact(seam.run / "report.html")
    tracker.artifact(pictures)
    tracker.artifact(elsewhere, "notes")
    tracker.model(model)
    # What lies outside the run's folder may go; what lies in it may still change.
    elsewhere.unlink()
    tracker.finish()
    files = seam.files()
    assert set(files) >= {
        "report.html",
        "pictures/roc.png",
        "pictures/heat maps/Größe 'a'.png",
        "notes/elsewhere.txt",
        "model/weights.safetensors",
    }
    assert files["notes/elsewhere.txt"] == b"copied"
    assert files["model/weights.safetensors"] == b"weights"


def test_the_data_set_is_named_with_digest_and_split(seam: Seam) -> None:
    tracker = seam.open()
    tracker.dataset("tiles", "0123456789abcdef" * 4, "group", "/data/tiles", {"train": 200, "test": 100})
    tracker.finish()
    (dataset,) = seam.read().datasets
    assert (dataset.name, dataset.split) == ("tiles", "group")
    assert dataset.digest[:32] == "0123456789abcdef" * 2


@pytest.mark.parametrize("status", ["finished", "failed", "killed"])
def test_status_and_times(seam: Seam, status: Status) -> None:
    before = int(time.time() * 1000)
    tracker = seam.open(run_name="a name")
    time.sleep(0.05)
    tracker.finish(status)
    record = seam.read()
    assert (record.status, record.run_name) == (status, "a name")
    assert record.ended is not None
    assert before <= record.started < record.ended <= time.time() * 1000


def test_opening_a_run_again_goes_on_with_it(seam: Seam) -> None:
    first = seam.open()
    first.params({"epochs": 2, "seed": 0})
    first.metrics({"flow/loss": 0.5}, step=0)
    first.finish("killed")
    second = seam.open()
    second.params({"epochs": 4, "seed": 0})
    second.metrics({"flow/loss": 0.4}, step=1)
    second.finish("finished")
    record = seam.read()
    assert [(p.step, p.value) for p in record.metrics["flow/loss"]] == [(0, 0.5), (1, 0.4)]
    assert record.status == "finished"
    assert str(record.params["epochs"]) == "2"


def test_the_machine_is_recorded_also_in_a_short_run(seam: Seam) -> None:
    tracker = seam.open(system_metrics_every=60.0)
    tracker.finish()
    metrics = seam.read().metrics
    assert metrics["system/system_memory_usage_megabytes"][0].value > 10
    assert "system/cpu_utilization_percentage" in metrics


def test_nothing_can_be_added_to_a_closed_record(seam: Seam) -> None:
    tracker = seam.open()
    tracker.finish()
    with pytest.raises(TrackingError, match="closed"):
        tracker.metrics({"late": 1.0})


def test_a_file_that_is_not_there_is_said(seam: Seam) -> None:
    tracker = seam.open()
    with pytest.raises(NfbmrError, match="nothing there"):
        tracker.artifact(seam.run / "missing.png")
    with pytest.raises(NfbmrError, match="outside"):
        tracker.artifact(seam.run / "tracking" / FILE, "../..")
    with pytest.raises(NfbmrError, match="inside it"):
        tracker.artifact(seam.run.parent)
    tracker.finish()

"""A folder's images are scored as they come: once each, whole, and after a restart from where it was."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nfbmr
from nfbmr.cli.main import main
from nfbmr.errors import NfbmrError, OutputError
from nfbmr.prediction import Prediction, Predictor
from nfbmr.stopping import StopRequest
from nfbmr.watching import PATIENCE, ResultTable, Watcher
from tests.data.drawn import good


@pytest.fixture(scope="module")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(nfbmr.train(small(tmp_path_factory.mktemp("run"), method="padim"))["run_dir"])


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor.load(run, "cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    good(folder, 4)
    return sorted(folder.iterdir())


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


def watcher(predictor: Predictor, camera: Path, ending: str = "csv") -> Watcher:
    out = camera / "out"
    table = ResultTable(
        out / f"predictions.{ending}", predictor.scorer.components, predictor.detector.digest()
    )
    return Watcher(predictor, camera, table, out, heatmaps=out / "heatmaps", masks=out / "masks")


def look(watching: Watcher, times: int = 2) -> list[Prediction]:
    return [prediction for _ in range(times) for prediction in watching.look(StopRequest())]


def rows_of(table: Path) -> list[dict[str, Any]]:
    with table.open() as file:
        return list(csv.DictReader(file)) if table.suffix == ".csv" else [json.loads(line) for line in file]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_new_files_are_scored_once_and_a_restart_goes_on(
    ending: str, predictor: Predictor, images: list[Path], camera: Path, run: Path
) -> None:
    watching = watcher(predictor, camera, ending)
    shutil.copy(images[0], camera)
    assert look(watching, 1) == []  # seen for the first time: it may be half written
    (first,) = look(watching, 1)
    assert look(watching, 3) == []
    (camera / "shift2").mkdir()
    shutil.copy(images[1], camera / "shift2")
    (second,) = look(watching)
    shutil.copy(images[2], camera)
    again = watcher(predictor, camera, ending)
    (third,) = look(again, 3)
    rows = rows_of(camera / "out" / f"predictions.{ending}")
    assert [row["path"] for row in rows] == [str(p.path) for p in (first, second, third)]
    expected = nfbmr.predict(run, images[:3])
    assert [float(row["score"]) for row in rows] == pytest.approx([p.score for p in expected], rel=1e-5)
    assert all(Path(row["heatmap"]).exists() for row in rows)
    assert len({row["heatmap"] for row in rows}) == 3


def test_results_may_lie_in_the_watched_folder_and_heat_maps_are_not_scored(
    predictor: Predictor, images: list[Path], camera: Path
) -> None:
    table = ResultTable(camera / "predictions.csv", predictor.scorer.components, predictor.detector.digest())
    watching = Watcher(predictor, camera, table, camera, heatmaps=camera / "heatmaps")
    shutil.copy(images[0], camera)
    assert len(look(watching, 5)) == 1
    assert list((camera / "heatmaps").rglob("*.png"))


def test_rows_of_two_models_are_never_mixed(predictor: Predictor, tmp_path: Path) -> None:
    components = predictor.scorer.components
    for digest in ("a", "a"):
        ResultTable(tmp_path / "predictions.csv", components, digest)
    with pytest.raises(OutputError, match="not the results of this model"):
        ResultTable(tmp_path / "predictions.csv", components, "b")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_name_with_a_line_separator_is_one_row(
    ending: str, predictor: Predictor, images: list[Path], camera: Path
) -> None:
    shutil.copy(images[0], camera / "part\u2028one.png")
    assert len(look(watcher(predictor, camera, ending))) == 1
    assert look(watcher(predictor, camera, ending), 3) == []


def test_a_half_written_file_is_waited_for(predictor: Predictor, images: list[Path], camera: Path) -> None:
    watching, content = watcher(predictor, camera), images[0].read_bytes()
    file = camera / "a.png"
    for end in (0, 200, len(content) // 2):
        file.write_bytes(content[:end])
        assert look(watching, 3) == []
    file.write_bytes(content)
    (whole,) = look(watching)
    assert whole.error is None


def test_what_stays_broken_is_reported_once(predictor: Predictor, camera: Path) -> None:
    watching = watcher(predictor, camera)
    (camera / "a.png").write_bytes(b"no image")
    assert look(watching, PATIENCE) == []
    (broken,) = look(watching, 10)
    assert "not an image" in (broken.error or "")
    (row,) = rows_of(camera / "out" / "predictions.csv")
    assert (row["score"], row["rejected"]) == ("", "")


def test_another_image_of_the_same_name_is_a_new_one(
    predictor: Predictor, images: list[Path], camera: Path
) -> None:
    watching = watcher(predictor, camera)
    shutil.copy(images[0], camera / "a.png")
    (first,) = look(watching)
    shutil.copy(images[1], camera / "a.png")
    os.utime(camera / "a.png", ns=(1, 1))
    (second,) = look(watching)
    assert first.score != second.score
    (camera / "a.png").unlink()
    assert look(watching) == []
    assert len(rows_of(camera / "out" / "predictions.csv")) == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_that_a_crash_cut_off_is_written_anew(
    ending: str, predictor: Predictor, images: list[Path], camera: Path
) -> None:
    for image in images[:2]:
        shutil.copy(image, camera)
    look(watcher(predictor, camera, ending))
    table = camera / "out" / f"predictions.{ending}"
    whole = table.read_bytes()
    table.write_bytes(whole[:-7])
    (again,) = look(watcher(predictor, camera, ending))
    assert again.path == camera / images[1].name
    assert table.read_bytes() == whole


def test_a_table_of_something_else_is_left_alone(predictor: Predictor, camera: Path) -> None:
    table = camera / "out" / "predictions.csv"
    table.parent.mkdir()
    table.write_text("path,score\na.png,1\n")
    with pytest.raises(NfbmrError, match="choose another folder"):
        watcher(predictor, camera)
    assert table.read_text() == "path,score\na.png,1\n"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([], "give IMAGES, or a folder to --watch"),
        (["a.png", "--watch", "b"], "give IMAGES, or a folder to --watch"),
        (["--watch", "b", "--format", "parquet"], "Parquet"),
        (["--watch", "nowhere"], "nowhere\n  -> check the path"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], what: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), "--out", str(tmp_path / "out"), *options]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(
    number: signal.Signals, run: Path, images: list[Path], camera: Path, tmp_path: Path
) -> None:
    shutil.copy(images[0], camera)
    command = [sys.executable, "-m", "nfbmr", "predict", str(run), "--watch", str(camera)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # what it says of each image, as it comes
        if "passed" in line or "rejected" in line:
            break
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["images"] == 1
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 1

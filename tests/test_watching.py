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

import numpy as np
import pytest
from PIL import Image

import nfbmr
from nfbmr.cli.main import main
from nfbmr.data.video import Every
from nfbmr.errors import NfbmrError, OutputError
from nfbmr.prediction import Prediction, Predictor
from nfbmr.stopping import StopRequest
from nfbmr.watching import PATIENCE, VIDEO_PATIENCE, ResultTable, Watcher
from tests.data.drawn import good
from tests.data.filmed import film


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


@pytest.fixture(scope="module")
def video(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part a frame."""
    frames = [np.asarray(Image.open(image).convert("RGB")) for image in images]
    return film(tmp_path_factory.mktemp("film") / "line.mkv", frames * 2)


def looked(watching: Watcher, enough: int) -> list[Prediction]:
    """What looks give until there are so many rows more, and whatever a few looks after them give."""
    found: list[Prediction] = []
    for _ in range(200):
        found += look(watching, 1)
        if len(found) >= enough:
            break
    return found + look(watching, 3)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_video_that_comes_is_scored_as_in_a_folder(
    ending: str, predictor: Predictor, images: list[Path], video: Path, camera: Path, run: Path
) -> None:
    watching = watcher(predictor, camera, ending)
    shutil.copy(images[0], camera)
    shutil.copy(video, camera)
    (first,) = look(watching, VIDEO_PATIENCE)  # a video is let settle for longer than an image
    assert first.frame is None
    frames = looked(watching, 8)
    expected = nfbmr.predict(run, video)
    assert [row.frame for row in frames] == [row.frame for row in expected] == list(range(8))
    rows = rows_of(camera / "out" / f"predictions.{ending}")
    assert [row["path"] for row in rows[1:]] == [str(camera / "line.mkv")] * 8
    assert rows[0]["frame"] in ("", None)
    for row, right in zip(rows[1:], expected, strict=True):
        assert float(row["score"]) == pytest.approx(right.score, rel=1e-5)
        assert float(row["seconds"]) == pytest.approx(right.seconds)
    assert rows[3]["heatmap"].endswith("00003-line-frame000002.png")
    assert len({row["heatmap"] for row in rows}) == len(list((camera / "out/heatmaps").iterdir())) == 9
    assert looked(watcher(predictor, camera, ending), 1) == []  # nothing is left for a restart


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_video_goes_on_after_its_last_row(
    ending: str, predictor: Predictor, video: Path, camera: Path
) -> None:
    shutil.copy(video, camera)
    watching, stop = watcher(predictor, camera, ending), StopRequest()
    assert look(watching, VIDEO_PATIENCE) == []
    before = []
    for prediction in watching.look(stop):
        before.append(prediction.frame)
        if len(before) == 3:
            stop.ask()
    table = camera / "out" / f"predictions.{ending}"
    table.write_bytes(table.read_bytes()[:-7])  # the last line was cut off by a crash
    after = [row.frame for row in looked(watcher(predictor, camera, ending), 6)]
    assert (before, after) == ([0, 1, 2], [2, 3, 4, 5, 6, 7])
    assert [int(row["frame"]) for row in rows_of(table)] == list(range(8))


def test_which_frames_are_looked_at(predictor: Predictor, video: Path, camera: Path) -> None:
    shutil.copy(video, camera)
    watching = watcher(predictor, camera)
    watching.every = Every(frames=3)
    assert [row.frame for row in looked(watching, 3)] == [0, 3, 6]


def test_a_video_that_is_written_on_is_a_new_one(predictor: Predictor, video: Path, camera: Path) -> None:
    watching = watcher(predictor, camera)
    (camera / "line.mkv").write_bytes(video.read_bytes()[:200])
    assert look(watching, VIDEO_PATIENCE) == []
    shutil.copy(video, camera)
    assert look(watching, VIDEO_PATIENCE) == []
    assert [row.frame for row in looked(watching, 8)] == list(range(8))


def test_a_video_that_stays_broken_is_reported_once(predictor: Predictor, camera: Path) -> None:
    watching = watcher(predictor, camera)
    (camera / "a.mp4").write_bytes(b"no video")
    assert look(watching, PATIENCE) == []
    (broken,) = look(watching, 10)
    assert "cannot be decoded" in (broken.error or "")
    assert looked(watcher(predictor, camera), 1) == []


def test_without_what_reads_videos_they_are_named_and_images_are_scored(
    predictor: Predictor,
    images: list[Path],
    video: Path,
    camera: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watching = watcher(predictor, camera)
    shutil.copy(video, camera)
    shutil.copy(images[0], camera)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "av", None)  # as where it is not installed
        (image,) = look(watching, VIDEO_PATIENCE + 5)
    assert image.path == camera / images[0].name
    (warning,) = [message for message in caplog.messages if "line.mkv" in message]
    assert "nfbmr[video]" in warning
    assert len(looked(watching, 8)) == 8


def test_a_table_from_before_videos_gets_their_columns(
    predictor: Predictor, images: list[Path], video: Path, camera: Path
) -> None:
    watching = watcher(predictor, camera)
    shutil.copy(images[0], camera)
    look(watching)
    table = camera / "out/predictions.csv"
    old = [{k: v for k, v in row.items() if k not in ("frame", "seconds")} for row in rows_of(table)]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(old[0]))
        writer.writeheader()
        writer.writerows(old)
    shutil.copy(video, camera)
    looked(watcher(predictor, camera), 8)
    rows = rows_of(table)
    assert [row["frame"] for row in rows] == ["", *map(str, range(8))]
    assert {key: rows[0][key] for key in old[0]} == old[0]


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

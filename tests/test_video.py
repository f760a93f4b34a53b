"""Videos as images: a row a frame, scored as it is decoded."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import nfbmr
from nfbmr.cli.main import main
from nfbmr.data.files import is_video
from nfbmr.data.video import Every, frames_of
from nfbmr.errors import ConfigError, ImageError
from nfbmr.stopping import StopRequest
from tests.data.filmed import RATE, film


@pytest.fixture(scope="module")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(nfbmr.train(small(tmp_path_factory.mktemp("run")))["run_dir"])


@pytest.fixture(scope="module")
def parts(textures: Path) -> list[Path]:
    """Images of good and of defective parts."""
    return sorted(textures.glob("*/test/*/*.png"))[::2]


@pytest.fixture(scope="module")
def line(parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line's camera: a part a frame."""
    frames = [np.asarray(Image.open(part).convert("RGB")) for part in parts]
    return film(tmp_path_factory.mktemp("film") / "line.mkv", frames)


@pytest.mark.parametrize(("every", "step"), [("0.1s", 1), ("0.2s", 2), ("0.7s", 7)])
def test_no_frame_is_passed_over_because_times_are_fractions(every: str, step: int, tmp_path: Path) -> None:
    long = film(tmp_path / "long.mkv", [np.full((16, 16, 3), n, np.uint8) for n in range(150)])
    assert [frame.number for frame in frames_of(long, Every.of(every))] == list(range(0, 150, step))


def test_a_frame_is_scored_as_its_image(run: Path, line: Path, parts: list[Path], tmp_path: Path) -> None:
    predictions = nfbmr.predict(run, [parts[0], line], heatmaps=tmp_path / "maps")
    images = nfbmr.predict(run, parts)
    assert [row.frame for row in predictions] == [None, *range(len(parts))]
    assert [row.path for row in predictions] == [parts[0], *[line] * len(parts)]
    assert [row.seconds for row in predictions[1:]] == pytest.approx([n / RATE for n in range(len(parts))])
    assert [row.score for row in predictions[1:]] == pytest.approx([row.score for row in images], rel=1e-4)
    assert [row.rejected for row in predictions[1:]] == [row.rejected for row in images]
    assert predictions[3].heatmap == tmp_path / "maps" / "00003-line-frame000002.png"
    assert all(row.heatmap.exists() for row in predictions)


def test_the_command_writes_a_row_a_frame(
    run: Path, line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(run), str(line), "--out", str(out), "--every", "0.2s"]) == 0
    assert "3 frames" in capsys.readouterr().out
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "2", "4"]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0.0, 0.2, 0.4])
    assert len(list((out / "masks").iterdir())) == len(list((out / "heatmaps").iterdir())) == 3


def test_tables_of_images_have_no_columns_for_frames(run: Path, parts: list[Path], tmp_path: Path) -> None:
    assert main(["predict", str(run), str(parts[0]), "--out", str(tmp_path), "--no-heatmaps"]) == 0
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0].split(",")
    assert not {"frame", "seconds"} & set(header)


def test_what_cannot_be_decoded_is_a_row_and_the_others_are_scored(
    run: Path, line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        container.mux(stream.encode(silence()))
    command = ["predict", str(run), str(broken), str(sound), str(line), "--every", "4", "--json"]
    assert main([*command, "--out", str(tmp_path / "out"), "--no-heatmaps"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["unreadable"] == 2
    assert [row["frame"] for row in answer["predictions"]] == [None, None, 0, 4]
    assert "cannot be decoded" in answer["predictions"][0]["error"]
    assert "no pictures" in answer["predictions"][1]["error"]
    assert str(broken) in answer["error"]["what"]


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
    frame.sample_rate = 8000
    return frame


def test_videos_in_a_folder_come_after_its_images(
    run: Path, line: Path, parts: list[Path], tmp_path: Path
) -> None:
    shift = tmp_path / "shift" / "camera 2"
    shift.mkdir(parents=True)
    shutil.copy(line, shift / "z.mkv")
    (shift / ".hidden.mkv").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "shift"), "--every", "3", "--out", str(out)]) == 0
    with (out / "predictions.csv").open() as file:
        assert [row["frame"] for row in csv.DictReader(file)] == ["0", "3"]
    shutil.copy(parts[0], tmp_path / "shift" / "part.png")
    found = nfbmr.predict(run, tmp_path / "shift", every=Every(frames=3))
    assert [row.frame for row in found] == [None, 0, 3]


def test_a_stop_leaves_the_rows_before_it(
    run: Path, line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StopRequest() as stop:
        stop.ask()
        assert len(nfbmr.predict(run, line, stop=stop)) == 1
    frames = [np.full((32, 32, 3), n % 256, np.uint8) for n in range(3000)]
    long, out = film(tmp_path / "long.mkv", frames), tmp_path / "out"

    def interrupt() -> None:
        while not list(out.glob("heatmaps/*.png")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert main(["predict", str(run), str(long), "--out", str(out), "--no-masks"]) == 130
    assert "stopped after" in capsys.readouterr().err
    with (out / "predictions.csv").open() as file:
        assert 0 < len(list(csv.DictReader(file))) < len(frames)


def test_frames_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    frames = [np.full((16, 16, 3), n, np.uint8) for n in range(50)]
    video = film(tmp_path / "a.mkv", frames)
    first = next(frames_of(video))  # the rest of the file is not needed for it
    video.write_bytes(video.read_bytes()[:4000])
    assert (first.image.pixels == 0).all()
    several = [frame.image for frame in frames_of(video)]
    assert 1 < len(several) < 50


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_video_is_turned_as_it_is_shown(rotation: int, tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255  # upper left
    (frame,) = frames_of(film(tmp_path / "turned.mov", [pixels], rotation=rotation))
    expected = np.asarray(
        Image.fromarray(pixels).rotate(rotation, expand=True)
    )  # Pillow's are counterclockwise
    np.testing.assert_array_equal(frame.image.pixels, expected)


def test_which_frames(line: Path, run: Path, parts: list[Path], tmp_path: Path) -> None:
    assert [frame.number for frame in frames_of(line, Every.of("2"))] == [0, 2, 4]
    assert [frame.number for frame in frames_of(line, Every.of("0.25s"))] == [0, 3, 5]
    for text in ("0", "1.5", "0s", "-1", "often"):
        with pytest.raises(ConfigError, match="neither a number"):
            Every.of(text)
    assert main(["predict", str(run), str(parts[0]), "--every", "2", "--out", str(tmp_path)]) == 2
    assert is_video(Path("a.MP4"))
    (nothing,) = frames_of(tmp_path / "gone.mp4")
    assert isinstance(nothing.image, ImageError)

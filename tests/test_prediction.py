"""Regions and predicted masks of new images: in rows, tables and files."""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nfbmr
from nfbmr.cli.main import main
from nfbmr.cli.predict import NO_REGIONS
from nfbmr.errors import CheckpointError, NfbmrError
from nfbmr.inference import Answering
from nfbmr.paths import RunPaths, read_json, write_json
from nfbmr.prediction_table import write_predictions


@pytest.fixture(scope="module")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose threshold for positions is low enough for regions on most of its images."""
    summary = nfbmr.train(small(tmp_path_factory.mktemp("run"), selection__pixel_false_reject_rate=0.5))
    return Path(summary["run_dir"])


@pytest.fixture(scope="module")
def images(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A defective part, photographed with the camera turned, and a file that is no image."""
    folder = tmp_path_factory.mktemp("new")
    defective = next(f for f in sorted(textures.glob("*/test/*/*.png")) if f.parent.name != "good")
    with Image.open(defective) as image:
        tall = image.convert("RGB").resize((90, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    tall.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    (folder / "broken.png").write_bytes(b"no image")
    shutil.copy(defective, folder / "defective.png")
    return [folder / name for name in ("defective.png", "turned.png", "broken.png")]


def test_regions_masks_and_relative_scores_of_files(run: Path, images: list[Path], tmp_path: Path) -> None:
    predictions = nfbmr.predict(run, images, masks=tmp_path)
    for prediction, size in zip(predictions[:2], ((96, 96), (200, 90)), strict=True):
        assert prediction.regions
        mask = np.asarray(Image.open(prediction.mask))
        assert mask.shape == size
        assert sum(region.area for region in prediction.regions) == mask.sum()
        assert prediction.peak.value >= max(region.peak for region in prediction.regions) - 1e-6
        assert (prediction.relative_score > 1) == prediction.rejected
    assert (
        predictions[2].regions,
        predictions[2].peak,
        predictions[2].mask,
        predictions[2].relative_score,
    ) == (None,) * 4
    other = nfbmr.predict(run, images[:1], threshold=predictions[0].score)
    assert other[0].relative_score == pytest.approx(1.0)


def test_images_in_memory_score_as_their_files_do(run: Path, images: list[Path], tmp_path: Path) -> None:
    file = images[0]
    (expected,) = nfbmr.predict(run, file, heatmaps=tmp_path / "file")
    content = file.read_bytes()
    with Image.open(file) as image:
        pixels = np.asarray(image)
        forms = [pixels, np.stack([pixels, pixels]), image, content, base64.b64encode(content).decode(), file]
        predictions = nfbmr.predict(
            run, [*forms, b"no image"], heatmaps=str(tmp_path / "memory"), masks=tmp_path
        )
    assert [prediction.path for prediction in predictions] == [*[None] * 6, file, None]
    *scored, broken = predictions
    for prediction in scored:
        assert prediction.score == pytest.approx(expected.score, rel=1e-5)
        assert prediction.rejected == expected.rejected
        assert prediction.heatmap is not None
        assert prediction.mask is not None
        drawn, before = (np.asarray(Image.open(one.heatmap), int) for one in (prediction, expected))
        assert np.abs(drawn - before).max() <= 2
    assert "not an image" in (broken.error or "")
    write_predictions(predictions, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as table:
        assert [row["path"] for row in csv.DictReader(table)][-2:] == [str(file), ""]


def test_a_wrong_type_is_refused_before_anything_is_scored(run: Path, images: list[Path]) -> None:
    for wrong in (7, None, [images[0], 7], {"image": images[0]}):
        with pytest.raises(NfbmrError, match="instead of"):
            nfbmr.predict(run, wrong)
    with pytest.raises(NfbmrError, match="no images"):
        nfbmr.predict(run, [])


def test_tables_have_regions_in_each_form(run: Path, images: list[Path], tmp_path: Path) -> None:
    predictions = nfbmr.predict(run, images)
    for ending in ("csv", "json", "parquet"):
        write_predictions(predictions, tmp_path / f"table.{ending}")
    first, regions = predictions[0], predictions[0].regions or ()
    rows = json.loads((tmp_path / "table.json").read_text())
    assert rows[0]["regions"][0]["width"] == regions[0].width
    parquet = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert parquet[0]["regions"] == rows[0]["regions"]
    assert parquet[0]["peak"] == rows[0]["peak"]
    assert rows[2]["regions"] is parquet[2]["regions"] is None
    with (tmp_path / "table.csv").open() as file:
        flat = list(csv.DictReader(file))
    largest = max(regions, key=lambda region: region.area)
    assert flat[0]["regions"] == str(len(regions))
    assert flat[0]["largest_area"] == str(largest.area)
    assert float(flat[0]["peak"]) == pytest.approx(first.peak.value)
    assert flat[2]["regions"] == flat[2]["largest_x"] == ""


def test_a_table_of_unreadable_images_alone(run: Path, images: list[Path], tmp_path: Path) -> None:
    write_predictions(nfbmr.predict(run, images[2:]), tmp_path / "table.parquet")
    assert pq.read_table(tmp_path / "table.parquet").to_pylist()[0]["regions"] is None


def test_rows_for_those_who_ask_from_outside(run: Path, images: list[Path]) -> None:
    answering = Answering.load(RunPaths(run).model)
    plain, _, broken = answering.rows(images)
    (drawn,) = answering.rows(images[:1], heatmaps=True)
    json.dumps([plain, drawn, broken], allow_nan=False)
    assert list(plain) == list(answering.columns)
    assert plain["regions"] == drawn["regions"]
    assert plain["mask"] is None
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn["mask"]))))
    assert mask.sum() == sum(region["area"] for region in drawn["regions"])
    assert broken["regions"] is broken["relative_score"] is None


def test_a_loaded_model_can_be_sent_to_other_processes(run: Path, images: list[Path]) -> None:
    """By pickle, as to a pool's workers, after it has scored here."""
    answering = Answering.load(RunPaths(run).model, device="cpu")
    rows = answering.rows(images)
    assert pickle.loads(pickle.dumps(answering)).rows(images) == rows
    assert copy.deepcopy(answering).rows(images) == rows


def test_a_model_from_before_there_were_masks_goes_on_scoring(
    run: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = tmp_path / "model"
    shutil.copytree(RunPaths(run).model, older)
    meta = read_json(older / "model.json")
    meta["format"] = 2
    for name in ("typical", "pixel_typical", "pixel_threshold"):
        del meta["scorer"][name]
    del meta["config"]["selection"]["pixel_false_reject_rate"]
    write_json(older / "model.json", meta)
    new, old = (nfbmr.predict(model, images[:1])[0] for model in (run, older))
    assert (old.score, old.rejected) == (new.score, new.rejected)
    assert (old.regions, old.peak, old.relative_score) == (None, None, None)
    assert main(["predict", str(older), str(images[0]), "--out", str(tmp_path / "out")]) == 0
    assert NO_REGIONS in capsys.readouterr().out
    assert not (tmp_path / "out" / "masks").exists()
    (row,) = Answering.load(older).rows(images[:1], heatmaps=True)
    assert row["regions"] is row["mask"] is row["relative_score"] is None


def test_a_model_is_not_asked_about_maps_of_another_size(
    run: Path, images: list[Path], tmp_path: Path
) -> None:
    """As where another version brings images to another size for the same backbone."""
    shutil.copytree(run / "model", tmp_path / "model")
    about = read_json(tmp_path / "model" / "model.json")
    about["config"]["features"]["size"] *= 2
    write_json(tmp_path / "model" / "model.json", about)
    with pytest.raises(CheckpointError, match="trained on maps of"):
        nfbmr.predict(tmp_path / "model", images[:1])


def test_the_report_has_a_table_of_regions_and_metrics_of_masks(run: Path) -> None:
    summary = read_json(RunPaths(run).summary)
    assert summary["selection"]["pixel_false_reject_rate"] == 0.5
    assert summary["pixel_threshold"] < 1e9
    for name in ("pixel_f1", "pixel_aupimo", "pixel_false_reject_rate"):
        assert summary["metrics"]["test"][name]["value"] is not None
    text = RunPaths(run).report.read_text()
    assert "Regions of the predicted mask" in text
    assert "Pixel F1 of the predicted mask" in text
    assert "AUPIMO" in text


@pytest.mark.slow
def test_a_method_without_a_map_has_no_regions(small: Any, images: list[Path], tmp_path: Path) -> None:
    from tests.methods.settings import TINY

    settings = {key.replace(".", "__"): value for key, value in TINY["differnet"].items()}
    summary = nfbmr.train(small(tmp_path, method="differnet", **settings))
    assert summary["pixel_threshold"] is None
    (prediction,) = nfbmr.predict(summary["run_dir"], images[:1], masks=tmp_path / "masks")
    assert (prediction.regions, prediction.mask) == (None, None)
    assert prediction.relative_score is not None


def test_a_12_bit_camera_is_seen_as_brightly_as_an_8_bit_one(
    tiny: Any, textures: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "12-bit"
    shutil.copytree(textures, data)
    for path in data.glob("*/t*/*/*.png"):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey).convert("L").save(path)
    eight = nfbmr.train(tiny(data__path=str(data), output=str(tmp_path / "eight")))
    files = sorted(data.glob("*/test/*/*.png"))
    expected = nfbmr.predict(eight["run_dir"], files)
    for path in data.glob("*/t*/*/*.png"):
        values = np.rint(np.asarray(Image.open(path)) * (4095 / 255)).astype(np.uint16)
        Image.fromarray(values).save(path)
    twelve = nfbmr.train(tiny(data__path=str(data), output=str(tmp_path / "twelve")))
    assert "read as 12-bit" in caplog.text
    seen = nfbmr.predict(twelve["run_dir"], files)
    assert [one.score for one in seen] == [one.score for one in expected]

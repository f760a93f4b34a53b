"""The main job, whole: what a user gets from a folder of images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nfbmr
from nfbmr.cli.results import headline
from nfbmr.errors import ConfigError, ImageError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.rescoring import parse_fusion


@pytest.fixture(scope="module")
def finished(tmp_path_factory, textures):
    """A finished run on the synthetic set, and its summary."""
    from nfbmr.api import configure

    root = tmp_path_factory.mktemp("run")
    config = configure(
        settings={
            "data.path": str(textures),
            "output": str(root / "runs"),
            "store": str(root / "store"),
            "features.size": 64,
            "features.taps": ["blocks.2"],
            "features.views": ["flip-h"],
            "flow.blocks": 2,
            "flow.hidden": 8,
            "mapping.latent": 8,
            "train.flow.epochs": 3,
            "train.detail.steps": 20,
            "train.mapping.epochs": 2,
            "evaluation.bootstrap": 50,
            "evaluation.heatmaps": 2,
        }
    )
    return config, nfbmr.train(config)


def test_summary_says_what_was_run_and_what_came_out(finished):
    _, summary = finished
    json.dumps(summary)
    assert {"run_id", "run_dir", "method", "split", "test_peeked", "timings", "threshold"} <= summary.keys()
    assert summary["method"] == "nf-bmr"
    assert summary["test_peeked"] is False
    auroc = summary["metrics"]["test"]["image_auroc"]
    assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
    assert summary["metrics"]["test"]["pixel_auroc"]["value"] is not None


def test_run_folder_holds_results_pictures_report_and_model(finished):
    _, summary = finished
    paths = RunPaths(Path(summary["run_dir"]))
    rows = pq.read_table(paths.scores).to_pylist()
    assert {row["side"] for row in rows} == {"validation", "test"}
    assert sum(row["side"] == "test" for row in rows) == 12
    assert {
        f"{part}_{how}" for part in ("source", "target", "norm") for how in ("max", "mean", "topk")
    } <= rows[0].keys()
    assert paths.report.stat().st_size > 10_000
    assert list(paths.pictures.glob("*.png"))
    assert (paths.model / "model.json").exists()
    assert json.loads(paths.summary.read_text())["run_id"] == summary["run_id"]


def test_journal_holds_both_stages_with_steps_and_the_result(finished):
    _, summary = finished
    record = read_record(RunPaths(Path(summary["run_dir"])).journal)
    assert record.status == "finished"
    assert [point.step for point in record.metrics["flow/loss"]] == [1, 2, 3]
    assert [point.step for point in record.metrics["mapping/loss"]] == [1, 2]
    assert record.metrics["test/image_auroc"][-1].value == summary["metrics"]["test"]["image_auroc"]["value"]
    assert record.params["flow.blocks"] == 2


def test_same_command_twice_gives_the_same_numbers_and_trains_nothing_again(finished):
    config, first = finished
    second = nfbmr.train(config)
    assert second["metrics"] == first["metrics"]
    assert first["reused"] == {"flow": False, "detail": False, "memory": False, "mapping": False}
    assert second["reused"] == {"flow": True, "detail": True, "memory": True, "mapping": True}


def test_another_mapping_shares_the_flow(finished):
    config, _ = finished
    other = config.model_copy(update={"mapping": config.mapping.model_copy(update={"latent": 4})})
    assert nfbmr.train(other)["reused"] == {"flow": True, "detail": True, "memory": True, "mapping": False}


def test_a_trial_keeps_its_mapping_and_goes_on_to_the_test_set_with_it(finished):
    """Hardly two trials ask for the same mapping: a thousand of them would fill the store."""
    from nfbmr.run import execute_run, journal_only, new_run
    from nfbmr.stopping import StopRequest

    config, _ = finished
    other = config.model_copy(update={"mapping": config.mapping.model_copy(update={"latent": 6})})
    stored = {path.name for path in (config.store / "stages").iterdir()}
    run, reported = new_run(other), []
    with StopRequest() as stop:
        execute_run(run, journal_only, stop, test=False)
        assert {path.name for path in (config.store / "stages").iterdir()} == stored
        execute_run(run, journal_only, stop, on_epoch=lambda stage, epoch, _: reported.append((stage, epoch)))
    assert not [epoch for stage, epoch in reported if stage == "mapping"]
    assert nfbmr.train(other)["reused"]["mapping"] is True


def test_a_mapping_has_its_checkpoints_in_the_folder_of_its_run(finished):
    """A run that was stopped goes on there, whatever became of the store and on whichever machine."""
    _, summary = finished
    assert list(RunPaths(Path(summary["run_dir"])).checkpoints("mapping").glob("last*.safetensors"))


def test_stored_weights_with_a_flipped_bit_are_named_and_fitted_again(finished, tmp_path, capsys):
    from nfbmr.cli.main import main

    config, first = finished
    copy = config.model_copy(update={"store": tmp_path / "store"})
    shutil.copytree(config.store, copy.store)
    (about,) = (
        path for path in copy.store.glob("stages/*/stage.json")
        if (said := json.loads(path.read_text())["identity"])["stage"] == "mapping"
        and said["mapping"]["latent"] == config.mapping.latent
    )  # fmt: skip
    weights = about.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1  # the last bit of one weight
    weights.write_bytes(content)
    assert main(["features", "verify", "--store", str(copy.store)]) != 0
    assert str(weights) in capsys.readouterr().err
    again = nfbmr.train(copy)
    assert (again["reused"]["mapping"], again["metrics"]) == (False, first["metrics"])
    assert main(["features", "verify", "--store", str(copy.store)]) == 0


def test_a_finished_stage_is_stored_without_its_checkpoints(finished, tmp_path):
    """They are as large as the stage itself, and nothing reads them again."""
    config, first = finished
    assert not list(config.store.glob("stages/*/checkpoints"))
    store = tmp_path / "store"
    shutil.copytree(config.store, store)
    folders = [path.parent for path in store.glob("stages/*/stage.json")]
    for folder in folders:  # as earlier versions left it, and as whoever is killed in between does
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.json").write_text("{}")
    again = nfbmr.train(config.model_copy(update={"store": store}))
    assert (set(again["reused"].values()), again["metrics"]) == ({True}, first["metrics"])
    kept = [folder for folder in folders if (folder / "checkpoints").exists()]
    assert len(folders) - len(kept) == len(again["reused"]), "of those that were used"


def test_a_bank_of_patches_is_chosen_once(finished):
    from nfbmr.api import configure

    config, _ = finished
    keys = {"data.path": str(config.data.path), "output": str(config.output), "store": str(config.store)}
    patchcore = {**keys, "method": "patchcore", "features.size": 64, "evaluation.bootstrap": 50}
    runs = [
        nfbmr.train(configure(settings={**patchcore, "patchcore.neighbours": count})) for count in (3, 3, 1)
    ]
    assert [summary["reused"] for summary in runs] == [{"statistics": value} for value in (False, True, True)]
    assert runs[0]["metrics"] == runs[1]["metrics"]


def test_fresh_store_gives_the_same_numbers(finished, tmp_path):
    config, first = finished
    again = nfbmr.train(config.model_copy(update={"store": tmp_path / "store"}))
    assert again["metrics"] == first["metrics"]


def test_rescoring_needs_neither_images_nor_store(finished, tmp_path):
    _, summary = finished
    moved = tmp_path / "run"
    shutil.copytree(summary["run_dir"], moved)
    same = nfbmr.evaluate(moved)
    assert same["metrics"]["test"]["image_auroc"] == summary["metrics"]["test"]["image_auroc"]
    config = nfbmr.Config.model_validate(summary["config"])
    scoring = config.scoring.model_copy(
        update={"weights": parse_fusion("norm=1", tuple(summary["selection"]["parts"])), "reduction": "mean"}
    )
    assert nfbmr.evaluate(moved, scoring)["selection"]["reduction"] == "mean"


def test_kept_maps_cannot_be_pooled_otherwise(finished):
    config, summary = finished
    scoring = config.scoring.model_copy(update={"pool": config.scoring.pool + 1})
    with pytest.raises(ConfigError, match="cannot be pooled otherwise"):
        nfbmr.evaluate(summary["run_dir"], scoring)


def test_predict_gives_the_scores_of_the_evaluation(finished, textures):
    _, summary = finished
    run = Path(summary["run_dir"])
    rows = {
        row["name"]: row for row in pq.read_table(RunPaths(run).scores).to_pylist() if row["side"] == "test"
    }
    category = textures / summary["dataset"]["name"].split("/")[-1]
    predictions = nfbmr.predict(run, [category / "test"])
    assert len(predictions) == len(rows)
    for prediction in predictions:
        row = rows[prediction.path.relative_to(category).as_posix()]
        assert prediction.score == pytest.approx(row["score"], rel=1e-3, abs=1e-3)
        assert prediction.rejected == row["rejected"]


def test_flow_alone_is_a_method(finished):
    config, _ = finished
    summary = nfbmr.train(config.model_copy(update={"method": "nf"}))
    assert summary["reused"] == {"flow": True, "detail": True}
    assert summary["selection"]["parts"] == ["norm", "detail"]


def test_selecting_on_the_test_set_is_marked_everywhere(tiny, textures):
    summary = nfbmr.train(tiny(selection__on="test"))
    assert summary["test_peeked"] is True
    paths = RunPaths(Path(summary["run_dir"]))
    assert "test-peeked" in paths.report.read_text().lower()
    assert read_record(paths.journal).tags["nfbmr.test_peeked"] == "true"
    assert set(pq.read_table(paths.scores)["test_peeked"].to_pylist()) == {True}
    (prediction,) = nfbmr.predict(paths.root, [next(textures.glob("*/test/good/*.png"))])
    assert prediction.test_peeked


def test_test_images_are_not_read_before_every_choice_is_made(tiny, textures, tmp_path):
    """With every test image unreadable, the run trains and selects all the same."""
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    for path in data.glob("*/test/*/*.png"):
        path.write_bytes(b"not an image")
    blind = nfbmr.train(tiny(data__path=str(data)))
    assert len(blind["unreadable"]) == 12
    assert blind["metrics"]["test"]["image_auroc"]["value"] is None
    seeing = nfbmr.train(tiny())
    assert blind["threshold"] == seeing["threshold"]
    assert blind["selection"] == seeing["selection"]
    weights = [RunPaths(Path(s["run_dir"])).model / "mapping.safetensors" for s in (blind, seeing)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_good_test_images_unlike_those_trained_on_are_told(tiny, textures, tmp_path):
    """A set photographed in another light: an AUROC of 1 hides that every good part is rejected."""
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    for path in data.glob("*/test/good/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    kind = next(path for path in data.glob("*/test/*") if path.name != "good")
    kind.rename(os.fsdecode(os.fsencode(kind.parent) + b"/gro\xdf"))  # as from an archive of another system
    summary = nfbmr.train(tiny(data__path=str(data)))
    rejects = summary["metrics"]["test"]["image_false_reject_rate"]
    assert rejects["value"] == 1.0
    assert rejects["low"] < 0.6  # six images
    assert summary["selection"]["false_reject_interval"][1] < rejects["low"]
    assert any("100% of the good test images are rejected" in note for note in summary["notes"])
    lines = headline(RunSummary.from_json(summary)).splitlines()
    (line,) = (line for line in lines if "false rejects" in line)
    assert "1.000" in line
    assert "5% stated, " in line
    scores = pq.read_table(RunPaths(Path(summary["run_dir"])).scores).to_pylist()
    assert "gro\\xdf" in {row["defect"] for row in scores}


def test_one_unreadable_test_image_costs_one_image(tiny, textures, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    broken = sorted(data.glob("*/test/good/*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    summary = nfbmr.train(tiny(data__path=str(data)))
    assert list(summary["unreadable"]) == [broken.relative_to(broken.parents[2]).as_posix()]
    assert summary["metrics"]["test"]["image_auroc"]["value"] is not None


def test_unreadable_training_images_are_all_named_at_once(tiny, textures, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    first, second, *_ = sorted(data.glob("*/train/good/*.png"))
    first.write_bytes(b"")
    second.write_text("not an image")
    with pytest.raises(ImageError) as caught:
        nfbmr.train(tiny(data__path=str(data)))
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


@pytest.mark.parametrize(
    "text", ["x", "", "source=1,source=2", "source=-1", "source=1e308", "source=nan", "depth=1"]
)
def test_fusions_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError):
        parse_fusion(text, ("source", "target", "norm"))


def test_a_threshold_that_is_no_number_is_refused(finished, textures):
    _, summary = finished
    with pytest.raises(ConfigError):
        nfbmr.predict(summary["run_dir"], [textures], threshold=float("nan"))


def test_few_validation_images_are_said_to_be_few(finished):
    _, summary = finished
    assert any("threshold comes from" in note for note in summary["notes"])

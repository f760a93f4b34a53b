"""The study of settings over data sets: its grid, its file of rows, its report, and a whole run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nfbmr
from benchmarks.quality.agreements import with_agreement
from benchmarks.quality.cells import Cell, Folder, Unit, best_f1, cells_of, compute, units_of
from benchmarks.quality.differences import differences
from benchmarks.quality.grid import Setting, full_grid, grid_file, quick_grid, settings_of
from benchmarks.quality.pool import Estimate
from benchmarks.quality.report import choice_by, few_of, objectives_in, write_report
from benchmarks.quality.rows import Rows
from benchmarks.quality.sets import DataSet, parse_set
from nfbmr.api import configure
from nfbmr.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def row(setting: str, objective: float, test: float, **more: Any) -> dict[str, Any]:
    """A finished row."""
    return {
        "key": f"{setting}-{more}",
        "setting": setting,
        "set": "parts",
        "real": True,
        "seed": 0.0,
        "limit_train": None,
        "status": "finished",
        "reason": None,
        "method": "nf",
        "objective": objective,
        "test_image_auroc": test,
        "images_train_good": 80.0,
        "unit_seconds": 2.0,
        "networks": "same",
        **more,
    }


def test_every_setting_of_the_grid_can_be_configured_and_names_are_unique() -> None:
    grid = full_grid()
    assert len({setting.name for setting in grid}) == len(grid) >= 60
    for setting in grid:
        configure(settings=setting.values)


def test_the_small_grid_is_part_of_the_full_one_and_patterns_choose() -> None:
    small, full = ([setting.name for setting in settings_of([grid])] for grid in ("small", "full"))
    assert set(small) < set(full)
    assert 10 <= len(small) <= 16
    assert [s.name for s in settings_of(["full"], ["padim-256-b5"])] == ["padim-256-b5"]
    with pytest.raises(ConfigError, match="no setting of the grid"):
        settings_of(["full"], ["nothing-*"])


def test_a_grid_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(
        "mine:\n  like: padim-256-b5\n  few: true\n  features: {size: 320}\n"
        "  data.validation_fraction: 0.3\n",
        encoding="utf-8",
    )
    (mine,) = grid_file(path)
    assert mine.few
    assert mine.values["method"] == "padim"
    assert mine.values["features.size"] == 320
    assert mine.values["data.validation_fraction"] == 0.3
    path.write_text("mine: {like: nobody}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="nobody"):
        grid_file(path)
    with pytest.raises(ConfigError, match="no such grid"):
        settings_of([str(tmp_path / "absent.yaml")])


def test_sets_are_named_folders_with_keys_of_the_data_section(tmp_path: Path) -> None:
    given = parse_set(f"mtd={tmp_path}:split=group:limit_train=9")
    assert given.values == {"data.path": str(tmp_path), "data.split": "group", "data.limit_train": 9}
    assert "data.path" not in given.identity  # a folder may be moved
    for wrong, word in (
        (str(tmp_path), "NAME=PATH"),
        ("a=/nowhere/at/all", "no such folder"),
        (f"a={tmp_path}:spilt=group", "split"),
    ):
        with pytest.raises(ConfigError, match=word):
            parse_set(wrong)


def test_cells_that_differ_in_scoring_alone_share_their_networks() -> None:
    plain = Setting("nf", {"method": "nf"}, few=True)
    sets = [DataSet("a", True), DataSet("b", True)]
    cells = cells_of(plain.scored("max", "mean"), sets, [0, 1], [16])
    assert len(cells) == len({cell.key for cell in cells}) == 3 * 2 * 2 + 2 * 2
    units = units_of(cells)
    assert [len(unit.cells) for unit in units] == [3] * 4 + [1] * 4
    pooled = Setting("pooled", {"method": "nf", "scoring.pool": 1.0})  # other maps, hence other networks
    assert len(units_of([Cell(plain, sets[0], 0), Cell(pooled, sets[0], 0)])) == 2


def test_the_best_f1_of_any_threshold() -> None:
    assert best_f1([1.0, 1.0, 2.0], [False, True, True]) == pytest.approx(0.8)
    assert best_f1([1.0, 2.0], [True, True]) is None


def test_rows_survive_several_writers_and_new_columns(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "quality.parquet")
    assert rows.read() == []

    def write(worker: int) -> None:
        for i in range(5):
            Rows(rows.path).append([{"key": f"{worker}-{i}", "number": i, f"only_{worker}": True}])

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows.read()) == 20
    rows.append([{"key": "0-0", "number": float("nan")}])
    (again,) = (row for row in rows.read() if row["key"] == "0-0")
    assert again["number"] is None
    assert len(rows.read()) == 20


def test_correlation_and_regret_of_an_objective() -> None:
    rows = [row("good", 0.8, 0.95), row("fair", 0.9, 0.9), row("poor", 0.5, 0.6)]
    choice = choice_by("objective", rows)
    assert choice is not None
    assert choice.correlation == pytest.approx(0.5)
    assert choice.regret == pytest.approx(5.0)
    assert (choice.picks, choice.bests) == (("fair",), ("good",))


def test_ties_are_not_broken_by_luck_and_losses_count_the_other_way() -> None:
    rows = [
        row("a", 0.9, 0.9, flow_validation_loss=1.0),
        row("b", 0.9, 0.7, flow_validation_loss=2.0),
        row("c", 0.2, 0.5, flow_validation_loss=3.0),
    ]
    tied, loss = choice_by("objective", rows), choice_by("flow_validation_loss", rows)
    assert tied is not None
    assert tied.regret == pytest.approx(10.0)
    assert loss is not None
    assert loss.correlation == pytest.approx(1.0)
    assert loss.regret == 0.0
    assert objectives_in(rows) == ["objective", "flow_validation_loss"]


def test_an_objective_that_some_settings_lack_cannot_pick_them() -> None:
    rows = [row("a", 0.9, 0.9), row("b", 0.8, 0.7, candidate_max=0.8), row("c", 0.2, 0.5, candidate_max=0.2)]
    choice = choice_by("candidate_max", rows)
    assert choice is not None
    assert choice.regret == pytest.approx(20.0)


def test_few_images_stand_beside_all_and_apart_from_the_comparison(tmp_path: Path) -> None:
    rows = [
        row("a", 0.9, 0.9),
        row("b", 0.8, 0.7),
        row("a", 1.0, 0.5, limit_train=16.0),
        {**row("broken", 0.0, 0.0), "status": "failed", "reason": "no such tap\n  -> name another"},
    ]
    assert few_of(rows) == {"parts": {"a": {16.0: 0.5, 80.0: 0.9}}}
    text = write_report(rows, tmp_path, tmp_path / "scores").read_text(encoding="utf-8")
    assert "| a | 50.0 | 90.0 |" in text.replace("parts | ", "")
    assert "no such tap -> name another" in text
    for picture in ("parts.png", "few.png"):
        assert (tmp_path / picture).stat().st_size > 5000


def scored(path: Path, good: list[float], defective: list[float]) -> None:
    """A cell's scores of a validation image and of test images, each of a name of its own."""
    scores = [("validation", "good", "v", 9.0)]
    scores += [("test", "good", f"g{i}", score) for i, score in enumerate(good)]
    scores += [("test", "dent", f"d{i}", score) for i, score in enumerate(defective)]
    columns = ("side", "defect", "name", "score")
    images = [dict(zip(columns, image, strict=True)) for image in scores]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{**one, "group": None, "rejected": False} for one in images]), path)


def test_settings_are_compared_with_the_default_on_the_images_that_both_scored(tmp_path: Path) -> None:
    rows = [
        row("default", 0.9, 0.9, set="a", split="official"),
        row("default", 0.9, 0.9, set="b", split="official"),
        row("better", 0.9, 0.9, set="a", split="official"),
        row("better", 0.9, 0.9, set="b", split="official"),
        row("fewer", 0.9, 0.9, set="a", split="official"),
    ]
    half, whole = ([1.0, 2.0, 3.0, 4.0], [2.5] * 4), ([1.0, 1.1, 1.2, 1.3], [2.0] * 4)
    left = (half[0], half[1][:3])  # the last defect chose, and left the test set
    for one, (good, defective) in zip(rows, (half, whole, whole, whole, left), strict=True):
        scored(tmp_path / "scores" / f"{one['key']}.parquet", good, defective)
    compared = differences(rows, tmp_path / "scores")
    assert list(compared) == ["better", "fewer"]
    assert compared["better"].sets["a"].value == pytest.approx(0.5)
    assert compared["better"].sets["b"].value == 0.0
    assert compared["better"].mean.value == pytest.approx(0.25)
    assert 0.0 <= compared["better"].mean.low < 0.25 < compared["better"].mean.high <= 0.5
    assert compared["fewer"].mean.value == 0.0
    text = write_report(rows, tmp_path / "report", tmp_path / "scores").read_text(encoding="utf-8")
    assert "| better | 2 | +25.0 [" in text


def test_a_setting_that_agrees_with_the_others_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    """Real defects may look unlike the synthetic ones that the objective goes by."""
    like, unlike = [0.0, 1.0, 2.0, 3.0], [3.0, 1.0, 2.0, 0.0]
    rows = [
        row("a", 0.9, 0.9),
        row("b", 0.8, 0.8),
        row("c", 0.8, 0.8),
        row("odd", 0.95, 0.4),
        row("guess", 0.5, 0.5),  # has no say
        row("guesses", 0.5, 0.5),
        {**row("alone", 0.9, 0.9), "set": "other"},
    ]
    for one, scores in zip(rows, (*[like] * 3, *[unlike] * 3, like), strict=True):
        images = [
            {
                "side": "validation",
                "name": f"{i // 2}",
                "defect": ("good", "synthetic")[i % 2],
                "score": score,
            }
            for i, score in enumerate(scores)
        ]
        pq.write_table(pa.Table.from_pylist(images), tmp_path / f"{one['key']}.parquet")
    found = {one["setting"]: one["agreement"] for one in with_agreement(rows, tmp_path)}
    assert found["odd"] < 0 < min(found[name] for name in "abc")
    assert found["guess"] == found["guesses"] < 0
    assert found["alone"] is None


def test_the_time_left_is_that_of_the_same_networks_else_of_the_method() -> None:
    estimate = Estimate()
    unit = Unit((Cell(Setting("nf", {"method": "nf"}), DataSet("a", True), 0),))
    assert estimate.left([unit], 2) is None
    estimate.learn(row("a", 0.9, 0.9, unit_seconds=10.0))
    estimate.learn(row("b", 0.9, 0.9, unit_seconds=40.0, method="padim", networks="other"))
    assert estimate.left([unit, unit, unit], 2) == pytest.approx(15.0)


def test_a_cell_that_fails_is_a_row_with_its_reason(tmp_path: Path, textures: Path) -> None:
    data = DataSet("woven", False, {"data.path": str(textures)})
    values = {"method": "patchcore", "features.size": 64, "features.taps": ["blocks.2"]}
    good, bad, worse = (
        Setting("good", values),
        Setting("bad", {**values, "scoring.weights": [1.0, 2.0, 3.0]}),
        Setting("worse", {**values, "features.taps": ["no.such.tap"]}),
    )
    folder = Folder(tmp_path)
    first, second = units_of([Cell(setting, data, 0) for setting in (good, bad, worse)])
    done, failed = compute(first, folder, 20)
    assert (done["status"], failed["status"]) == ("finished", "failed")
    assert "weights" in str(failed["reason"])
    assert 0 <= done["test_image_auroc_low"] <= done["test_image_auroc"] <= done["test_image_auroc_high"] <= 1
    assert done["test_image_f1"] <= done["test_best_f1"] <= 1
    assert done["objective"] == pytest.approx(done["validation_image_auroc"])
    assert done["test_pixel_aupro"] is not None
    assert folder.scores_of(first.cells[0]).exists()
    assert not folder.work(first).exists()
    (broken,) = compute(second, folder, 20)
    assert "no.such.tap" in str(broken["reason"])


def test_a_row_says_what_train_says_of_a_method_with_two_levels(tmp_path: Path, textures: Path) -> None:
    values = {
        "features.size": 64,
        "features.scales": [1.0],
        "features.taps": ["blocks.2"],
        "features.detail.taps": ["blocks.1"],
        "features.detail.size": 96,
        "flow.blocks": 2,
        "flow.hidden": 8,
        "train.detail.steps": 10,
        "train.flow.epochs": 2,
        "train.mapping.epochs": 1,
        "mapping.latent": 8,
        "mapping.residual_blocks": 1,
    }
    data = DataSet("woven", False, {"data.path": str(textures)})
    (unit,) = units_of([Cell(Setting("two", values), data, 0)])
    (row,) = compute(unit, Folder(tmp_path / "study"), 20)
    trained = nfbmr.train(
        configure(
            settings={
                **data.values,
                **values,
                "features.compute": "fp32",
                "evaluation.heatmaps": 0,
                "output": str(tmp_path / "runs"),
                "store": str(tmp_path / "store"),
                "tracking.kind": "none",
            }
        )
    )
    assert row["status"] == "finished", row["reason"]
    assert row["objective"] == pytest.approx(trained["selection"]["auroc"])
    assert row["test_image_auroc"] == pytest.approx(trained["metrics"]["test"]["image_auroc"]["value"])
    assert row["threshold"] == pytest.approx(trained["threshold"])


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", "quality", "--quick", "--jobs", "1", "--out", str(out), *more]


@pytest.mark.slow
def test_a_study_is_stopped_gone_on_with_and_never_does_a_cell_twice(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    study = subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert study.stderr is not None
    for line in study.stderr:
        if line.startswith("["):  # the first fit is done
            break
    study.send_signal(signal.SIGINT)
    study.communicate(timeout=120)
    assert study.returncode in (0, 130)
    before = {row["key"]: row["written"] for row in Rows(tmp_path / "quality.parquet").read()}
    assert before
    time.sleep(1.1)  # rows are dated to the second
    ended = subprocess.run(
        command(tmp_path), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    after = Rows(tmp_path / "quality.parquet").read()
    assert len(after) == len(quick_grid())
    assert {row["status"] for row in after} == {"finished"}
    assert before.items() <= {row["key"]: row["written"] for row in after}.items()
    assert Path(ended.stdout.strip().splitlines()[-1]).read_text(encoding="utf-8").startswith("# Validation")

"""Known defects in a run: they choose, they are not tested, and everything says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import nfbmr
from nfbmr.cli.results import headline
from nfbmr.data.samples import Sample
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.evaluation.summary import RunSummary
from nfbmr.paths import RunPaths, read_json
from nfbmr.prepare import read_data, validation_of
from nfbmr.records import read_record
from nfbmr.results import SYNTHETIC, SYNTHETIC_WORTH, weights_of
from nfbmr.scoring.ranking import auroc


@pytest.fixture(scope="module")
def defects(tmp_path_factory):
    """The synthetic set with enough defects to set some aside."""
    out = tmp_path_factory.mktemp("data") / "textures"
    return synthesize(out, classes=CLASSES[:1], train=14, test_good=6, test_defective=16, size=96, seed=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small, defects):
    """A run without known defects and one with eight of them, on one store."""
    root = tmp_path_factory.mktemp("runs")
    plain = small(root, data__path=str(defects))
    known = small(root, data__path=str(defects), data__known_defects=8)
    return plain, nfbmr.train(plain), known, nfbmr.train(known)


def test_they_leave_the_test_set_and_join_validation(runs):
    _, plain, config, known = runs
    assert plain["known_defects"] == {}
    assert sum(known["known_defects"].values()) == 8
    assert known["dataset"]["counts"]["test"] == {"good": 6, "defective": 8}
    assert known["dataset"]["counts"]["validation"]["defective"] == 8
    rows = pq.read_table(RunPaths(Path(known["run_dir"])).scores).to_pylist()
    chosen = {row["name"] for row in rows if row["side"] == "validation" and row["defect"] != "good"}
    tested = {row["name"] for row in rows if row["side"] == "test"}
    split = read_json(RunPaths(Path(known["run_dir"])).split)
    assert set(split["known"]) <= chosen
    assert not set(split["known"]) & tested
    masks = [row["mask"] for row in rows if row["name"] in split["known"]]
    assert len(masks) == 8
    assert all(masks)
    _, again = read_data(config)
    assert [s.name for s in again.known] == split["known"]


def test_everything_says_so_and_nothing_calls_it_peeked(runs):
    _, plain, _, known = runs
    sentence = "8 known defects were used for choosing ("
    paths = RunPaths(Path(known["run_dir"]))
    record = read_record(paths.journal)
    assert known["test_peeked"] is False
    assert record.tags["nfbmr.known_defects"] == "8"
    assert record.tags["nfbmr.test_peeked"] == "false"
    assert sentence in record.tags["nfbmr.description"]
    assert sentence in headline(RunSummary.from_json(known))
    assert sentence in paths.report.read_text()
    assert json.loads(paths.summary.read_text())["known_defects"] == known["known_defects"]
    silent = RunPaths(Path(plain["run_dir"]))
    assert "nfbmr.known_defects" not in read_record(silent.journal).tags
    assert "known defect" not in headline(RunSummary.from_json(plain)) + silent.report.read_text()


def test_the_validation_auroc_is_that_of_both_by_what_they_are_worth(runs):
    *_, known = runs
    rows = pq.read_table(RunPaths(Path(known["run_dir"])).scores).to_pylist()
    own = [row for row in rows if row["side"] == "validation"]
    scores = {
        name: torch.tensor([row["score"] for row in own if test(row["defect"])])
        for name, test in {
            "good": lambda kind: kind == "good",
            "synthetic": lambda kind: kind == SYNTHETIC,
            "real": lambda kind: kind not in ("good", SYNTHETIC),
        }.items()
    }
    apart = [auroc(scores["good"], scores[name]) for name in ("real", "synthetic")]
    expected = (8 * apart[0] + SYNTHETIC_WORTH * apart[1]) / (8 + SYNTHETIC_WORTH)
    measured = known["metrics"]["validation"]["image_auroc"]
    assert measured["value"] == pytest.approx(expected)
    assert measured["low"] <= measured["value"] <= measured["high"]


def test_the_last_epoch_is_the_same_with_and_without_them(runs):
    *_, known = runs
    assert known["reused"] == {"flow": True, "mapping": True}


def test_they_have_a_say_in_which_flow_is_kept_where_the_best_epoch_is(small, tmp_path, defects):
    """A flow chosen with other images is another flow; the one without known defects is not taken for it."""
    settings = {"data__path": str(defects), "selection__epoch": "best"}
    nfbmr.train(small(tmp_path, **settings))
    known = nfbmr.train(small(tmp_path, data__known_defects=8, **settings))
    assert known["reused"] == {"flow": False, "mapping": False}


def test_scoring_anew_counts_them_the_same(runs):
    from nfbmr.rescoring import evaluate

    *_, known = runs
    again = evaluate(known["run_dir"]).as_json()
    assert again["known_defects"] == known["known_defects"]
    assert again["selection"] == known["selection"]


def test_the_rest_of_the_test_set_chooses_nothing(small, tmp_path, defects, runs):
    """With every other test image unreadable the same choices are made."""
    *_, known = runs
    data = tmp_path / "data"
    shutil.copytree(defects, data)
    split = read_json(RunPaths(Path(known["run_dir"])).split)
    for path in data.glob("*/test/*/*.png"):
        if path.relative_to(path.parents[2]).as_posix() not in split["known"]:
            path.write_bytes(b"not an image")
    blind = nfbmr.train(small(tmp_path, data__path=str(data), data__known_defects=8))
    assert blind["threshold"] == known["threshold"]
    assert blind["selection"] == known["selection"]


def test_a_folder_of_them_is_an_option_of_the_command_line(small, tmp_path, defects, capsys):
    from nfbmr.cli.main import main
    from nfbmr.resolve import dump_yaml

    folder = tmp_path / "seen"
    folder.mkdir()
    for i, path in enumerate(sorted(defects.glob("*/test/*/*.png"))):
        if path.parent.name != "good":
            shutil.copy(path, folder / f"{i:02d}.png")
    config = tmp_path / "config.yaml"
    config.write_text(dump_yaml(small(tmp_path, data__path=str(defects))))
    code = main(["train", "--config", str(config), "--known-defects", str(folder), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert code == 0
    assert summary["known_defects"] == {"seen": 16}
    assert summary["dataset"]["counts"]["test"] == {"good": 6, "defective": 0}  # copies are not tested


def test_a_kind_that_is_called_synthetic_stays_real(small, tmp_path, defects):
    folder = tmp_path / "synthetic"
    folder.mkdir()
    for i, path in enumerate(sorted(defects.glob("*/train/good/*.png"))[:9]):
        (folder / f"{i}.png").write_bytes(path.read_bytes())
    config = small(tmp_path, data__path=str(defects), data__known_defects=str(folder))
    samples = validation_of(config, read_data(config)[1]).defective_samples
    assert sum(s.defect == SYNTHETIC for s in samples) == len(samples) - 9
    weights = weights_of(samples)
    assert weights is not None
    assert sum(weights) == pytest.approx(9 + SYNTHETIC_WORTH)


def test_images_of_one_sort_count_alike():
    pasted = [Sample(Path(f"{i}"), f"{i}", SYNTHETIC) for i in range(4)]
    assert weights_of(pasted) is None
    assert weights_of([]) is None

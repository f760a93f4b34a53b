"""A finished model on another labelled data set: its own numbers, its own folder, the run untouched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import nfbmr
from nfbmr.cli.main import main
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths
from tests.data.drawn import bad, good


@pytest.fixture(scope="module")
def run(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a method that keeps latents."""
    return Path(nfbmr.train(small(tmp_path_factory.mktemp("run")))["run_dir"])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another labelled set, with masks and a file that is no image."""
    root = tmp_path_factory.mktemp("other") / "line2"
    good(root / "OK", 5, first=40)
    for i in range(4):
        bad(root / f"NG/scratch/{i:03}.png", root / f"NG/scratch_mask/{i:03}.png", seed=60 + i)
    return root


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and "evaluations" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_another_data_set_has_its_own_report_and_the_run_stays(
    run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(run)
    assert main(["evaluate", str(run), "--data", str(other), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert everything_in(run) == before
    own = json.loads(RunPaths(run).summary.read_text())
    assert summary["dataset"]["name"] != own["dataset"]["name"]
    assert summary["dataset"]["source"] == str(other)
    assert summary["dataset"]["counts"]["test"] == {"good": 5, "defective": 4}
    assert (summary["split"], summary["threshold"]) == ("external", own["threshold"])
    assert summary["metrics"]["validation"] == own["metrics"]["validation"]
    assert summary["metrics"]["test"]["pixel_auroc"]["value"] is not None
    assert summary["kinds"] == {"good": 5, "scratch": 4}
    assert summary["leak"] is None
    assert str(other) in summary["notes"][-1]
    paths = RunPaths(Path(summary["run_dir"]))
    assert paths.root.parent == run / "evaluations"
    assert json.loads(paths.summary.read_text()) == summary
    assert str(other) in paths.report.read_text()
    assert list(paths.pictures.glob("*.png"))
    rows = pq.read_table(paths.scores).to_pylist()
    assert {row["side"] for row in rows} == {"test"}
    predictions = {p.path: p for p in nfbmr.predict(run, [other / "OK", other / "NG"])}
    for row in rows:
        prediction = predictions[other / row["name"]]
        assert prediction.score == pytest.approx(row["score"], rel=1e-3, abs=1e-3)
        assert prediction.rejected == row["rejected"]


def test_files_that_the_model_has_learned_from_are_counted(
    run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(other, mixed)
    trained = json.loads(RunPaths(run).split.read_text())["train"][0]
    source = json.loads(RunPaths(run).summary.read_text())["dataset"]["source"]
    shutil.copy(Path(source) / trained, mixed / "OK" / "again.png")
    (mixed / "OK" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["evaluate", str(run), "--data", str(mixed), "--out", str(out), "--json"]) == 2
    summary = json.loads(capsys.readouterr().out)
    assert summary["run_dir"] == str(out)
    assert summary["leak"].startswith("1 of 11 images")
    assert list(summary["unreadable"]) == ["OK/broken.png"]
    assert summary["error"]["type"] == "ImageError"


def test_a_registered_model_brings_what_is_known_of_it(
    run: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = tmp_path / "fetched"
    shutil.copytree(RunPaths(run).model, fetched / "model")
    shutil.copytree(run, fetched / "evidence", ignore=shutil.ignore_patterns("model", "maps*", "checkpoints"))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(fetched / "model"), "--data", str(other)]) == 0
    (folder,) = (tmp_path / "evaluations").iterdir()
    assert RunPaths(folder).report.exists()
    assert folder.name.endswith(
        Detector.load(fetched / "model").digest()[:8]
    )  # another version lies elsewhere


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--data", "x", "--fuse", "auto"], "leave out --fuse"),
        (["--out", "x"], "only with --data: --out"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], what: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), *options]) == 2
    assert what in capsys.readouterr().err


def test_only_finished_runs_and_never_into_a_run(
    run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path), "--data", str(other)]) == 2
    assert "neither a finished run nor a registered model" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", str(other), "--out", str(run)]) == 2
    assert "a run lies here" in capsys.readouterr().err

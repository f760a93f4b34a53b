"""All categories in one command: each is run once, what failed or was interrupted is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfbmr.category_runs import (
    CategoryRuns,
    new_category_runs,
    open_category_runs,
    table_of,
    train_categories,
    wants_all,
)
from nfbmr.cli.main import main
from nfbmr.config import Config
from nfbmr.errors import DataError, Interrupted
from nfbmr.evaluation.summary import RunSummary
from nfbmr.resolve import dump_yaml
from nfbmr.run import Run
from tests.data.drawn import bad, good
from tests.summaries import run_summary


def parts(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        good(root / name / "good", 14, first=100 * number)
        for i in range(4):
            mask = root / name / f"NG/scratch_mask/{i:03}.png"
            bad(root / name / f"NG/scratch/{i:03}.png", mask, seed=10 * number + i)
    return root


def config_of(path: Path, **changes: Any) -> Config:
    data = Config().data.model_copy(update={"path": path, "category": "all", **changes})
    return Config().model_copy(update={"data": data, "output": path.parent / "runs"})


class Trainer:
    """Does a run by writing its summary, as a run's last step does; or fails, or is interrupted."""

    def __init__(self, **outcomes: Exception | float | None) -> None:
        self.outcomes = outcomes
        self.done: list[str] = []

    def __call__(self, run: Run) -> RunSummary:
        name = str(run.config.data.category)
        outcome = self.outcomes[name]
        if isinstance(outcome, Exception):
            raise outcome
        self.done.append(name)
        summary = run_summary(outcome, "test")
        summary.write(run.paths.summary)
        return summary


def test_each_category_is_run_on_its_own_and_the_means_are_over_all(tmp_path: Path) -> None:
    runs = new_category_runs(config_of(parts(tmp_path / "parts", "bolt", "nut", "washer")))
    summary = train_categories(runs, Trainer(bolt=0.5, nut=0.9, washer=None))
    assert summary.as_json()["means"] == {"image_auroc": {"mean": 0.7, "categories": 2}}
    table = (runs.root / "categories.md").read_text()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]] == [
        ["bolt", "0.500"],
        ["nut", "0.900"],
        ["washer", ""],
        ["mean of 3", "0.700 (2)"],
    ]


def test_what_is_interrupted_or_failed_is_gone_on_with_and_nothing_is_done_twice(tmp_path: Path) -> None:
    runs = new_category_runs(config_of(parts(tmp_path / "parts", "bolt", "nut", "washer")))
    first = Trainer(bolt=0.5, nut=DataError("too few images"), washer=Interrupted("stopped"))
    with pytest.raises(Interrupted, match="1 of 3 categories is finished") as stopped:
        train_categories(runs, first)
    assert f"nfbmr train --resume {runs.root}" in str(stopped.value)
    again = open_category_runs(runs.root)
    assert again == CategoryRuns(runs.root, runs.config, ("bolt", "nut", "washer"))
    failing = train_categories(again, Trainer(nut=DataError("too few images"), washer=1.0))
    assert failing.failed == {"nut": "too few images"}
    second = Trainer(nut=0.75)
    summary = train_categories(again, second)
    assert (first.done, second.done) == (["bolt"], ["nut"])
    assert summary.means["image_auroc"].mean == 0.75


def test_a_name_that_no_folder_can_have(tmp_path: Path) -> None:
    runs = CategoryRuns(tmp_path / "runs", config_of(tmp_path), ("../up", "a/b", "a b"))
    folders = [runs.run_of(name).paths.root for name in runs.names]
    assert len(set(folders)) == 3
    assert all(folder.parent == runs.root for folder in folders)


def test_all_is_asked_for_unless_a_category_is_called_so(tmp_path: Path) -> None:
    assert wants_all(config_of(parts(tmp_path / "a", "bolt", "nut")))
    assert not wants_all(config_of(parts(tmp_path / "b", "bolt", "all")))
    good(tmp_path / "c/good", 3)
    with pytest.raises(DataError, match="all categories are asked for, and there are none"):
        new_category_runs(config_of(tmp_path / "c"))


def test_a_category_that_is_still_to_be_run_has_a_line() -> None:
    done = {"bolt": run_summary(1.0, "test")}
    lines = table_of(("bolt", "nut", "washer"), done, {"nut": "..."}).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["nut", "failed"]
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["washer", "not run yet"]


@pytest.mark.slow
def test_the_command(tmp_path: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    root = parts(tmp_path / "parts", "bolt", "nut")
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(tiny(data__path=str(root), method="padim")))
    assert main(["train", "--config", str(file), "--category", "all", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["categories"]) == ["bolt", "nut"]
    for name, one in summary["categories"].items():
        assert one["dataset"]["name"] == f"parts/{name}"
        assert one["metrics"]["test"]["pixel_auroc"]["value"] is not None
        assert one["dataset"]["counts"]["test"] == {"good": 3, "scratch": 4}
    assert main(["train", "--resume", summary["run_dir"]]) == 0
    out = capsys.readouterr().out
    assert "mean of 2" in out


def test_a_manifest_trains_as_its_folder_does(
    tmp_path: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    root = parts(tmp_path / "parts", "bolt") / "bolt"
    assert main(["data", "manifest", str(root), "--out", str(tmp_path / "bolt.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 18
    summaries = []
    for path in (root, tmp_path / "bolt.csv"):
        file = tmp_path / "config.yaml"
        file.write_text(dump_yaml(tiny(data__path=str(path), method="padim")))
        assert main(["train", "--config", str(file), "--json"]) == 0
        summaries.append(json.loads(capsys.readouterr().out))
    folder, manifest = summaries
    assert manifest["dataset"]["digest"] == folder["dataset"]["digest"]
    assert manifest["split"] == folder["split"]
    assert manifest["metrics"] == folder["metrics"]

"""What goes on does so as it was begun: settings that would not count are refused, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nfbmr.category_runs import new_category_runs
from nfbmr.cli.main import main
from nfbmr.run import Run, new_run
from tests.data.drawn import good
from tests.summaries import run_summary


@pytest.fixture
def begun(tiny: Any) -> Run:
    """A run that was interrupted before anything was done."""
    return new_run(tiny(flow__blocks=4))


@pytest.fixture
def done(begun: Run) -> Run:
    """The same, finished."""
    run_summary(0.75, "test", run_dir=str(begun.paths.root)).write(begun.paths.summary)
    return begun


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--set", "flow.blocks=8"], "flow.blocks (--set)"),
        (["--data", "other"], "data.path (--data)"),
        (["--seed", "7", "--set", "flow.blocks=4"], "seed (--seed)"),
        (["--output", "elsewhere"], "output (--output)"),
        (["--config", "paper"], "(paper)"),
        (["--method", "padim"], "method (--method)"),
    ],
)
def test_settings_that_a_run_cannot_take_are_named(
    options: list[str], named: str, begun: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(begun.paths.root), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert named in output.err
    assert "goes on as it was begun" in output.err
    assert "leave them out" in output.err
    assert "flow.blocks (--set)" not in output.err or named == "flow.blocks (--set)"


def test_a_finished_run_does_not_show_its_old_results_for_other_data(
    done: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(done.paths.root), "--data", "other", "--json"]) == 2
    output = capsys.readouterr()
    assert "0.75" not in output.out
    assert "the run is finished" in output.err
    assert "data.path (--data)" in output.err
    assert f"nfbmr evaluate {done.paths.root} --data OTHER" in output.err


def test_the_same_settings_may_be_said_again(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    same = ["--data", str(done.config.data.path), "--set", "flow.blocks=4"]
    assert main(["train", "--resume", str(done.paths.root), *same]) == 0
    assert "0.750" in capsys.readouterr().out


def test_the_runs_of_all_categories_likewise(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bolt", "nut"):
        good(tmp_path / "parts" / name / "good", 2)
    runs = new_category_runs(tiny(data__path=str(tmp_path / "parts"), data__category="all"))
    assert main(["train", "--resume", str(runs.root), "--category", "bolt"]) == 2
    assert "data.category (--category)" in capsys.readouterr().err


def test_times_are_measured_again_where_there_are_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--measure-again"]) == 2
    assert "--measure-again needs --resume" in capsys.readouterr().err

"""A sweep's three records made to differ in every way there is, and brought together again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nfbmr.errors import ConfigError
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from tests.tune.verify.three_records import Server, fitted, kinds, recorded, remove_run
from tune.records.driver import driver_lock
from tune.records.paths import AblationPaths, PlanPaths, SweepPaths
from tune.verify import find_plan, verify


def test_records_that_agree(sweep: SweepPaths) -> None:
    result = verify(sweep, mend=True)
    assert result.differences == []
    assert result.agreed
    assert result.runs == 5
    assert result.states == {"finished": 2, "pruned": 1, "failed": 1}


def test_a_copy_of_a_trials_folder_is_compared_as_well(sweep: SweepPaths) -> None:
    shutil.copytree(sweep.trial(1), sweep.trial(1).with_name("0001-backup"))
    assert verify(sweep).runs == 6


def test_a_sweep_that_goes_on_is_left_to_its_driver(sweep: SweepPaths, uri: str) -> None:
    tracker = recorded(sweep.trial(4), "tiles-0004", uri, "tiles")
    study = optuna.load_study(
        study_name="tiles", storage=JournalStorage(JournalFileBackend(str(sweep.study)))
    )
    study.ask()
    with driver_lock(sweep):
        result = verify(sweep, mend=True)
        assert result.differences == []
        assert (result.runs, result.writing) == (5, 1)
        assert read_record(RunPaths(sweep.trial(4)).journal).status == "running"
    tracker.finish()


def test_what_cannot_be_mended_is_said(sweep: SweepPaths, server: Server) -> None:
    (sweep.trial(0) / "config.yaml").unlink()
    (server.artifacts("tiles-0000") / "config.yaml").unlink()
    fitted(sweep.trial(3), 0.123)
    tags = {"nfbmr.run_id": "tiles-0009", "nfbmr.parent_id": "tiles"}
    server.client.create_run(server.experiment, tags=tags)
    result = verify(sweep, mend=True)
    assert {(difference.run, difference.kind, difference.mended) for difference in result.differences} == {
        ("0000", "deleted file", False),
        ("0003", "value", False),
        ("tiles-0009", "folder", False),
    }
    assert not result.agreed
    assert len(server.runs("tiles-0009")) == 1  # nothing of others is deleted


def test_a_study_that_cannot_be_read_does_not_keep_mlflow_from_being_mended(
    sweep: SweepPaths, server: Server
) -> None:
    sweep.study.write_text("{}\n")
    remove_run(server)
    result = verify(sweep, mend=True)
    assert {(kind, d.mended) for d in result.differences for kind in [d.kind]} == {
        ("study", False),
        ("child", True),
    }


def test_a_server_that_is_away_is_said_and_nothing_is_lost(sweep: SweepPaths, free_port: int) -> None:
    result = verify(sweep, mend=True, uri=f"http://127.0.0.1:{free_port}")
    assert result.problem
    assert not result.agreed


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_ablation_is_compared_by_its_cells(tmp_path: Path, uri: str) -> None:
    paths = AblationPaths(tmp_path / "runs" / "table5")
    paths.root.mkdir(parents=True)
    paths.plan.write_text("name: table5\n")
    recorded(paths.root, "table5", uri).finish()
    cell = paths.cell("n=2", "bottle", 0)
    recorded(cell, "table5-n=2-bottle-seed-0", uri, "table5").finish()
    looked = verify(paths)
    assert kinds(looked) == [("table5", "child", 1), ("n=2/bottle/seed-0", "child", 1)]
    assert verify(paths, mend=True).agreed
    assert Server(uri).run("table5-n=2-bottle-seed-0").info.status == "FINISHED"


def test_the_command_prints_one_document_and_says_by_its_code_whether_all_agree(
    sweep: SweepPaths, server: Server
) -> None:
    from nfbmr.cli.main import cli

    remove_run(server)
    where = ["track", "verify", "tiles", "--output", str(sweep.root.parent)]
    looked = CliRunner().invoke(cli, [*where, "--json"])
    assert looked.exit_code == 1
    assert json.loads(looked.stdout)["differences"][0]["kind"] == "child"
    mended = CliRunner().invoke(cli, ["track", "verify", str(sweep.root), "--mend"])
    assert mended.exit_code == 0, mended.output
    assert "[mended]" in mended.stdout
    assert "all records agree now" in mended.stdout


def test_the_old_name_of_the_command_still_mends_and_names_the_new_one(
    sweep: SweepPaths, server: Server
) -> None:
    from nfbmr.cli.main import cli

    remove_run(server)
    looked = CliRunner().invoke(cli, ["reconcile", str(sweep.root), "--dry-run"])
    assert looked.exit_code == 1
    assert "nfbmr track verify" in looked.stderr
    mended = CliRunner().invoke(cli, ["reconcile", str(sweep.root)])
    assert mended.exit_code == 0, mended.output


def test_a_name_that_is_none_gets_the_nearest(sweep: SweepPaths) -> None:
    with pytest.raises(ConfigError, match="tiles"):
        find_plan("tile", sweep.root.parent)
    assert find_plan("tiles", sweep.root.parent).name == "tiles"
    found: PlanPaths = find_plan(str(sweep.root), Path("nowhere"))
    assert isinstance(found, SweepPaths)


def test_a_page_of_runs_is_compared_before_the_next_one_is_asked_for(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_server.tracking import server_comparison

    monkeypatch.setattr(server_comparison, "PAGE", 1)
    happened = []
    children, read = server_comparison.Server.children, server_comparison.Server.read_histories

    def asked(server, parent_id):
        for page in children(server, parent_id):
            happened.append("asked for")
            yield page

    def compared(server, pairs):
        happened.append("compared")
        read(server, pairs)

    monkeypatch.setattr(server_comparison.Server, "children", asked)
    monkeypatch.setattr(server_comparison.Server, "read_histories", compared)
    assert verify(sweep).agreed
    pages = happened.count("asked for")
    assert pages > 2
    assert happened == ["compared", *["asked for", "compared"] * pages]  # the parent's page is the first

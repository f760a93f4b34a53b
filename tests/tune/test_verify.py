"""A sweep's three records made to differ in every way there is, and brought together again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import pytest
from click.testing import CliRunner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlflow_server.destination import Destination
from mlflow_server.tracking.sync import find_journals, sync
from nfbmr.errors import ConfigError
from nfbmr.paths import RunPaths, write_json
from nfbmr.records import read_record
from nfbmr.tracking import FolderTracker, Status
from tests.summaries import run_summary
from tune.records.driver import driver_lock
from tune.records.paths import AblationPaths, PlanPaths, SweepPaths
from tune.verify import Verification, find_plan, verify

EXPERIMENT = "nfbmr"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making one takes seconds, copying it does not."""
    from mlflow_server.client import connect

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(Destination(f"sqlite:///{path}")).search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty: Path) -> str:
    """The address of a store of one's own."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def recorded(root: Path, run_id: str, uri: str, parent_id: str | None = None) -> FolderTracker:
    """A record with a bit of everything, its end still to come."""
    tracker = FolderTracker(
        RunPaths(root).journal,
        run_id=run_id,
        parent_id=parent_id,
        system_metrics_every=None,
        destination=Destination.resolve(uri, EXPERIMENT).as_fields(),
    )
    tracker.params({"flow": {"blocks": 4}, "seed": 0})
    for step in (1, 2, 3):
        tracker.metrics({"flow/loss": 1 / step, "flow/validation_auroc": float("nan")}, step=step)
    tracker.metrics({"validation/image_auroc": 0.9})
    tracker.dataset("tiles", "ab" * 32, "group", "/data", {"train": 2})
    (root / "config.yaml").write_text("seed: 0\n")
    tracker.artifact(root / "config.yaml")
    (root / "model").mkdir(exist_ok=True)
    (root / "model" / "flow.safetensors").write_bytes(b"0123")
    tracker.model(root / "model")
    return tracker


def fitted(root: Path, auroc: float) -> None:
    write_json(RunPaths(root).identity, {"run_id": f"tiles-{root.name}"})
    run_summary(auroc).write(RunPaths(root).fitted)


ENDS: tuple[Status, ...] = ("finished", "pruned", "failed", "finished")


@pytest.fixture
def sweep(tmp_path: Path, uri: str) -> SweepPaths:
    """A sweep of four trials that is over, and was sent whole."""
    paths = SweepPaths(tmp_path / "runs" / "tiles")
    paths.root.mkdir(parents=True)
    paths.plan.write_text("name: tiles\n")
    recorded(paths.root, "tiles", uri).finish()
    study = optuna.create_study(
        study_name="tiles",
        storage=JournalStorage(JournalFileBackend(str(paths.study))),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for number, end in enumerate(ENDS):
        trial = study.ask()
        trial.set_user_attr("settings", {"flow.blocks": trial.suggest_int("flow.blocks", 2, 8)})
        recorded(paths.trial(number), f"tiles-{number:04d}", uri, "tiles").finish(end)
        if end == "finished":
            fitted(paths.trial(number), 0.5 + number / 10)
            study.tell(trial, 0.5 + number / 10)
        elif end == "pruned":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            trial.set_user_attr("error", "a loss that is not finite")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert all(sent.complete for sent in sync(find_journals([paths.root]), pause=0))
    return paths


class Server:
    """What a test does to MLflow behind our back."""

    def __init__(self, uri: str) -> None:
        from mlflow_server.client import connect

        self.uri = uri
        self.client = connect(Destination(uri))
        self.experiment = self.client.get_experiment_by_name(EXPERIMENT).experiment_id

    def runs(self, run_id: str) -> list[Any]:
        return self.client.search_runs([self.experiment], f"tags.`nfbmr.run_id` = '{run_id}'")

    def run(self, run_id: str) -> Any:
        (run,) = self.runs(run_id)
        return run

    def execute(self, statement: str, *values: Any) -> int:
        with sqlite3.connect(urlsplit(self.uri).path) as database:
            return database.execute(statement, values).rowcount

    def artifacts(self, run_id: str) -> Path:
        return Path(urlsplit(self.run(run_id).info.artifact_uri).path)


@pytest.fixture
def server(uri: str, sweep: SweepPaths) -> Server:
    return Server(uri)


def kinds(result: Verification) -> list[tuple[str, str, int]]:
    return [(difference.run, difference.kind, difference.count) for difference in result.differences]


def test_records_that_agree(sweep: SweepPaths) -> None:
    result = verify(sweep, mend=True)
    assert result.differences == []
    assert result.agreed
    assert result.runs == 5
    assert result.states == {"finished": 2, "pruned": 1, "failed": 1}


def test_a_copy_of_a_trials_folder_is_compared_as_well(sweep: SweepPaths) -> None:
    shutil.copytree(sweep.trial(1), sweep.trial(1).with_name("0001-backup"))
    assert verify(sweep).runs == 6


def remove_run(server: Server) -> None:
    server.client.delete_run(server.run("tiles-0000").info.run_id)


def copy_run(server: Server) -> None:
    tags = {"nfbmr.run_id": "tiles-0000", "nfbmr.parent_id": "tiles"}
    server.client.create_run(server.experiment, tags=tags, run_name="again")


def leave_running(server: Server) -> None:
    server.client.update_run(server.run("tiles-0000").info.run_id, status="RUNNING")


def forget_pruned(server: Server) -> None:
    server.client.delete_tag(server.run("tiles-0001").info.run_id, "nfbmr.state")


def cut_loose(server: Server) -> None:
    server.client.delete_tag(server.run("tiles-0000").info.run_id, "mlflow.parentRunId")


def lose_points(server: Server) -> None:
    run = server.run("tiles-0000").info.run_id
    assert (
        server.execute("delete from metrics where run_uuid = ? and key = 'flow/loss' and step > 1", run) == 2
    )


def lose_metric(server: Server) -> None:
    run = server.run("tiles-0000").info.run_id
    for table in ("metrics", "latest_metrics"):
        server.execute(f"delete from {table} where run_uuid = ? and key = 'validation/image_auroc'", run)


def lose_parameter(server: Server) -> None:
    server.execute(
        "delete from params where run_uuid = ? and key = 'seed'", server.run("tiles-0000").info.run_id
    )


def lose_files(server: Server) -> None:
    (server.artifacts("tiles-0000") / "config.yaml").unlink()
    (server.artifacts("tiles-0000") / "model" / "flow.safetensors").write_bytes(b"0")


def lose_dataset(server: Server) -> None:
    run = server.run("tiles-0000").info.run_id
    assert server.execute("delete from inputs where destination_id = ?", run) == 1


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (remove_run, ("0000", "child", 1)),
        (copy_run, ("0000", "duplicate", 1)),
        (leave_running, ("0000", "status", 1)),
        (forget_pruned, ("0001", "status", 1)),
        (cut_loose, ("0000", "parent", 1)),
        (lose_points, ("0000", "metrics", 2)),
        (lose_metric, ("0000", "metrics", 1)),
        (lose_parameter, ("0000", "parameters", 1)),
        (lose_files, ("0000", "artifacts", 2)),
        (lose_dataset, ("0000", "data set", 1)),
    ],
)
def test_what_mlflow_lacks_is_told_and_mended(
    sweep: SweepPaths, server: Server, harm: Callable[[Server], None], told: tuple[str, str, int]
) -> None:
    harm(server)
    looked = verify(sweep)
    assert kinds(looked) == [told]
    assert not looked.agreed
    assert kinds(verify(sweep)) == [told]  # looking changed nothing
    mended = verify(sweep, mend=True)
    assert kinds(mended) == [told]
    assert mended.agreed
    assert verify(sweep, mend=True).differences == []
    run = server.run("tiles-0000")
    assert run.data.tags["mlflow.parentRunId"] == server.run("tiles").info.run_id
    assert len(server.client.get_metric_history(run.info.run_id, "flow/loss")) == 3


def test_of_duplicates_the_oldest_stays_and_gets_what_the_younger_had(
    sweep: SweepPaths, server: Server
) -> None:
    old = server.run("tiles-0000")
    young = server.client.create_run(
        server.experiment,
        start_time=old.info.start_time - 1000,
        tags={"nfbmr.run_id": "tiles-0000", "nfbmr.parent_id": "tiles"},
    )
    # The journal was sent to what is now the younger one.
    assert verify(sweep, mend=True).agreed
    assert server.run("tiles-0000").info.run_id == young.info.run_id
    assert server.client.get_run(old.info.run_id).info.lifecycle_stage == "deleted"


def test_a_duplicate_parent_is_merged_and_its_children_hang_under_the_one_left(
    sweep: SweepPaths, server: Server
) -> None:
    started = server.run("tiles").info.start_time - 1000
    older = server.client.create_run(server.experiment, start_time=started, tags={"nfbmr.run_id": "tiles"})
    result = verify(sweep, mend=True)
    assert result.agreed, result.text()
    assert server.run("tiles").info.run_id == older.info.run_id
    for number in range(4):
        assert server.run(f"tiles-{number:04d}").data.tags["mlflow.parentRunId"] == older.info.run_id


def test_a_server_that_lost_everything_gets_everything(
    sweep: SweepPaths, empty: Path, tmp_path: Path
) -> None:
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    result = verify(sweep, mend=True)
    assert {kind for _, kind, _ in kinds(result)} == {"child"}
    assert result.agreed, result.text()


def test_the_end_that_optuna_was_told_is_the_end(sweep: SweepPaths, uri: str, server: Server) -> None:
    worker = recorded(sweep.trial(2), "tiles-0002", uri, "tiles")  # an attempt whose worker was killed
    worker._journal.close()
    assert ("0002", "journal", 1) in kinds(verify(sweep))
    assert read_record(RunPaths(sweep.trial(2)).journal).status == "running"
    assert verify(sweep, mend=True).agreed
    assert server.run("tiles-0002").info.status == "FAILED"
    assert server.run("tiles-0002").data.tags["nfbmr.error"] == "a loss that is not finite"


def test_a_trial_without_a_folder_that_optuna_knows_gets_its_child(sweep: SweepPaths, server: Server) -> None:
    shutil.rmtree(sweep.trial(2))
    server.client.delete_run(server.run("tiles-0002").info.run_id)
    assert verify(sweep, mend=True).agreed
    run = server.run("tiles-0002")
    assert run.info.status == "FAILED"
    assert run.info.run_name.startswith("0002 blocks=")


def test_a_driver_that_was_killed_leaves_nothing_running(sweep: SweepPaths, uri: str, server: Server) -> None:
    recorded(sweep.root, "tiles", uri)._journal.close()
    sync([sweep.root / "tracking"], pause=0)
    result = verify(sweep, mend=True)
    assert result.agreed, result.text()
    assert server.run("tiles").info.status == "KILLED"


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

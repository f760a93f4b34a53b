"""What MLflow lacks of a sweep is told, and sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_server.tracking.sync import sync
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from tests.tune.verify.three_records import Server, kinds, recorded, remove_run
from tune.records.paths import SweepPaths
from tune.verify import verify


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
    sweep: SweepPaths, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
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

"""What a tracking server that is down, slow, replaced or asked twice does to a record: nothing."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlflow_server.destination import Destination
from mlflow_server.tracking.journal_uploader import JournalUploader
from mlflow_server.tracking.sync import find_journals, status, sync
from mlflow_server.tracking.tracker import MLflowTracker
from nfbmr.journal import FILE, Journal, entries
from nfbmr.records import Record, read_record
from nfbmr.tracking import FolderTracker

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

OnServer = Callable[..., list[Record]]
Connecting = Callable[[], AbstractContextManager[list[int]]]


def recorded(folder: Path, uri: str, run_id: str = "r1", parent_id: str | None = None) -> FolderTracker:
    """A record that is meant for a server, and of which nothing was sent."""
    destination = Destination.resolve(uri).as_fields()
    return FolderTracker(
        folder, run_id=run_id, parent_id=parent_id, system_metrics_every=None, destination=destination
    )


def test_a_process_killed_in_the_middle_loses_nothing(tmp_path: Path, uri: str, on_server: OnServer) -> None:
    folder = tmp_path / "run" / "tracking"
    code = """if True:
        import sys
        from pathlib import Path
        from mlflow_server.tracking.tracker import MLflowTracker
        tracker = MLflowTracker(Path(sys.argv[1]), run_id="r1", uri=sys.argv[2])
        tracker.params({"seed": 0})
        for step in range(10**9):
            tracker.metrics({"flow/loss": 1 / (step + 1)}, step=step)
            if step % 100 == 0:
                print(step, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder), uri], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        logged = 0
        while logged < 500:
            logged = int(process.stdout.readline())
        process.kill()

    (sent,) = sync([folder])
    assert sent.complete
    (record,) = on_server(uri, "r1")
    points = record.metrics["flow/loss"]
    assert len(points) > logged
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 1)) for step in range(len(points))]
    # Nobody will ever close this record, so sending it did, at its last sign of life.
    assert record.status == read_record(folder).status == "killed"
    assert record.ended == max(p.time for p in points + [p for ps in record.metrics.values() for p in ps])


@pytest.mark.slow
def test_a_server_that_is_down_costs_nothing_and_gets_everything_later(
    tmp_path: Path,
    uri: str,
    free_port: int,
    serve: Callable[[str, int], str],
    on_server: OnServer,
    files_on_server: Callable[[str, str], dict[str, bytes]],
    caplog: pytest.LogCaptureFixture,
    connecting: Connecting,
) -> None:
    run = tmp_path / "runs" / "a run"
    address = f"http://127.0.0.1:{free_port}"
    with connecting() as threads:
        tracker = MLflowTracker(run / "tracking", run_id="r1", uri=address, system_metrics_every=0.2)
        for step in range(200):
            tracker.metrics({"flow/loss": 1 / (step + 1)}, step=step)
        (run / "report.html").write_text("<p>Größe</p>")
        tracker.artifact(run / "report.html")
        tracker.metrics({"test/aupro": math.nan, "test/ratio": math.inf})
        tracker.dataset("tiles", "ab" * 32, "group", "/data", {"train": 2})
        tracker.finish()  # returns although nobody has listened there yet
        deadline = time.monotonic() + 240
        while not threads:  # it is tried, though never by whoever records
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert threading.get_ident() not in threads
    assert f"nfbmr track sync '{run}'" in caplog.text

    track = ["track", "sync", str(tmp_path / "runs")]
    down = nfbmr(*track)
    assert down.exit_code == 1
    assert "still to send" in down.output

    assert serve(uri, free_port) == address
    back = nfbmr(*track)
    assert back.exit_code == 0, back.output
    (record,) = on_server(address, "r1")
    assert [p.value for p in record.metrics["flow/loss"]] == [1 / (step + 1) for step in range(200)]
    assert math.isnan(record.metrics["test/aupro"][0].value)
    assert record.metrics["test/ratio"][0].value > 1e300
    assert record.status == "finished"
    assert record.datasets[0].split == "group"
    journaled = read_record(run / "tracking")
    assert (record.started, record.ended) == (journaled.started, journaled.ended)
    assert {p.time for p in record.metrics["flow/loss"]} == {p.time for p in journaled.metrics["flow/loss"]}
    files = files_on_server(address, str(record.models["mlflow"]))
    assert files["report.html"] == "<p>Größe</p>".encode()


def test_a_server_that_never_answers_does_not_slow_the_caller(
    tmp_path: Path, tar_pit: Any, connecting: Connecting
) -> None:
    """That every call returns is the test: whoever waited for the answer would wait for an hour."""
    folder = tmp_path / "run" / "tracking"
    with connecting() as threads:
        tracker = MLflowTracker(
            folder, run_id="r1", uri=tar_pit.address, system_metrics_every=None, patience=1.0
        )
        tracker.metrics({"flow/loss": 0.0}, step=0)
        tar_pit.wait()
        for step in range(1, 300):
            tracker.metrics({"flow/loss": 0.0}, step=step)
        assert len(read_record(folder).metrics["flow/loss"]) == 300
        tracker.finish()
    assert threads
    assert threading.get_ident() not in threads
    assert read_record(folder).status == "finished"
    assert status(folder).waiting >= 300


def test_sending_twice_changes_nothing(tmp_path: Path, uri: str, on_server: OnServer) -> None:
    folder = tmp_path / "run" / "tracking"
    tracker = recorded(folder, uri)
    tracker.params({"seed": 0})
    for step in range(50):
        tracker.metrics({"flow/loss": math.nan if step == 7 else 0.5}, step=step)
    tracker.dataset("tiles", "ab" * 32, "group", "/data", {"train": 2})
    tracker.finish()
    sync([folder])
    (before,) = on_server(uri, "r1")
    (again,) = sync([folder], again=True)
    # As after a crash between the server's answer and the note of it.
    for note in folder.glob("sent-*.json"):
        note.unlink()
    (third,) = sync([folder])
    (after,) = on_server(uri, "r1")
    assert again.complete
    assert third.complete
    assert len(after.metrics["flow/loss"]) == 50
    assert repr(after) == repr(before)


def test_two_at_once_send_a_journal_once(tmp_path: Path, uri: str, on_server: OnServer) -> None:
    folder = tmp_path / "run" / "tracking"
    tracker = recorded(folder, uri)
    for step in range(300):
        tracker.metrics({"flow/loss": float(step)}, step=step)
    tracker.finish()
    threads = [threading.Thread(target=lambda: sync([folder], pause=0.2)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (record,) = on_server(uri, "r1")
    assert len(record.metrics["flow/loss"]) == 300


def test_a_torn_last_line_is_left_out_and_the_rest_is_sent(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    folder = tmp_path / "run" / "tracking"
    tracker = recorded(folder, uri)
    tracker.metrics({"flow/loss": 0.5}, step=0)
    tracker.finish("killed")
    with (folder / FILE).open("ab") as file:
        file.write(b'{"kind": "metrics", "time": 17')
    (sent,) = sync([folder])
    assert sent.complete
    again = recorded(folder, uri)
    again.metrics({"flow/loss": 0.4}, step=1)
    again.finish()
    (sent,) = sync([folder])
    assert sent.complete
    (record,) = on_server(uri, "r1")
    assert [p.value for p in record.metrics["flow/loss"]] == [0.5, 0.4]
    assert record.status == "finished"


def test_children_hang_under_their_parent_whoever_comes_first(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    child, parent = tmp_path / "runs" / "child" / "tracking", tmp_path / "runs" / "parent" / "tracking"
    recorded(child, uri, "child", parent_id="parent").finish()
    (early,) = sync([child], pause=0)
    assert not early.complete
    recorded(parent, uri, "parent").finish()
    runs = sync(find_journals([tmp_path / "runs"]), pause=0)
    assert [run.run_id for run in runs] == ["parent", "child"]
    assert all(run.complete for run in runs)
    (child_record,) = on_server(uri, "child")
    (parent_record,) = on_server(uri, "parent")
    assert child_record.parent_id == str(parent_record.models["mlflow"])


def test_what_the_server_will_never_take_does_not_hold_up_the_rest(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    run = tmp_path / "run"
    tracker = recorded(run / "tracking", uri)
    (run / "picture.png").write_bytes(b"png")
    tracker.artifact(run / "picture.png")
    tracker.params({"long": "x" * 7000})
    tracker.tags({"n" * 300: "y" * 9000})
    tracker.metrics({"recall@0.5": 0.25, "../up": 0.5, "riß/划痕": 0.75})
    (run / "picture.png").unlink()
    tracker.finish()
    (sent,) = sync([run / "tracking"])
    assert not sent.complete
    assert sent.waiting == 0
    assert len(sent.refused) == 1
    assert "picture.png" in sent.refused[0]
    (record,) = on_server(uri, "r1")
    assert record.status == "finished"
    assert "cut, 7000 characters in all" in record.params["long"]
    assert sorted(points[0].value for points in record.metrics.values()) == [0.25, 0.5, 0.75]
    assert record.metrics["riß/划痕"][0].value == 0.75


def test_a_changed_parameter_of_a_later_attempt_is_kept_as_a_tag(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    for epochs in (2, 4):
        tracker = recorded(tmp_path / "run" / "tracking", uri)
        tracker.params({"train.flow.epochs": epochs, "seed": 0})
        tracker.finish()
        (sent,) = sync([tmp_path / "run" / "tracking"])
        assert sent.complete
    (record,) = on_server(uri, "r1")
    assert record.params == {"train.flow.epochs": "2", "seed": "0"}
    assert record.tags["changed.train.flow.epochs"] == "4"


def test_a_database_that_was_replaced_gets_the_whole_run(
    tmp_path: Path, uri: str, empty_database: Path, on_server: OnServer
) -> None:
    folder = tmp_path / "run" / "tracking"
    first = recorded(folder, uri)
    first.metrics({"flow/loss": 0.5}, step=0)
    first.finish("killed")
    sync([folder])
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    second = recorded(folder, uri)
    second.metrics({"flow/loss": 0.4}, step=1)
    second.finish()
    sync([folder])
    (record,) = on_server(uri, "r1")
    assert [p.value for p in record.metrics["flow/loss"]] == [0.5, 0.4]


def test_a_deleted_experiment_is_the_reason_and_other_runs_are_sent(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("old"))
    folders = [tmp_path / name / "tracking" for name in ("a", "b")]
    for folder, experiment in zip(folders, ("old", "new"), strict=True):
        tracker = MLflowTracker(folder, run_id=folder.parent.name, uri=uri, experiment=experiment)
        tracker.metrics({"flow/loss": 0.5}, step=1)
        tracker.finish()
    warnings = [message for message in caplog.messages if "the experiment 'old' was deleted" in message]
    assert any("nfbmr track sync" in message for message in warnings)
    assert "cannot be reached" not in caplog.text
    waiting, sent = sync(folders, pause=60)
    assert "mlflow experiments restore" in waiting.problem
    assert waiting.problem in waiting.line()
    assert sent.complete
    client.restore_experiment(client.get_experiment_by_name("old").experiment_id)
    assert sync(folders[:1])[0].complete


def test_a_run_that_was_deleted_on_the_server_waits_for_a_decision(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "run" / "tracking"
    recorded(folder, uri).finish("killed")
    sync([folder])
    MlflowClient(uri).delete_run(status(folder).mlflow_run_id)
    recorded(folder, uri).finish()
    (waiting,) = sync([folder], pause=0)
    assert not waiting.complete
    assert "deleted" in waiting.problem
    (anew,) = sync([folder], again=True)
    assert anew.complete
    assert len(on_server(uri, "r1")) == 1


def test_a_run_that_goes_on_is_not_closed_by_sending_it(
    tmp_path: Path, uri: str, on_server: OnServer
) -> None:
    folder = tmp_path / "run" / "tracking"
    tracker = recorded(folder, uri)
    tracker.metrics({"flow/loss": 0.5}, step=0)
    (sent,) = sync([folder])
    assert sent.status == "running"
    (record,) = on_server(uri, "r1")
    assert record.status == "running"
    tracker.finish()
    assert [entry.fields["status"] for entry in entries(folder) if entry.kind == "finish"] == ["finished"]


def test_a_damaged_note_of_what_was_sent_means_sending_again(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "run" / "tracking"
    recorded(folder, uri).finish()
    sync([folder])
    (note,) = folder.glob("sent-*.json")
    note.write_text("{")
    (sent,) = sync([folder])
    assert sent.complete


def test_an_entry_of_a_newer_version_is_named_not_fatal(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "run" / "tracking"
    recorded(folder, uri).finish()
    journal = Journal(folder)
    journal.append("hologram")
    journal.close()
    JournalUploader(folder, Destination.resolve(uri)).ship()
    assert "hologram" in status(folder).refused[0]


def nfbmr(*arguments: str) -> Result:
    from nfbmr.cli.main import cli

    return CliRunner().invoke(cli, arguments)

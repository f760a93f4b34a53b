"""Where runs go: kinds, addresses, and what people are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.destination import Destination, ui_hint, without_password
from mlflow_server.tracking.sync import find_journals, status, sync
from nfbmr.cli.main import cli, main
from nfbmr.config import TrackingConfig
from nfbmr.environment import code_revision, environment
from nfbmr.errors import TrackingError
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.trackers import make_tracker, ui_url
from nfbmr.tracking import FolderTracker, NoTracker


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_kind_chooses_the_tracker(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    assert isinstance(make_tracker(TrackingConfig(kind="none"), paths, "r1"), NoTracker)
    tracker = make_tracker(TrackingConfig(kind="folder", run_name="mine"), paths, "r1", tags={"a": 1})
    assert isinstance(tracker, FolderTracker)
    tracker.finish()
    record = read_record(paths.journal)
    assert (record.run_name, record.tags["a"]) == ("mine", "1")


def test_the_address_is_the_one_given_else_the_variable_else_sqlite_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Destination.resolve().uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert Destination.resolve().uri == "http://tracking:5000"
    assert Destination.resolve("sqlite:///other.db").uri == f"sqlite:///{tmp_path / 'other.db'}"


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///data/mlruns"])
def test_a_plain_folder_is_refused_with_what_to_do(uri: str) -> None:
    with pytest.raises(TrackingError, match="sqlite:///"):
        Destination.resolve(uri)


def test_artifacts_lie_beside_the_database_and_a_server_keeps_its_own(tmp_path: Path) -> None:
    assert Destination.resolve().artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert Destination.resolve("http://tracking:5000").artifact_location is None


@given(st.text(min_size=1, max_size=20), st.sampled_from(["http", "https", "postgresql"]))
def test_a_password_is_never_kept(password: str, scheme: str) -> None:
    uri = f"{scheme}://ann:{quote(password, safe='')}-9f3@example.com:5000/path"
    kept = without_password(uri)
    assert "-9f3" not in kept
    assert kept == f"{scheme}://ann@example.com:5000/path"


def test_a_kept_address_finds_its_password_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = Destination.resolve("https://ann:secret@example.com").as_fields()
    assert "secret" not in json.dumps(fields)
    assert Destination.stored(fields).uri == "https://ann@example.com"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@example.com")
    assert Destination.stored(fields).uri == "https://ann:secret@example.com"
    assert Destination.stored(fields).key == Destination.resolve("https://ann@example.com").key


def test_the_hint_is_an_address_or_a_command(tmp_path: Path) -> None:
    assert ui_hint("https://ann:secret@example.com") == "https://ann@example.com"
    assert ui_hint().endswith(" server")  # the database is the one of this folder
    assert f"--backend sqlite:///{tmp_path / 'other.db'}" in ui_hint("sqlite:///other.db")


def test_a_run_the_server_knows_is_named_by_its_page(tmp_path: Path, uri: str) -> None:
    config = TrackingConfig(kind="mlflow", uri=uri)
    journal = tmp_path / "runs" / "a" / "tracking"
    FolderTracker(
        journal,
        run_id="a",
        system_metrics_every=None,
        destination=Destination.resolve(uri, config.experiment).as_fields(),
    ).finish()
    assert ui_url(config, journal) == ui_url(config) == ui_hint(uri)
    (sent,) = sync([journal])
    told = ui_url(config, journal)
    assert told is not None
    assert told.startswith(ui_hint(uri))
    assert "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=nfbmr-runs\n" in told
    assert told.endswith(f"/#/experiments/1/runs/{sent.mlflow_run_id}?workflowType=machine_learning")


def folder_run(run: Path, run_id: str = "r1") -> FolderTracker:
    return FolderTracker(run / "tracking", run_id=run_id, system_metrics_every=None)


def test_a_run_kept_in_its_folder_misses_nothing(tmp_path: Path) -> None:
    folder_run(tmp_path / "runs" / "a").finish()
    result = CliRunner().invoke(cli, ["track", "status", "--json"])
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["complete"] is True
    assert summary["runs"][0]["status"] == "finished"


def test_status_with_an_address_counts_what_it_would_have_to_take(tmp_path: Path) -> None:
    tracker = folder_run(tmp_path / "runs" / "a")
    tracker.metrics({"a": 1.0})
    tracker.finish()
    assert main(["track", "status", "runs", "--uri", "http://127.0.0.1:9"]) == 1
    assert status(tmp_path / "runs" / "a" / "tracking", "http://127.0.0.1:9").waiting == 3


@pytest.mark.parametrize("arguments", [["runs"], ["no such"], []])
def test_folders_without_runs_are_bad_input(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["track", "sync", *arguments]) == 2
    assert "name the folder of a run" in capsys.readouterr().err


def test_a_run_is_found_by_its_folder_by_the_journals_and_by_the_folder_above(tmp_path: Path) -> None:
    folder_run(tmp_path / "runs" / "deep" / "a").finish()
    journal = tmp_path / "runs" / "deep" / "a" / "tracking"
    for path in (journal, journal.parent, tmp_path / "runs"):
        assert find_journals([path, path]) == [journal]


def test_the_environment_is_plain_json_and_names_versions() -> None:
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["packages"]["torch"]
    assert facts["machine"]["cpus"] >= 1


def test_the_revision_is_the_checkouts_and_says_when_files_differ(tmp_path: Path) -> None:
    assert code_revision(tmp_path) == {"revision": None, "dirty": None}

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "first")
    clean = code_revision(tmp_path)
    assert len(str(clean["revision"])) == 40
    assert clean["dirty"] is False
    (tmp_path / "a.py").write_text("2")
    assert code_revision(tmp_path) == {"revision": clean["revision"], "dirty": True}


def test_looking_at_records_needs_no_mlflow(tmp_path: Path) -> None:
    folder_run(tmp_path / "runs" / "a").finish()
    code = "import sys; sys.modules['mlflow'] = None\nfrom nfbmr.cli.main import main\n"
    code += "sys.exit(main(['track', 'status', 'runs']))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr

"""Backups taken while sixteen write, restored, and compared with what each writer had been told."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

WRITERS = Path(__file__).with_name("writers.py")
BACKENDS = ["sqlite", "postgresql"]


def rows(address: str, words: str) -> list:
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        found = list(connection.execute(sa.text(words)).all())
    engine.dispose()
    return found


@pytest.fixture
def new_database(request, tmp_path):
    """An empty database: its address, that address with a password, and an environment."""

    def make(kind: str, name: str) -> tuple[str, str, dict[str, str]]:
        if kind == "sqlite":
            address = f"sqlite:///{tmp_path / name / 'mlflow.db'}"
            return address, address, {}
        postgres = request.getfixturevalue("postgres")
        address, env = postgres.database()
        return address, postgres.full(address).replace("postgresql:", "postgresql+psycopg:"), env

    return make


def write(running, folder: Path, environment, *, threads: int, seconds: float) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    words = [running.address, f"w{time.monotonic_ns()}", str(threads), str(seconds), str(folder)]
    return subprocess.Popen(
        [sys.executable, str(WRITERS), *words], env=environment(), stdout=subprocess.PIPE, text=True
    )


def tell(writer: subprocess.Popen[str]) -> dict:
    said = json.loads(writer.communicate(timeout=240)[0])
    assert said["errors"] == []
    return said["runs"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backup_under_load_restores_to_one_moment(kind, tmp_path, start, call, environment, new_database):
    address, full, env = new_database(kind, "old")
    running = start(tmp_path / "old", "--backend", address, env=env)
    writer = write(running, tmp_path / "files", environment, threads=16, seconds=900)

    def until(count: str, more_than: int) -> None:
        deadline = time.monotonic() + 600
        while rows(full, count)[0][0] <= more_than:
            assert time.monotonic() < deadline, count
            time.sleep(0.5)

    until("SELECT count(*) FROM runs WHERE status = 'FINISHED'", 5)
    made = []
    for number in range(2):
        place = ["--backend", address, "--json"]
        if kind == "postgresql":
            place += ["--artifacts", str(tmp_path / "old" / "mlartifacts")]
        completed = call(
            "server", "backup", str(tmp_path / f"backup-{number}"), *place, cwd=tmp_path / "old", env=env
        )
        made.append(json.loads(completed.stdout))
        until("SELECT count(*) FROM metrics", made[-1]["rows"]["metrics"])
    (tmp_path / "files" / "stop").touch()
    told = tell(writer)
    assert running.end() == 0
    assert running.said() == ""
    assert made[0]["rows"]["metrics"] < made[1]["rows"]["metrics"]
    for number, backup in enumerate(made):
        folder = tmp_path / f"backup-{number}"
        sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
        assert sums.returncode == 0
        new, new_full, new_env = new_database(kind, f"new-{number}")
        artifacts = tmp_path / f"new-{number}" / "mlartifacts"
        call(
            "server", "restore", str(folder), "--backend", new, "--artifacts", str(artifacts),
            cwd=tmp_path, env=new_env,
        )  # fmt: skip
        restored = start(
            tmp_path / f"new-{number}", "--backend", new, "--artifacts", str(artifacts), env=new_env
        )
        check_restored(restored, new_full, told, backup)
        assert restored.end() == 0


def check_restored(restored, database, told, backup) -> None:
    known = dict(rows(database, "SELECT run_uuid, status FROM runs"))
    points = dict(rows(database, "SELECT run_uuid, count(*) FROM metrics GROUP BY run_uuid"))
    assert sum(points.values()) == backup["rows"]["metrics"]
    assert sum(status == "FINISHED" for status in known.values()) >= 5
    for run_id, status in known.items():
        if status != "FINISHED":
            continue
        # what was finished when the database was copied is whole, its artifacts included
        assert points[run_id] == told[run_id]["points"]
        listed = restored.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=pictures").json()
        (file,) = listed["files"]
        content = restored.ask("GET", f"/get-artifact?run_uuid={run_id}&path={file['path']}").text
        assert content == told[run_id]["file"]


@pytest.fixture(scope="module")
def small(tmp_path_factory, start, call, environment):
    """A folder with a server's records of one run, a backup of it, and the server at an end."""
    folder = tmp_path_factory.mktemp("small")
    running = start(folder)
    told = tell(write(running, folder / "files", environment, threads=1, seconds=0))
    call("server", "backup", "saved", cwd=folder)
    assert running.end() == 0
    return folder, told


def test_a_backup_can_be_moved_and_restored_elsewhere(small, tmp_path, start, call):
    folder, told = small
    (folder / "saved" / "nothing").mkdir(exist_ok=True)
    completed = call("server", "restore", str(folder / "saved"), "--json", cwd=tmp_path)
    said = json.loads(completed.stdout)
    assert said["rows"]["runs"] == 1
    assert said["files"] == 1
    # runs on this machine wrote artifacts themselves, under the name of the old folder
    (place,) = rows(f"sqlite:///{tmp_path / 'mlflow.db'}", "SELECT artifact_uri FROM runs")[0]
    assert place.startswith(f"file://{tmp_path}/mlartifacts/")
    restored = start(tmp_path)
    (run_id,) = told
    name = restored.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=pictures").json()
    content = restored.ask("GET", f"/get-artifact?run_uuid={run_id}&path={name['files'][0]['path']}").text
    assert content == told[run_id]["file"]
    restored.end()


def test_only_its_owner_can_look_into_a_backup(small):
    folder, _ = small
    assert (folder / "saved").stat().st_mode & 0o077 == 0


def test_nothing_is_restored_over_anything(small, tmp_path, call):
    folder, _ = small
    call("server", "restore", str(folder / "saved"), cwd=tmp_path)
    before = (tmp_path / "mlflow.db").read_bytes()
    again = call("server", "restore", str(folder / "saved"), cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert (tmp_path / "mlflow.db").read_bytes() == before
    elsewhere = call(
        "server", "restore", str(folder / "saved"), "--backend", "sqlite:///b.db", cwd=tmp_path, check=False
    )
    assert elsewhere.returncode == 0  # the same artifacts are there already
    (tmp_path / "mlartifacts" / "strange.txt").write_text("x")
    foreign = call(
        "server", "restore", str(folder / "saved"), "--backend", "sqlite:///c.db", cwd=tmp_path, check=False
    )
    assert foreign.returncode == 2
    assert "strange.txt" in foreign.stderr


def test_a_damaged_backup_is_not_restored(small, tmp_path, call):
    import shutil

    folder, _ = small
    for number, name in enumerate(("database.sqlite", "artifacts")):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(folder / "saved", copy)
        file = (
            copy / name
            if name.endswith("sqlite")
            else next(p for p in (copy / name).rglob("*") if p.is_file())
        )
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
        target = tmp_path / f"target-{number}"
        target.mkdir()
        completed = call("server", "restore", str(copy), cwd=target, check=False)
        assert completed.returncode == 2
        assert "damaged" in completed.stderr
        assert not (target / "mlflow.db").exists()
    unfinished = tmp_path / "copy-0"
    (unfinished / "backup.json").unlink()
    assert (
        "not a finished backup"
        in call("server", "restore", str(unfinished), cwd=tmp_path, check=False).stderr
    )


def test_without_a_database_there_is_nothing_to_back_up(tmp_path, call):
    completed = call("server", "backup", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "nothing in this database" in completed.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "backups").exists() or not any((tmp_path / "backups").iterdir())


def test_a_backup_waits_for_no_collection_and_none_for_it(small, tmp_path, call):
    import fcntl

    folder, _ = small
    with (folder / ".mlflow.db.upkeep").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for words in (["backup", str(tmp_path / "b")], ["gc"], ["upgrade"]):
            completed = call("server", *words, cwd=folder, check=False)
            assert completed.returncode == 2
            assert "under way" in completed.stderr


def test_an_object_store_is_backed_up_and_restored(tmp_path, start, call, environment, s3):
    place = {**s3, "NFBMR_SERVER_ARTIFACTS": "s3://parts/mlflow"}
    running = start(tmp_path, env=place)
    told = tell(write(running, tmp_path / "files", environment, threads=1, seconds=0))
    (run_id,) = told
    completed = call("server", "backup", "saved", "--json", cwd=tmp_path, env=place)
    assert json.loads(completed.stdout)["files"] == 1
    running.end()
    elsewhere = {
        **s3,
        "NFBMR_SERVER_ARTIFACTS": "s3://parts/restored",
        "NFBMR_SERVER_BACKEND": "sqlite:///two.db",
    }
    call("server", "restore", "saved", cwd=tmp_path, env=elsewhere)
    restored = start(tmp_path, env=elsewhere)
    listed = restored.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=pictures").json()[
        "files"
    ]
    content = restored.ask("GET", f"/get-artifact?run_uuid={run_id}&path={listed[0]['path']}").text
    assert content == told[run_id]["file"]
    restored.end()
    assert running.said() == restored.said() == ""


def test_sqlite_says_it_is_whole(small):
    folder, _ = small
    found = sqlite3.connect(folder / "saved" / "database.sqlite")
    assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert found.execute("PRAGMA foreign_key_check").fetchall() == []
    found.close()

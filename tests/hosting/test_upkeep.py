"""Upgrades, which want a way back, and garbage collection, which must not take what is needed."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlflow_server.hosting.backup import Backup
from mlflow_server.hosting.database import Database, newest_schema
from mlflow_server.hosting.settings import Backend

BACKENDS = ["sqlite", "postgresql"]


# Upgrades


def make_old(backend: Backend, steps: int = 6) -> str:
    """Tables as an older MLflow made them, with an experiment and a run; their version."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    with Database(backend) as database:
        config = _get_alembic_config(backend.uri)
        versions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
        Base.metadata.create_all(database.engine)
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, versions[steps])
        with database.engine.begin() as connection:
            add_run(connection, "a" * 32)
    return versions[steps]


def add_run(connection, run_id: str) -> None:
    now = int(time.time() * 1000)
    known = connection.execute(sa.text("SELECT count(*) FROM experiments WHERE experiment_id = 7")).scalar()
    if not known:
        connection.execute(
            sa.text(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage,"
                " creation_time, last_update_time)"
                " VALUES (7, 'old parts', 'mlflow-artifacts:/7', 'active', :now, :now)"
            ),
            {"now": now},
        )
    connection.execute(
        sa.text(
            "INSERT INTO runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri,"
            " experiment_id, user_id, source_type, source_name, entry_point_name, source_version) VALUES"
            " (:id, 'an old run', 'FINISHED', :now, :now, 'active', :place, 7, '', 'LOCAL', '', '', '')"
        ),
        {"id": run_id, "now": now, "place": f"mlflow-artifacts:/7/{run_id}/artifacts"},
    )
    for table in ("metrics", "latest_metrics"):
        connection.execute(
            sa.text(
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan)"
                " VALUES ('test/image_auroc', 0.97, :now, :id, 0, :no)"
            ),
            {"id": run_id, "now": now, "no": False},
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS)
def test_an_upgrade_makes_a_backup_of_what_is_there_first(kind, tmp_path, request, start, call):
    if kind == "sqlite":
        address = full = f"sqlite:///{tmp_path / 'mlflow.db'}"
        env = {}
    else:
        postgres = request.getfixturevalue("postgres")
        address, env = postgres.database()
        full = postgres.full(address)
    backend = Backend.of(full)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = make_old(backend)
    with Database(backend) as database, database.connection() as connection:
        add_run(connection, "b" * 32)
    place = ["--backend", address]

    refused = call("server", "--port", "0", *place, cwd=tmp_path, env=env, check=False)
    assert refused.returncode == 2
    assert "another version of MLflow" in refused.stderr
    assert "nfbmr server upgrade" in refused.stderr

    (tmp_path / "taken").mkdir()
    taken = call("server", "upgrade", "--backup", "taken", *place, cwd=tmp_path, env=env, check=False)
    assert taken.returncode == 2
    assert "is there already" in taken.stderr
    with Database(backend) as database:
        assert database.schema().records == old

    collected = json.loads(
        call("server", "upgrade", "--backup", "before", "--json", *place, cwd=tmp_path, env=env).stdout
    )
    assert collected["upgraded"] is True
    assert (collected["before"]["records"], collected["after"]["records"]) == (old, newest_schema().records)
    assert Backup.read(tmp_path / "before").schema.records == old
    assert Backup.read(tmp_path / "before").rows["runs"] == 2

    running = start(tmp_path, *place, env=env)
    found = running.post("runs/search", {"experiment_ids": ["7"]}).json()["runs"]
    assert {each["info"]["run_name"] for each in found} == {"an old run"}
    assert [each["data"]["metrics"][0]["value"] for each in found] == [0.97, 0.97]
    busy = call("server", "upgrade", *place, cwd=tmp_path, env=env, check=False)
    assert busy.returncode == 2
    assert "a server is running" in busy.stderr
    running.end()
    again = call("server", "upgrade", "--json", *place, cwd=tmp_path, env=env)
    assert json.loads(again.stdout)["upgraded"] is False


def test_newer_tables_than_the_installed_ones_are_left_alone(tmp_path, call):
    backend = Backend.of(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with Database(backend) as database:
        database.create("mlflow-artifacts:/")
        with database.connection() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = 'ffffffffffff'"))
    completed = call("server", "upgrade", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "newer MLflow" in completed.stderr
    with Database(backend) as database:
        assert database.schema().records == "ffffffffffff"


def test_something_else_is_not_taken_for_a_server(tmp_path, call):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE recipes (name TEXT)"))
    engine.dispose()
    for words in (["--port", "0"], ["backup"], ["upgrade"], ["gc"]):
        completed = call("server", *words, cwd=tmp_path, check=False)
        assert completed.returncode == 2
        assert "something else" in completed.stderr
    (tmp_path / "text.db").write_text("not a database at all, but a text of some length" * 50)
    completed = call("server", "--backend", "sqlite:///text.db", "--port", "0", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "not a database" in completed.stderr


# Garbage


@pytest.fixture(scope="module")
def filled(tmp_path_factory, start):
    """A server with runs to keep, to remove, and one that is removed although a model comes from it."""
    running = start(tmp_path_factory.mktemp("garbage"), "--artifacts", "kept-here", "--auth",
                    env={"NFBMR_ADMIN_PASSWORD": "the-admin-password"})  # fmt: skip
    made = {}
    for name in ("good", "removed", "champion", "elsewhere"):
        experiment = "parts" if name != "elsewhere" else "other parts"
        known = running.ask(
            "GET", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}", user="admin"
        )
        number = (
            known.json()["experiment"]["experiment_id"]
            if known.ok
            else running.post("experiments/create", {"name": experiment}, "admin").json()["experiment_id"]
        )
        info = running.post("runs/create", {"experiment_id": number}, "admin").json()["run"]["info"]
        place = f"/api/2.0/mlflow-artifacts/artifacts/{number}/{info['run_id']}/artifacts"
        assert running.ask("PUT", f"{place}/model/weights.bin", user="admin", data=b"w" * 1000).ok
        made[name] = {"id": info["run_id"], "experiment": number, "place": place, "uri": info["artifact_uri"]}
    champion = made["champion"]
    running.post("registered-models/create", {"name": "screws"}, "admin")
    body = {"name": "screws", "source": f"{champion['uri']}/model", "run_id": champion["id"]}
    assert running.post("model-versions/create", body, "admin").ok
    for name in ("removed", "champion"):
        assert running.post("runs/delete", {"run_id": made[name]["id"]}, "admin").ok
    assert running.post("experiments/delete", {"experiment_id": made["elsewhere"]["experiment"]}, "admin").ok
    return running, made


def files_of(running, run) -> list[Path]:
    folder = running.folder / "kept-here" / run["experiment"] / run["id"]
    return [path for path in folder.rglob("*") if path.is_file()]


def test_garbage_is_collected_and_nothing_else(filled, call):
    running, made = filled
    place = ["--artifacts", "kept-here", "--json"]
    young = json.loads(call("server", "gc", "--older-than", "1d", *place, cwd=running.folder).stdout)
    assert (young["runs"], young["experiments"], young["files"]) == ([], [], 0)
    wanted = {made["removed"]["id"], made["elsewhere"]["id"]}
    answer = json.loads(call("server", "gc", "--dry-run", *place, cwd=running.folder).stdout)
    assert set(answer["runs"]) == wanted
    assert (answer["files"], answer["size"]) == (2, 2000)
    assert answer["kept"] == [made["champion"]["id"]]
    assert all(files_of(running, run) for run in made.values())
    collected = json.loads(call("server", "gc", *place, cwd=running.folder).stdout)
    assert {**collected, "dry_run": True} == answer
    assert collected["experiments"] == [made["elsewhere"]["experiment"]]
    for name, run in made.items():
        gone = name in ("removed", "elsewhere")
        assert bool(files_of(running, run)) is not gone, name
        known = running.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run['id']}", user="admin")
        assert known.status_code == (404 if gone else 200), name
    content = running.ask("GET", f"{made['champion']['place']}/model/weights.bin", user="admin").content
    assert content == b"w" * 1000
    again = json.loads(call("server", "gc", *place, cwd=running.folder).stdout)
    assert (again["runs"], again["files"]) == ([], 0)
    assert running.post("runs/restore", {"run_id": made["champion"]["id"]}, "admin").ok


def test_artifacts_that_are_not_the_servers_are_left_alone(tmp_path, call, start):
    running = start(tmp_path)
    number = running.post("experiments/create", {"name": "parts"}).json()["experiment_id"]
    run = running.post("runs/create", {"experiment_id": number}).json()["run"]["info"]["run_id"]
    running.post("runs/delete", {"run_id": run})
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with (
        Database(Backend.of(f"sqlite:///{tmp_path / 'mlflow.db'}")) as database,
        database.connection() as connection,
    ):
        connection.execute(sa.text("UPDATE runs SET artifact_uri = :there"), {"there": other.as_uri()})
    collected = json.loads(call("server", "gc", "--json", cwd=tmp_path).stdout)
    assert collected["elsewhere"] == [other.as_uri()]
    assert (other / "thesis.txt").exists()


def test_a_length_of_time_that_is_none_is_refused(tmp_path, call):
    completed = call("server", "gc", "--older-than", "soon", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "30d" in completed.stderr

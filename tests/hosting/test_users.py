"""``nfbmr server users``: what it refuses, and that it never shows a password."""

from __future__ import annotations

import json
import sqlite3

import pytest

from nfbmr.cli.main import main

PASSWORD = {"NFBMR_USER_PASSWORD": "a-long-enough-password"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, call):
    """A folder whose database has an administrator and a writer."""
    made = tmp_path_factory.mktemp("users")
    call("server", "users", "add", "ada", "--role", "admin", cwd=made, env=PASSWORD)
    call("server", "users", "add", "wim", "--role", "writer", cwd=made, env=PASSWORD)
    return made


@pytest.fixture
def users(folder, monkeypatch, capfd):
    """Runs ``nfbmr server users`` in that folder and in this process: another one takes seconds to start."""
    monkeypatch.chdir(folder)

    def run(*words, env=None):
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        return main(["server", "users", *words]), capfd.readouterr()

    return run


def listed(users) -> dict[str, str]:
    _, said = users("list", "--json")
    return {user["name"]: user["role"] for user in json.loads(said.out)["users"]}


def test_passwords_are_kept_as_hashes(folder, users):
    assert listed(users) == {"ada": "admin", "wim": "writer"}
    database = sqlite3.connect(folder / "mlflow.db")
    hashes = [row[0] for row in database.execute("SELECT password_hash FROM users")]
    database.close()
    assert len(set(hashes)) == 2  # of one password
    assert all(each.startswith(("scrypt:", "pbkdf2:")) for each in hashes)
    assert PASSWORD["NFBMR_USER_PASSWORD"].encode() not in (folder / "mlflow.db").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "wim"], "already"),
        (["add", "wi m"], "not a user name"),
        (["add", "../wim"], "not a user name"),
        (["passwd", "wimm"], "did you mean wim"),
        (["remove", "nobody-at-all"], "users list"),
        (["remove", "ada"], "nobody would be left"),
        (["grant", "ada", "reader"], "nobody would be left"),
        (["grant", "wim", "owner"], "admin"),
        (["grant", "wim", "writer", "--experiment", "Defualt"], "did you mean Default"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(users, words, said):
    code, done = users(*words, env=PASSWORD)
    assert code == 2
    assert said in done.err
    assert PASSWORD["NFBMR_USER_PASSWORD"] not in done.err
    assert listed(users) == {"ada": "admin", "wim": "writer"}


@pytest.mark.parametrize("password", ["brief", "elevenchars", "with an umlaut: ü", "with\ta tab in it"])
def test_passwords_that_are_too_short_or_cannot_be_sent_are_refused(users, password):
    code, done = users("passwd", "wim", env={"NFBMR_USER_PASSWORD": password})
    assert code == 2
    assert password not in done.err


def test_without_a_terminal_a_password_is_not_asked_for(folder, call):
    import subprocess

    completed = call("server", "users", "add", "nic", cwd=folder, check=False, stdin=subprocess.DEVNULL)
    assert completed.returncode == 2
    assert "--password-file" in completed.stderr


def test_a_password_comes_from_standard_input(folder, call):
    call("server", "users", "add", "ida", "--password-file", "-", cwd=folder, input="from-standard-input\n")
    call("server", "users", "remove", "ida", cwd=folder)


def test_the_database_may_be_named_before_the_subcommand(folder, call, tmp_path):
    words = ["server", "--backend", f"sqlite:///{folder / 'mlflow.db'}", "users", "list"]
    assert "wim" in call(*words, cwd=tmp_path).stdout
    assert not list(tmp_path.iterdir())
    completed = call("server", "--host", "0.0.0.0", "backup", cwd=tmp_path, check=False)
    assert completed.returncode == 2
    assert "--host is for the server itself" in completed.stderr


def test_help_needs_no_mlflow(call_watched, tmp_path):
    completed, imported = call_watched("server", "users", "--help", cwd=tmp_path)
    assert "nfbmr" in imported
    assert not imported & {"mlflow", "sqlalchemy", "flask", "torch"}
    assert "grant" in completed.stdout

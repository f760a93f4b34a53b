"""What travels with a job, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.jobs.request import COMMANDS, rewrite_command
from cluster.jobs.upload import LIMIT, PACKAGES, gather
from cluster.local.local_cluster import ClusterError
from nfbmr.cli.options import SHORTCUTS
from nfbmr.errors import NfbmrError
from nfbmr.resolve import flat


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with all that lies about in one."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("", encoding="utf-8")
    for name in (
        "pyproject.toml",
        ".git/objects/a",
        ".venv/lib/b.py",
        "runs/r/summary.json",
        ".nfbmr/cluster/token",
        "mlflow.db",
        "data/image.png",
        "nfbmr/__pycache__/c.pyc",
        "nfbmr/.cache/d",
        "cluster/deploy/secrets/ray_token",
        "nfbmr/page.html",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return tmp_path


@pytest.mark.parametrize("asked", ["seen", "9"])
def test_a_folder_of_known_defects_is_seen_by_every_node_and_a_number_is_none(tmp_path, monkeypatch, asked):
    (tmp_path / "seen").mkdir()
    monkeypatch.chdir(tmp_path)
    request = rewrite_command(["train", "--known-defects", asked, "--limit-train", "4"])
    folder = tmp_path / "seen"
    assert request.reads.get("known-defects") == (folder if asked == "seen" else None)
    assert request.config.data.limit_train == 4
    again = rewrite_command([request.command, *request.words])
    assert again.config.data.known_defects == (folder if asked == "seen" else 9)


def test_the_code_is_sent_and_nothing_that_lies_about(checkout: Path) -> None:
    upload = gather(root=checkout)
    assert set(upload.files) == {f"{name}/__init__.py" for name in PACKAGES} | {"nfbmr/page.html"}
    sizes = {each.name: each.size for each in upload.left_out}
    assert sizes == {
        ".git": 1000,
        ".nfbmr": 1000,
        ".venv": 1000,
        "data": 1000,
        "mlflow.db": 1000,
        "pyproject.toml": 1000,
        "runs": 1000,
    }


def test_what_is_sent_is_enough_and_small() -> None:
    upload = gather()
    assert upload.size < LIMIT / 20
    with upload.staged() as folder:
        completed = subprocess.run(
            [sys.executable, "-m", "nfbmr", "config", "--config", "demo"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
        assert (folder / "nfbmr" / "evaluation" / "report.html").exists()
    assert not folder.exists()


def test_a_package_that_is_installed_has_only_strangers_beside_it(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    assert gather(root=checkout).left_out == ()


def test_further_files_get_their_names(checkout: Path) -> None:
    upload = gather({"submitted/0-space.yaml": checkout / "mlflow.db"}, root=checkout)
    with upload.staged() as folder:
        assert (folder / "submitted" / "0-space.yaml").read_bytes() == b"x" * 1000


# What a command becomes on the cluster


def test_paths_become_absolute_and_small_files_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "mine.yaml").write_text("flow: {blocks: 3}", encoding="utf-8")
    request = rewrite_command(["train", "--config", "mine.yaml", "--data", "parts", "--set", "flow.hidden=8"])
    assert (request.config.flow.blocks, request.config.flow.hidden) == (3, 8)
    assert request.files == {"submitted/0-mine.yaml": Path("mine.yaml")}
    assert request.reads == {"data": tmp_path / "parts"}
    assert request.writes == {"output": tmp_path / "runs", "store": tmp_path / ".nfbmr/store"}
    # said again on the cluster, from any folder, it is the same command
    monkeypatch.chdir("/")
    words = [word.replace("submitted/0-", f"{tmp_path}/") for word in request.words]
    again = rewrite_command(["train", *words])
    assert again.reads == request.reads
    assert again.writes == request.writes
    assert again.config.flow == request.config.flow


# What each option that sets a key is given, and what the configuration has then.
SETTINGS = {
    "--data": ("parts", Path("parts")),
    "--category": ("woven", "woven"),
    "--split": ("group", "group"),
    "--method": ("nf", "nf"),
    "--known-defects": ("9", 9),
    "--limit-train": ("12", 12),
    "--seed": ("7", 7),
    "--output": ("out", Path("out")),
    "--store": ("kept", Path("kept")),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", SHORTCUTS)
def test_every_setting_of_the_command_line_is_the_preflights(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    if command == "compare" and option in ("--method", "--split"):
        return  # it compares several: what it runs is a plan's, not the base configuration's
    text, value = SETTINGS[option]
    table = ["paper-table5"] if command == "ablate" else []
    request = rewrite_command([command, *table, option, text])
    assert flat(request.config)[SHORTCUTS[option].key] == (str(value) if isinstance(value, Path) else value)
    assert rewrite_command([command, *table, f"{option}={text}"]).config == request.config
    # and it is said there as well
    again = flat(rewrite_command([command, *request.words]).config)
    differing = {key for key, value in flat(request.config).items() if again[key] != value}
    assert differing <= {"data.path", "output", "store"}  # which are absolute now


def test_a_name_that_is_also_a_folders_stays_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiles").mkdir()
    (tmp_path / "space.yaml").write_text("flow.blocks: {int: [2, 4]}\n", encoding="utf-8")
    words = ["sweep", "--name", "tiles", "--data=tiles", "--warm-start", "./tiles", "--space=space.yaml"]
    said = rewrite_command([*words, "--no-prune", "--local", "--trials", "3", "--trials", "4"]).words
    assert said[:4] == ("--name", "tiles", "--data", str(tmp_path / "tiles"))
    assert said[4:8] == ("--warm-start", str(tmp_path / "tiles"), "--space", "submitted/0-space.yaml")
    assert said[8:12] == ("--no-prune", "--local", "--trials", "4")
    assert said[12:14] == ("--data", str(tmp_path / "tiles"))


def test_a_named_configuration_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    request = rewrite_command(["train", "--config", "demo"])
    assert request.words[:2] == ("--config", "demo")
    assert request.reads == {}


def test_an_interrupted_run_is_gone_on_with_by_its_absolute_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    request = rewrite_command(["train", "--resume", "runs/a"])
    assert str(tmp_path / "runs" / "a") in request.words
    assert "--store" not in request.words
    assert "--output" not in request.words


def test_a_signal_reaches_the_command_and_not_a_shell() -> None:
    assert rewrite_command(["train", "--category", "a b"]).entrypoint.startswith("exec python -m nfbmr train")
    assert "'a b'" in rewrite_command(["train", "--category", "a b"]).entrypoint


@pytest.mark.parametrize("words", [[], ["config"], ["predict", "x"], ["swep"]])
def test_only_commands_that_make_sense_there(words: list[str]) -> None:
    with pytest.raises(ClusterError, match="not run on a cluster") as caught:
        rewrite_command(words)
    assert all(name in str(caught.value) for name in COMMANDS)


def test_mistakes_are_told_before_anything_is_sent() -> None:
    import click

    with pytest.raises(click.UsageError, match="--dta"):
        rewrite_command(["train", "--dta", "x"])
    with pytest.raises(NfbmrError, match=r"flow\.block"):
        rewrite_command(["train", "--set", "flow.block=2"])


def test_a_file_that_is_too_large_stays(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 6_000_000 + "\nseed: 1\n", encoding="utf-8")
    with pytest.raises(ClusterError, match="too large to travel"):
        rewrite_command(["train", "--config", str(large)])


def test_what_a_sweep_asks_of_the_cluster() -> None:
    words = ["sweep", "--resources", "cpu=2,gpu=0.25", "--workers-per-trial", "3", "--concurrent", "4"]
    needs = rewrite_command([*words, "--trials", "9"]).needs
    assert needs.bundle == {"CPU": 2.0, "GPU": 0.25}
    assert (needs.workers, needs.concurrent, needs.trials) == (3, 4, 9)

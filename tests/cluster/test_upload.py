"""What travels with a job, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local import ClusterError
from cluster.request import COMMANDS, localise
from cluster.upload import LIMIT, PACKAGES, gather
from nfbmr.errors import NfbmrError


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
        done = subprocess.run(
            [sys.executable, "-m", "nfbmr.cli.main", "config", "--config", "demo"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
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
    request = localise(["train", "--config", "mine.yaml", "--data", "parts", "--set", "flow.hidden=8"])
    assert (request.config.flow.blocks, request.config.flow.hidden) == (3, 8)
    assert request.files == {"submitted/0-mine.yaml": Path("mine.yaml")}
    assert request.reads == {"data": tmp_path / "parts"}
    assert request.writes == {"output": tmp_path / "runs", "store": tmp_path / ".nfbmr/store"}
    # said again on the cluster, from any folder, it is the same command
    monkeypatch.chdir("/")
    words = [word.replace("submitted/0-", f"{tmp_path}/") for word in request.words]
    again = localise(["train", *words])
    assert again.reads == request.reads
    assert again.writes == request.writes
    assert again.config.flow == request.config.flow


def test_a_named_configuration_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    request = localise(["train", "--config", "demo"])
    assert request.words[:2] == ("--config", "demo")
    assert request.reads == {}


def test_an_interrupted_run_is_gone_on_with_by_its_absolute_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    request = localise(["train", "--resume", "runs/a"])
    assert str(tmp_path / "runs" / "a") in request.words
    assert "--store" not in request.words


def test_a_signal_reaches_the_command_and_not_a_shell() -> None:
    assert localise(["train", "--category", "a b"]).entrypoint.startswith(
        "exec python -m nfbmr.cli.main train"
    )
    assert "'a b'" in localise(["train", "--category", "a b"]).entrypoint


@pytest.mark.parametrize("words", [[], ["config"], ["predict", "x"], ["swep"]])
def test_only_commands_that_make_sense_there(words: list[str]) -> None:
    with pytest.raises(ClusterError, match="not run on a cluster") as caught:
        localise(words)
    assert all(name in str(caught.value) for name in COMMANDS)


def test_mistakes_are_told_before_anything_is_sent() -> None:
    import click

    with pytest.raises(click.UsageError, match="--dta"):
        localise(["train", "--dta", "x"])
    with pytest.raises(NfbmrError, match=r"flow\.block"):
        localise(["train", "--set", "flow.block=2"])


def test_a_file_that_is_too_large_stays(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 6_000_000 + "\nseed: 1\n", encoding="utf-8")
    with pytest.raises(ClusterError, match="too large to travel"):
        localise(["train", "--config", str(large)])


def test_what_a_sweep_asks_of_the_cluster() -> None:
    words = ["sweep", "--resources", "cpu=2,gpu=0.25", "--workers-per-trial", "3", "--concurrent", "4"]
    needs = localise([*words, "--trials", "9"]).needs
    assert needs.bundle == {"CPU": 2.0, "GPU": 0.25}
    assert (needs.workers, needs.concurrent, needs.trials) == (3, 4, 9)

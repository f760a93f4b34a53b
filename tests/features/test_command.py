"""``nfbmr features``: what is stored can be seen, checked, mended and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nfbmr.cli.main import main
from nfbmr.features.shards import shard_paths
from nfbmr.features.store import FeatureStore, SpaceSpec


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Two spaces of three rows each, that nobody has open."""
    store = FeatureStore(tmp_path / "store")
    for tap in ("blocks.1", "blocks.2"):
        space = store.space(SpaceSpec("features", {"tap": tap}))
        space.append(["a", "b", "c"], torch.randn(3, 4, 2, 2))
        space.close()
    return store


@pytest.fixture
def command(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Runs ``nfbmr features ...`` on the store: its exit code and what it says as JSON."""

    def run(*words: str) -> tuple[int, Any]:
        code = main(["features", *words, "--store", str(store.root), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def damage(store: FeatureStore) -> Path:
    path = shard_paths(store.folder(SpaceSpec("features", {"tap": "blocks.1"})))[0]
    content = bytearray(path.read_bytes())
    content[-200] ^= 4
    path.write_bytes(content)
    return path


def test_list(command: Callable[..., tuple[int, Any]]) -> None:
    code, said = command("list")
    assert code == 0
    assert {space["fields"]["tap"] for space in said["spaces"]} == {"blocks.1", "blocks.2"}
    assert all(space["rows"] == 3 for space in said["spaces"])
    assert said["bytes"] == sum(space["bytes"] for space in said["spaces"])


def test_verify_and_repair(store: FeatureStore, command: Callable[..., tuple[int, Any]]) -> None:
    assert command("verify") == (
        0,
        {"store": store.root.as_posix(), "shards": 2, "rows": 6, "stages": 0, "removed": []},
    )
    path = damage(store)
    code, said = command("verify")
    assert code == 2
    assert path.name in said["error"]["what"]
    assert "--repair" in said["error"]["fix"]
    assert command("verify", "--repair")[1]["removed"] == [path.as_posix()]
    assert command("verify")[0] == 0


def test_prune(store: FeatureStore, command: Callable[..., tuple[int, Any]]) -> None:
    assert command("prune")[0] == 2
    key = SpaceSpec("features", {"tap": "blocks.1"}).key
    code, said = command("prune", "--space", key[:8], "--dry-run")
    assert (code, [space["key"] for space in said["removed"]]) == (0, [key])
    assert len(command("list")[1]["spaces"]) == 2
    held = store.space(SpaceSpec("features", {"tap": "blocks.2"}))
    code, said = command("prune", "--keep", "0")
    assert [space["key"] for space in said["removed"]] == [key]
    assert [space["key"] for space in said["held"]] == [held.spec.key]
    assert command("prune", "--older-than", "1")[1]["removed"] == []


@pytest.mark.parametrize("words", [["list"], ["verify"], ["prune", "--keep", "1"]], ids=lambda w: w[0])
def test_a_store_that_is_not_there(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["features", *words, "--json"]) == 0  # where runs would make one
    assert json.loads(capsys.readouterr().out)
    assert main(["features", *words, "--store", "stroe", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)["error"]
    assert (answer["what"], answer["where"]) == ("no such store", "stroe")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_found_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    nowhere = ["--data", str(tmp_path / "nowhere")]
    for store in (tmp_path / "file", Path("/proc/store")):
        assert main(["features", "build", *nowhere, "--store", str(store), "--json"]) == 2
        answer = json.loads(capsys.readouterr().out)["error"]
        assert answer["where"] == str(store)
        assert "--store" in answer["fix"]


def test_counts_are_in_plain_english(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = FeatureStore(tmp_path / "one").space(SpaceSpec("features"))
    space.append(["a"], torch.randn(1, 4, 2, 2))
    space.close()
    assert main(["features", "list", "--store", str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out
    assert "1 row\n" in text
    assert "1 space and 0 stages" in text
    assert main(["features", "list", "--store", str(store.root)]) == 0
    assert "2 spaces and 0 stages" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- stages


@pytest.fixture
def trained(tiny: Callable[..., Any], store: FeatureStore) -> dict[str, Any]:
    """The summary of a run that kept its flow, a stage, in the store."""
    import nfbmr

    return nfbmr.train(tiny(store=str(store.root), train__flow__epochs=1, train__mapping__epochs=1))


def stages_of(command: Callable[..., tuple[int, Any]]) -> dict[str, dict[str, Any]]:
    """What is listed of finished stages, by their names."""
    return {stage["identity"].get("stage", ""): stage for stage in command("list")[1]["stages"]}


def test_stages_are_listed_checked_mended_and_removed(
    trained: dict[str, Any], store: FeatureStore, command: Callable[..., tuple[int, Any]]
) -> None:
    stages = stages_of(command)
    assert set(stages) == {"flow", "mapping"}
    stage = stages["flow"]
    assert (stage["state"], stage["epoch"]) == ("trained", 1)
    assert stage["identity"]["flow"]["blocks"] == 2
    assert stage["seen"]["tap"] == "blocks.2"
    assert stage["bytes"] > 1000
    assert stage["created"] <= stage["used"]
    assert command("verify")[1]["stages"] == 2

    folder = store.root / "stages" / stage["key"]
    weights = folder / "stage.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    code, said = command("verify")
    assert (code, str(weights) in said["error"]["what"]) == (2, True)
    assert command("verify", "--repair")[1]["removed"] == [weights.as_posix()]
    states = {info["key"]: info["state"] for info in command("list")[1]["stages"]}
    assert states == {stage["key"]: "unfinished", stages["mapping"]["key"]: "trained"}

    assert command("prune", "--stage", "0" * 9)[0] == 2
    code, said = command("prune", "--stage", stage["key"][:8])
    assert (code, [info["key"] for info in said["stages"]["removed"]]) == (0, [stage["key"]])
    assert said["removed"] == []
    assert not folder.exists()


def test_a_store_of_before_is_read_and_looked_after(
    tiny: Callable[..., Any],
    trained: dict[str, Any],
    store: FeatureStore,
    command: Callable[..., tuple[int, Any]],
) -> None:
    """Stores had stages as ``flows/<key>/flow.*``."""
    import nfbmr

    keys = {name: stage["key"] for name, stage in stages_of(command).items()}
    folder = (store.root / "stages").rename(store.root / "flows") / keys["flow"]
    for path in folder.parent.glob("*/stage.*"):
        path.rename(path.with_name(path.name.replace("stage", "flow")))
    config = tiny(store=str(store.root), train__flow__epochs=1, train__mapping__epochs=1)
    again = nfbmr.train(config)
    assert (again["reused"], again["metrics"]) == ({"flow": True, "mapping": True}, trained["metrics"])
    assert not (store.root / "stages").exists()
    assert {name: stage["key"] for name, stage in stages_of(command).items()} == keys
    assert command("verify")[1]["stages"] == 2

    weights = folder / "flow.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert command("verify")[0] == 2
    assert command("verify", "--repair")[1]["removed"] == [weights.as_posix()]
    assert (nfbmr.train(config)["reused"]["flow"], weights.exists()) == (False, True)

    code, said = command("prune", "--flow", keys["flow"][:8])  # as the option was called
    assert (code, [info["key"] for info in said["stages"]["removed"]]) == (0, [keys["flow"]])
    assert not folder.exists()


def test_a_stage_is_as_old_as_its_last_use(
    trained: dict[str, Any],
    tiny: Callable[..., Any],
    store: FeatureStore,
    command: Callable[..., tuple[int, Any]],
) -> None:
    import nfbmr

    stages = stages_of(command)
    for path in (store.root / "stages").rglob("*"):
        os.utime(path, (0, 0))
    said = command("prune", "--older-than", "1", "--dry-run")[1]["stages"]
    assert [info["key"] for info in said["removed"]] == [stages["mapping"]["key"]]  # the flow has its latents
    nfbmr.train(tiny(store=str(store.root), train__flow__epochs=1, train__mapping__epochs=1))
    assert command("prune", "--older-than", "1", "--dry-run")[1]["stages"]["removed"] == []
    for path in store.root.rglob("*"):
        os.utime(path, (0, 0))
    assert len(command("prune", "--older-than", "1")[1]["stages"]["removed"]) == 2
    assert command("list")[1]["stages"] == []


def test_a_stage_that_is_being_trained_is_never_pruned(
    store: FeatureStore, command: Callable[..., tuple[int, Any]]
) -> None:
    folder = store.root / "stages" / "0a1b2c"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.json").write_text("{}")
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(folder / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert command("list")[1]["stages"][0]["state"] == "in training"
    said = command("prune", "--stage", "0a1b2c")[1]["stages"]
    assert ([info["key"] for info in said["held"]], said["removed"]) == (["0a1b2c"], [])
    assert folder.exists()
    process.communicate()
    assert command("list")[1]["stages"][0]["state"] == "unfinished"
    assert len(command("prune", "--keep", "0")[1]["stages"]["removed"]) == 1
    assert not folder.exists()


def test_build_stores_what_training_needs(
    tiny: Callable[..., Any], tmp_path: Path, textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nfbmr.data.pictures import ViewOp, picture_of
    from nfbmr.features.extraction import extract
    from nfbmr.prepare import read_data

    config = tiny(features__views=["flip-h"])
    words = ["features.size=64", "features.taps=blocks.2", "features.views=flip-h", "features.compute=fp32"]
    options = ["--data", str(textures), "--store", str(config.store), "--json"]
    arguments = ["features", "build", *options, *(word for setting in words for word in ("--set", setting))]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["reused"] == 0
    assert first["spaces"][0]["tap"] == "blocks.2"
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["computed"], again["reused"]) == (0, first["computed"])
    _, split = read_data(config)
    pictures = [picture_of(sample).then(ViewOp("flip-h")) for sample in split.train]
    assert extract(pictures, config.features, FeatureStore(config.store)).computed == 0

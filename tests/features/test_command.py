"""``nfbmr features``: what is stored can be seen, checked, mended and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nfbmr.cli.main import main
from nfbmr.features.store import FeatureStore, SpaceSpec, shard_paths


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
        {"store": store.root.as_posix(), "shards": 2, "rows": 6, "removed": []},
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


def test_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("list", "verify"):
        assert main(["features", name, "--store", str(tmp_path / "none"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
    assert not (tmp_path / "none").exists()


def test_build_stores_what_training_needs(
    tiny: Callable[..., Any], tmp_path: Path, textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nfbmr.data.pictures import ViewOp, picture_of
    from nfbmr.features.extraction import extract
    from nfbmr.preparation import read_data

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

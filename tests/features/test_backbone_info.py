"""What the machine's cache says of a network: the same as the network itself, and no longer than it is so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from nfbmr.config import FeatureConfig
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import backbone_info, load_backbone, same_backbone
from nfbmr.features.keys import space_spec
from nfbmr.features.models import new_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config(tmp_path: Path) -> FeatureConfig:
    path = tmp_path / "weights.pth"
    torch.save(new_model("test_efficientnet", seed=1).state_dict(), path)
    return FeatureConfig(backbone="test_efficientnet", weights=str(path), taps=(2, "blocks.1"), size=64)


def _changed(config: FeatureConfig, *, seed: int, later: bool) -> None:
    """The file with other weights, as large as before."""
    path = Path(config.weights)
    before = path.stat()
    torch.save(new_model("test_efficientnet", seed=seed).state_dict(), path)
    assert path.stat().st_size == before.st_size
    changed = before.st_mtime_ns + (1_000_000_000 if later else 0)
    os.utime(path, ns=(changed, changed))


def test_kept_and_loaded_networks_give_the_same_keys(config: FeatureConfig) -> None:
    backbone = load_backbone(config)
    for _ in range(2):
        info = backbone_info(config)
        assert info == backbone.info(config.shape)
        for tap in backbone.taps:
            own, kept = (space_spec(one, tap, config, "fp32") for one in (backbone, info))
            assert own.key == kept.key


def test_weights_written_anew_are_read_anew(config: FeatureConfig) -> None:
    before = backbone_info(config).weights_digest
    _changed(config, seed=2, later=True)
    after = backbone_info(config).weights_digest
    assert after == load_backbone(config).weights_digest != before


def test_what_is_damaged_is_made_anew(config: FeatureConfig, cache: Path) -> None:
    info = backbone_info(config)
    for path in (cache / "backbones").iterdir():
        kept = json.loads(path.read_text())
        path.write_text(json.dumps({**kept, "value": {"name": "another"}}))
    assert backbone_info(config) == info
    for path in (cache / "backbones").iterdir():
        path.write_text("{")
    assert backbone_info(config) == info


def test_features_of_weights_that_changed_unseen_are_never_filed_under_the_old_key(
    config: FeatureConfig,
) -> None:
    info = backbone_info(config)
    _changed(config, seed=2, later=False)
    from nfbmr.features import backbone

    backbone._kept.cache_clear()  # as another process begins
    with pytest.raises(BackboneError, match="not the one"):
        same_backbone(info, config)
    assert backbone_info(config) == load_backbone(config).info(config.shape) != info

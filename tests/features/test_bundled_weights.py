"""Backbones' weights beside a model: the same digests, whoever shipped them."""

import subprocess
import sys

import pytest

from nfbmr.config import FeatureConfig, TargetConfig
from nfbmr.errors import WeightsError
from nfbmr.features.bundled_weights import FOLDER, keep_weights, with_kept_weights
from nfbmr.features.keys import joined_digest
from nfbmr.features.weights import resolve_weights


def digest_of(config):
    networks = [(config.backbone, config.weights)]
    if config.target.backbone:
        networks.append((config.target.backbone, config.target.weights))
    return joined_digest(resolve_weights(*network).digest for network in networks)


def test_weights_that_were_kept_are_those_that_were_packaged(tmp_path):
    config = FeatureConfig()
    assert keep_weights(config, digest_of(config), tmp_path) == 1
    here = with_kept_weights(config, tmp_path)
    assert here.weights == str(tmp_path / FOLDER / "source.safetensors")
    assert digest_of(here) == digest_of(config)


def test_a_machine_that_saw_the_backbone_keeps_its_weights_without_timm(tmp_path):
    keep_weights(FeatureConfig(), digest_of(FeatureConfig()), tmp_path / "first")
    script = f"""
import sys
from pathlib import Path
from nfbmr.config import FeatureConfig
from nfbmr.features.bundled_weights import keep_weights
assert keep_weights(FeatureConfig(), {digest_of(FeatureConfig())!r}, Path({str(tmp_path / "again")!r})) == 1
assert "timm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    first, again = ((tmp_path / each / FOLDER / "source.safetensors") for each in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_both_backbones_of_a_method_are_kept(tmp_path):
    config = FeatureConfig(target=TargetConfig(backbone="tf_efficientnet_lite0", weights="packaged"))
    assert keep_weights(config, digest_of(config), tmp_path) == 2
    here = with_kept_weights(config, tmp_path)
    assert here.target.weights.endswith("target.safetensors")
    assert digest_of(here) == digest_of(config)


def test_random_weights_come_from_their_seed(tmp_path):
    config = FeatureConfig(backbone="test_efficientnet", weights="random")
    assert keep_weights(config, digest_of(config), tmp_path) == 0
    assert with_kept_weights(config, tmp_path) == config


def test_other_weights_than_the_models_are_not_kept(tmp_path):
    with pytest.raises(WeightsError, match="not the weights"):
        keep_weights(FeatureConfig(), "0" * 16, tmp_path)
    assert not (tmp_path / FOLDER).exists()

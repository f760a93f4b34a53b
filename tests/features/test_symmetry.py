"""Features averaged over mirror images and turns: a part that lies another way looks the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfbmr.config import DetailFeatureConfig, FeatureConfig, Symmetry
from nfbmr.config.features import TURNING
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.features.backbone import load_backbone
from nfbmr.features.engine import Compute, Engine
from nfbmr.features.extraction import extract
from nfbmr.features.passes import passes_of
from nfbmr.features.reader import FeatureReader
from nfbmr.features.store import open_store
from nfbmr.features.symmetry import GROUPS

CONFIG = FeatureConfig(backbone="test_efficientnet", weights="random", taps=(2,), size=64, compute="fp32")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("symmetry", ["mirror", "flips", "turns", "square"])
def test_a_moved_picture_has_moved_features(x: torch.Tensor, symmetry: Symmetry, compute: Compute) -> None:
    backbone = load_backbone(CONFIG)
    plain = Engine(backbone, compute=compute, size=64)
    engine = Engine(backbone, compute=compute, size=64, symmetry=symmetry)
    (y,) = engine(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert y.dtype == plain(x)[0].dtype
    tolerance = (1e-5 if compute == "fp32" else 2e-2) * y.abs().max()
    for move in GROUPS[symmetry]:
        (moved,) = engine(move.of(x))
        assert (move.back(moved).float() - y.float()).abs().max() < tolerance
    (other,) = plain(x.flip(-1))
    assert (other.flip(-1).float() - plain(x)[0].float()).abs().max() > tolerance  # of one pass it has not


def test_tiles_are_joined_before_they_are_averaged() -> None:
    config = CONFIG.model_copy(update={"backbone": "tf_efficientnet_lite0", "weights": "auto", "size": 256})
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    backbone = load_backbone(config)
    (whole,) = Engine(backbone, compute="fp32", size=256, symmetry="flips")(x)
    (tiled,) = Engine(backbone, compute="fp32", size=256, tile=192, symmetry="flips")(x)
    assert whole.shape == tiled.shape
    (once,) = Engine(backbone, compute="fp32", size=256, tile=192)(x)
    assert not torch.equal(once, tiled)


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    path = tmp_path / "part.png"
    values = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return picture_of(Sample(path, path.name))


def test_averaged_features_are_stored_beside_plain_ones_and_read_alike(
    picture: Picture, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    averaged = CONFIG.model_copy(update={"symmetry": "flips"})
    plain = extract([picture], CONFIG, store)
    first, again = (extract([picture], averaged, store) for _ in range(2))
    assert (plain.computed, first.computed, again.reused) == (1, 1, 1)
    assert not torch.equal(plain.tables[0].gather([0]), first.tables[0].gather([0]))
    reader = FeatureReader(averaged, torch.device("cpu"))
    (seen,) = reader([reader.prepared(picture)]).tables
    assert torch.equal(seen.gather([0]), again.tables[0].gather([0]))


def test_quarter_turns_want_squares() -> None:
    assert {name for name, moves in GROUPS.items() if any(move.transposed for move in moves)} == set(TURNING)
    assert FeatureConfig(symmetry="square").turns
    assert FeatureConfig(detail=DetailFeatureConfig(taps=(1,), symmetry="square")).turns
    assert not FeatureConfig(symmetry="flips").turns
    with pytest.raises(ValueError, match=r"symmetry=turns or square, aspect is 1"):
        FeatureConfig(symmetry="square", aspect=2.0)


def test_the_detail_look_has_its_own_symmetry() -> None:
    detail = DetailFeatureConfig(taps=(1,), size=96, symmetry="flips")
    main, fine = passes_of(CONFIG.model_copy(update={"detail": detail}))
    assert (main.symmetry, fine.symmetry) == ("none", "flips")

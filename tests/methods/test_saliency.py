"""DifferNet's map of places is the gradient of the score that it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nfbmr.config import Config, Symmetry
from nfbmr.data.pictures import ViewOp, picture_of
from nfbmr.data.samples import Sample
from nfbmr.methods.differnet.model import DifferNet


def network(symmetry: Symmetry) -> DifferNet:
    features = {"backbone": "test_efficientnet", "weights": "random", "taps": [2], "size": 64, "pooled": True}
    config = Config.model_validate(
        {"method": "differnet", "features": {**features, "symmetry": symmetry}, "flow": {"hidden": 8}}
    )
    return DifferNet(((32, 1, 1),), config)


def test_where_features_are_averaged_over_flips_the_map_of_a_flipped_part_is_flipped(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(path := tmp_path / "part.png")
    part = picture_of(Sample(path, path.name))
    flipped = part.then(ViewOp("flip-h"))

    def difference(symmetry: Symmetry) -> float:
        differnet = network(symmetry)
        map_SS, flipped_SS = differnet.saliency_map(part), differnet.saliency_map(flipped)
        return float((flipped_SS.flip(-1) - map_SS).abs().max())

    assert 10 * difference("flips") < difference("none")  # not 0: turns by eighths are interpolated

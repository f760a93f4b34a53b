"""What ablations are tried with."""

from __future__ import annotations

import pytest

from nfbmr.data.synthesize import CLASSES, synthesize


@pytest.fixture(scope="module")
def two_textures(tmp_path_factory):
    """Two categories in MVTec layout."""
    out = tmp_path_factory.mktemp("data") / "textures"
    return synthesize(out, classes=CLASSES[:2], train=8, test_good=5, test_defective=5, size=64, seed=1)

"""What sweeps are tried with."""

from __future__ import annotations

from functools import partial

import pytest


@pytest.fixture(scope="session")
def tiny_config(small):
    """Smaller than small: what is looked at here is the sweep."""
    size = {"features__compute": "fp32", "flow__blocks": 1, "flow__hidden": 4, "mapping__latent": 4}
    return partial(small, train__flow__epochs=2, evaluation__bootstrap=20, evaluation__heatmaps=1, **size)

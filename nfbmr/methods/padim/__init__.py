"""PaDiM: its settings and defaults, and its configuration as published; :mod:`.model` has the method."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nfbmr.config import MethodConfig, PositiveInt
from nfbmr.methods.method import Method


class PaDiMConfig(MethodConfig):
    """A Gaussian at each position."""

    section: ClassVar[str] = "padim"

    channels: PositiveInt = Field(
        100, description="channels drawn at random of all taps' (published: 100; 550 for wide networks)"
    )
    epsilon: float = Field(0.01, gt=0, description="added to the diagonal of each covariance")


METHOD = Method(
    title="a Gaussian at each position",
    source="Defard et al., ICPR workshops 2021",
    networks=f"{__name__}.model:PaDiM",
    stages=("statistics",),
    settings=PaDiMConfig,
    defaults={
        "features": {"size": 256, "taps": ["blocks.1", "blocks.2", "blocks.4"]},
        "scoring": {"weights": "paper", "reduction": "max", "smooth": 1.0},
    },
    published={
        "padim-published": {
            "features": {
                "backbone": "resnet18.tv_in1k",
                "weights": "hub",
                "taps": ["layer1", "layer2", "layer3"],
                "size": 224,
            },
            "padim": {"channels": 100, "epsilon": 0.01},
            "scoring": {"weights": "paper", "reduction": "max", "smooth": 1.0},
        },
    },
)
"""The row of the table."""

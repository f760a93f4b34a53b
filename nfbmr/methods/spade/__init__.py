"""SPADE: its settings and defaults, and its configuration as published; :mod:`.model` has the method."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nfbmr.config import MethodConfig, PositiveInt
from nfbmr.methods.method import Method


class SPADEConfig(MethodConfig):
    """Nearest images, then nearest positions."""

    section: ClassVar[str] = "spade"

    neighbours: PositiveInt = Field(50, description="nearest images K")


METHOD = Method(
    title="nearest images, then nearest positions",
    source="Cohen & Hoshen, arXiv 2005.02357, 2020",
    networks=f"{__name__}.model:SPADE",
    stages=("statistics",),
    settings=SPADEConfig,
    defaults={
        "features": {"size": 256, "taps": ["blocks.2", "blocks.4", "blocks.6"]},
        "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
    },
    published={
        "spade-published": {
            "features": {
                "backbone": "wide_resnet50_2.tv_in1k",
                "weights": "hub",
                "taps": ["layer1", "layer2", "layer3", "layer4"],
                "size": 224,
            },
            "spade": {"neighbours": 50},
            "scoring": {"weights": "paper", "reduction": "image", "smooth": 1.0},
        },
    },
)
"""The row of the table."""

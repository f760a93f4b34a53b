"""CFLOW-AD: its settings and defaults, and its configuration as published; :mod:`.model` has the method."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from nfbmr.config import MethodConfig
from nfbmr.methods.method import Method


class CFlowConfig(MethodConfig):
    """What cflow has besides the flow section."""

    section: ClassVar[str] = "cflow"

    code: int = Field(
        128, ge=4, multiple_of=4, description="channels of the code that tells a position's place"
    )


# Published: probabilities relative to the highest of the *test set*, summed over layers. Here each layer is
# scaled by what good validation images show.
_SCORE: dict[str, Any] = {"weights": "auto", "normalise": "part", "reduction": "max", "smooth": 0.5}

METHOD = Method(
    title="conditional flow of positions",
    source="Gudovskiy et al., WACV 2022",
    networks=f"{__name__}.model:CFlow",
    stages=("flow",),
    settings=CFlowConfig,
    shares="cflow",
    defaults={
        "features": {"size": 256, "taps": ["blocks.2", "blocks.4", "blocks.6"]},
        "flow": {"blocks": 8, "clamp": 1.9},
        "train": {"flow": {"epochs": 10, "lr": 1e-3, "clip": None}},
        "scoring": _SCORE,
    },
    published={
        "cflow-published": {
            "features": {
                "backbone": "wide_resnet50_2.tv_in1k",
                "weights": "hub",
                "taps": ["layer2", "layer3", "layer4"],
                "size": 256,
            },
            "flow": {"blocks": 8, "clamp": 1.9},
            "cflow": {"code": 128},
            "train": {
                "flow": {"epochs": 200, "batch": 32, "lr": 2e-4, "weight_decay": 0.0, "clip": None},
                "validate_every": 8,
            },
            "scoring": {**_SCORE, "smooth": 0.0},
        },
    },
)
"""The row of the table."""

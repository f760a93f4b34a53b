"""The one table: a method's name to what it is, and a named configuration to its settings.

Example:
    >>> METHODS["nf"].stages
    ('flow',)
    >>> NAMED["paper"]["flow"]["hidden"]
    1024
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nfbmr.errors import ConfigError
from nfbmr.fields import suggestion


@dataclass(frozen=True)
class Method:
    """A detector: which stages it trains, which score parts it has, where it comes from.

    Attributes:
        mapping: What its second stage trains, in :data:`nfbmr.methods.detector.MAPPINGS`; None: nothing.
        parts: Score parts it yields, in the order of :data:`nfbmr.scoring.maps.PARTS`.
        paper_weights: Weights of source error, target error and ||z||^2 in the source's own score.
        defaults: Overrides of the configuration's defaults.
    """

    title: str
    source: str
    mapping: Literal["bmr", "b-pfm"] | None
    parts: tuple[str, ...]
    paper_weights: tuple[float, float, float]
    defaults: Mapping[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        """What is trained, in this order."""
        return ("flow",) if self.mapping is None else ("flow", "mapping")


METHODS: dict[str, Method] = {
    "nf-bmr": Method(
        title="flow-based bidirectional mapping residual network",
        source="Zhang et al., Computers, Materials & Continua 78(2), 2024",
        mapping="bmr",
        parts=("source", "target", "norm"),
        paper_weights=(0.5, 0.5, 0.0),  # eq. 14
        defaults={},
    ),
    "nf-b-pfm": Method(
        title="flow and bidirectional 1x1 mapping, NF + B-PFM",
        source="Zhang et al. 2024, Table 5, fourth row; the mapping is B-PFM's, Wan et al. 2022",
        mapping="b-pfm",
        parts=("source", "target", "norm"),
        paper_weights=(0.5, 0.5, 0.0),  # eq. 14
        defaults={},
    ),
    "nf": Method(
        title="normalizing flow alone",
        source="Zhang et al. 2024, Table 5, last row",
        mapping=None,
        parts=("norm",),
        paper_weights=(0.0, 0.0, 0.5),  # ||z||^2 / 2
        defaults={},
    ),
}

NAMED: dict[str, Mapping[str, Any]] = {
    # Section 4.2 of the paper. Needs EfficientNet-b5 weights from timm's hub or a file, and wants a GPU.
    "paper": {
        "method": "nf-bmr",
        "features": {
            "backbone": "tf_efficientnet_b5",
            "weights": "hub",
            "taps": [35],
            "size": 768,
            "batch": 8,
        },
        "flow": {"blocks": 4, "hidden": 1024},
        "mapping": {"residual_blocks": 2, "latent": 1024},
        "train": {
            "flow": {"epochs": 300, "batch": 8, "lr": 2e-4, "weight_decay": 1e-5, "schedule": "constant"},
            "mapping": {"epochs": 300, "batch": 8, "lr": 3e-4, "weight_decay": 1e-5, "schedule": "constant"},
        },
        "scoring": {"weights": "paper", "reduction": "max", "pool": 0.0, "smooth": 0.0},
    },
    # The main job in minutes: `make demo`.
    "demo": {
        "features": {"size": 256, "taps": ["blocks.4"]},
        "flow": {"blocks": 4, "hidden": 64, "kernels": [3]},
        "mapping": {"residual_blocks": 1, "latent": 64},
        "train": {
            "flow": {"epochs": 20, "lr": 1e-3},
            "mapping": {"epochs": 10, "lr": 1e-3},
        },
        "tracking": {"run_name": "demo"},
    },
}


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: There is none; the nearest names are given.
    """
    try:
        return METHODS[name]
    except KeyError:
        hint = suggestion(name, METHODS, f"methods are {', '.join(METHODS)}")
        raise ConfigError("no such method", where=f"method = {name}", fix=hint) from None

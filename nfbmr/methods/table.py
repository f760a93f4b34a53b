"""The one table: a method's name to what it is, and a named configuration to its settings.

Example:
    >>> METHODS["nf"].stages
    ('flow',)
    >>> NAMED["paper"]["flow"]["hidden"]
    1024
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nfbmr.config import Config, StageConfig
from nfbmr.errors import ConfigError
from nfbmr.fields import suggestion
from nfbmr.resolve import digest

if TYPE_CHECKING:
    from nfbmr.methods.networks import Networks


@dataclass(frozen=True)
class Method:
    """A detector: what it is, where it comes from, what it is run with.

    Attributes:
        networks: Its :class:`~nfbmr.methods.networks.Networks` as ``module:class``; imported when it is used.
        stages: Names of what is fitted, in order; those that are trained are sections of ``train``.
        defaults: Overrides of the configuration's defaults.
        shares: Methods with the same word fit the same first stage, and share it where its settings are
            equal; None for a first stage that nobody else could use.
        published: Names of the configurations that are as published, in :data:`NAMED`.
    """

    title: str
    source: str
    networks: str
    stages: tuple[str, ...]
    shares: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()


METHODS: dict[str, Method] = {
    "nf-bmr": Method(
        title="flow-based bidirectional mapping residual network",
        source="Zhang et al., Computers, Materials & Continua 78(2), 2024",
        networks="nfbmr.methods.nf_bmr:NFBMR",
        stages=("flow", "mapping"),
        shares="flow",
        published=("paper",),
    ),
    "nf-b-pfm": Method(
        title="flow and bidirectional 1x1 mapping, NF + B-PFM",
        source="Zhang et al. 2024, Table 5, fourth row; the mapping is B-PFM's, Wan et al. 2022",
        networks="nfbmr.methods.nf_bmr:NFBPFM",
        stages=("flow", "mapping"),
        shares="flow",
        defaults={"mapping": {"pfm_latent": [400]}},
    ),
    "nf": Method(
        title="normalizing flow alone",
        source="Zhang et al. 2024, Table 5, last row",
        networks="nfbmr.methods.nf:NF",
        stages=("flow",),
        shares="flow",
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


def networks_of(name: str) -> type[Networks]:
    """The class of a method's networks."""
    module, _, attribute = method_named(name).networks.partition(":")
    networks: type[Networks] = getattr(importlib.import_module(module), attribute)
    return networks


def method_defaults() -> dict[str, Mapping[str, Any]]:
    """Each method's own defaults by its name, as :func:`nfbmr.resolve.resolve` takes them."""
    return {name: method.defaults for name, method in METHODS.items()}


def epochs_of(config: Config) -> int:
    """Epochs of all stages of a configuration's method together."""
    return sum(section.epochs for section in trained_sections(config).values())


def sharing_key(config: Config) -> str:
    """Equal for runs that can share their first stage: one of them fits it.

    See :meth:`nfbmr.methods.fitting.Fitting.identity`, of which this is what a configuration tells.

    Example:
        >>> sharing_key(Config(method="nf")) == sharing_key(Config(method="nf-bmr"))
        True
    """
    method = method_named(config.method)
    if method.shares is None:
        return digest(config)
    scoring = config.scoring.model_dump(mode="json", exclude={"weights"})
    stage = getattr(config.train, method.stages[0]).model_dump(mode="json")
    train = [stage, config.train.precision, config.train.validate_every]
    parts = (config.data, config.features, config.flow, config.selection)
    return digest(*parts, method.shares, train, scoring, config.seed)


def trained_sections(config: Config) -> dict[str, StageConfig]:
    """The sections of ``train`` that a configuration's method is trained by, in order."""
    stages = method_named(config.method).stages
    return {stage: getattr(config.train, stage) for stage in stages if hasattr(config.train, stage)}

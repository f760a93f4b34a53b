"""What a trial or a row runs: its method's own defaults, the user's settings, and what is particular to it.

    the package's defaults < the method's < the user's own < the trial's (or the row's)

Sweeps, ablations and comparisons all make their configurations here. A method's defaults are those of the
method that the trial has, not of the one that the command line began with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from nfbmr.config import Config
from nfbmr.errors import ConfigError, NfbmrError
from nfbmr.fields import did_you_mean
from nfbmr.methods.registry import MethodDefaults, method_named, methods, named_configurations
from nfbmr.nesting import flatten
from nfbmr.resolve import DEFAULT, Layer, Resolved, resolve, values_of
from nfbmr.text import visible


def chosen_layer(resolved: Resolved) -> Layer:
    """What somebody chose, without what the defaults and a method's defaults add to it."""
    values = values_of(resolved.config)
    origins = {
        key: origin
        for key, origin in resolved.origins.items()
        if origin != DEFAULT and not origin.startswith("method ")
    }
    return Layer("command line", {key: values[key] for key in origins}, origins)


def user_layer(base: Config, chosen: Collection[str] = ()) -> Layer:
    """The same of a configuration of which the origins are gone.

    Args:
        base: The configuration.
        chosen: Keys that somebody chose. Whatever differs from the defaults of the configuration's method was
            chosen as well.

    Example:
        >>> base = Config(method="padim", padim={"channels": 50})
        >>> user_layer(base, ["seed"]).values["padim.channels"], user_layer(base, ["seed"]).values["seed"]
        (50, 0)
    """
    defaults = _defaults_of(base.method)
    known = {
        key: value
        for key, value in values_of(base).items()
        if key in chosen or key == "method" or key not in defaults or value != defaults[key]
    }
    return Layer("base", known)


@cache
def _defaults_of(method: str) -> Mapping[str, Any]:
    """Every value of a method's default configuration."""
    return values_of(with_methods([Layer("method", {"method": method})]))


def with_methods(layers: list[Layer]) -> Config:
    """Layers above the defaults of the method that they name.

    Raises:
        ConfigError: What is wrong with them, all at once.
    """
    return resolve(layers, methods=MethodDefaults()).config


def with_settings(
    base: Config, settings: Mapping[str, Any], chosen: Collection[str] = (), *, origin: str = "trial"
) -> Config:
    """A trial's configuration: its settings above the user's own, these above its method's defaults.

    Args:
        base: What every trial begins from.
        settings: Dotted keys to values; ``method`` may also name a named configuration.
        chosen: Keys of `base` that somebody chose; see :func:`user_layer`.
        origin: Where the settings come from, for messages.

    Raises:
        ConfigError: What the configuration refuses.

    Example:
        >>> with_settings(Config(), {"flow.blocks": 8}).flow.blocks
        8
        >>> with_settings(Config(), {"method": "patchcore"}).patchcore.coreset
        0.02
    """
    return with_methods([user_layer(base, chosen), Layer(origin, expanded(settings))])


def expanded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which a named configuration that stands for a method is written out.

    Example:
        >>> expanded({"method": "padim-published", "padim.channels": 50})["padim.channels"]
        50
    """
    configuration = named_configurations().get(str(settings.get("method")), {})
    if "method" not in configuration:
        return dict(settings)
    return {**flatten(configuration), **{key: value for key, value in settings.items() if key != "method"}}


def method_settings(name: str, *, where: str = "--methods") -> dict[str, Any]:
    """What a method's name sets: itself, or what the named configuration of that name holds.

    Args:
        name: Name of a method, of a named configuration, or ``module:attribute``.
        where: What names it, for messages.

    Raises:
        ConfigError: There is none; the nearest names are given.

    Example:
        >>> method_settings("padim")
        {'method': 'padim'}
    """
    if (settings := expanded({"method": name})) != {"method": name}:
        return settings
    if name not in methods() and ":" not in name:
        known = [
            *methods(),
            *(
                configuration
                for configuration in named_configurations()
                if "method" in named_configurations()[configuration]
            ),
        ]
        raise ConfigError(
            f"no method {visible(name)}{did_you_mean(name, known)}",
            where=where,
            fix=f"there are {', '.join(known)}; or module:attribute",
        )
    method_named(name)  # one of a module that cannot be imported is refused here
    return settings


def problem_with(config: Config) -> str | None:
    """Why a configuration cannot be run, as far as that is known without an image; None where it can.

    Its networks are made without numbers on features of the right shapes, and asked for the score components
    that the scoring section names.
    """
    from nfbmr.methods.detector import blueprint
    from nfbmr.scoring.selection import check_scoring

    try:
        check_scoring(config.scoring, blueprint(config).networks.components)
    except NfbmrError as error:
        where = "" if error.where is None else f" ({error.where})"
        return f"{error.what}{where}" + (f"; {error.fix}" if error.fix else "")
    return None

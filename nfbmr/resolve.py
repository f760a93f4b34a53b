"""From layers of settings to one configuration, with the origin of every value.

A later layer wins, key by key::

    defaults < the method's < named configurations and files, as given < --set < options (--data, --seed, ...)

Everything that is wrong is listed at once, each with where it came from and the nearest right name.
Named configurations and the methods' defaults are handed in: they live in :mod:`nfbmr.methods`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nfbmr import yaml_text
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.fields import Key, alternatives, choices, did_you_mean, fields_of, keys, keys_in, sections
from nfbmr.layers import Layer, config_layers, file_layer, named_layer, option_layer, set_layer
from nfbmr.nesting import unflatten
from nfbmr.text import count

__all__ = [
    "Key",
    "Layer",
    "Resolved",
    "config_layers",
    "digest",
    "dump_yaml",
    "fields_of",
    "file_layer",
    "flat",
    "load_config",
    "named_layer",
    "option_layer",
    "resolve",
    "set_layer",
    "unflatten",
    "values_of",
]

DEFAULT = "default"
"""The origin of a value that nobody chose."""
_HELP = "see all keys and what they allow: nfbmr config --describe"


@dataclass(frozen=True)
class Resolved:
    """A configuration, and where each of its values came from.

    Args:
        config: The configuration.
        origins: By dotted key: ``default``, the name of a method or configuration, ``file:line``, ``--set``,
            ``--seed``.
    """

    config: Config
    origins: Mapping[str, str]

    def given(self, key: str) -> bool:
        """Whether somebody chose this value, even if it equals the default."""
        return self.origins[key] != DEFAULT


@dataclass(frozen=True)
class _Setting:
    value: Any
    origin: str


# ----------------------------------------------------------------------------------------------- merging


def resolve(
    layers: Iterable[Layer] = (), *, methods: Mapping[str, Mapping[str, Any]] | None = None
) -> Resolved:
    """Merge layers, lowest first, into a validated configuration.

    Args:
        layers: Above the defaults; a later one wins, key by key. Lists are replaced whole.
        methods: Each method's own defaults by its name; the chosen method's lie between the defaults and the
            layers. Without it, any name of a method is taken.

    Raises:
        ConfigError: Unknown keys, unknown methods, impossible values: all of them in one message.

    Example:
        >>> resolved = resolve([Layer("a.yaml", {"flow": {"blocks": 6}}), set_layer(["flow.blocks=8"])])
        >>> resolved.config.flow.blocks, resolved.origins["flow.blocks"], resolved.origins["flow.hidden"]
        (8, '--set', 'default')
    """
    layers = list(layers)
    problems = [problem for layer in layers for problem in layer.problems]
    if methods is not None:  # its keys are known once it is loaded, so it comes first
        name, origin = Config.model_fields["method"].default, DEFAULT
        for layer in layers:
            if "method" in layer.values:
                name, origin = layer.values["method"], layer.place("method")
        # A run of an older version had no value for what was added since, and not today's of its method.
        again = any(layer.complete and layer.values.get("method") == name for layer in layers)
        if isinstance(name, str) and name in methods:
            layers.insert(0, Layer(f"method {name}", {} if again else methods[name]))
        else:
            hint = did_you_mean(str(name), methods)
            problems.append(f"method = {name} ({origin}): should be one of {', '.join(methods)}{hint}")
    settings: dict[str, _Setting] = {}
    for layer in layers:
        settings.update(_settings(layer, layer.values, "", problems, read_only=methods is None))
    config = _validated(settings, problems)
    if problems or config is None:
        if len(problems) == 1:
            raise ConfigError(problems[0], fix=_HELP)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"the configuration has {count(len(problems), 'problem')}:{lines}", fix=_HELP)
    origins = {key: settings[key].origin if key in settings else DEFAULT for key in keys_in(config)}
    return Resolved(config, origins)


def _settings(
    layer: Layer, values: Mapping[Any, Any], prefix: str, problems: list[str], *, read_only: bool
) -> Iterator[tuple[str, _Setting]]:
    """Flatten one layer to known dotted keys; whatever is not one is a problem.

    Where a configuration is only read, sections are taken as they are: they may be of a method that is not
    installed here, which :class:`Config` judges.
    """
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in keys():
            yield key, _Setting(value, layer.place(key))
        elif key in sections() and isinstance(value, Mapping):
            yield from _settings(layer, value, f"{key}.", problems, read_only=read_only)
        elif key == "own" and not value:  # of a run from before methods had sections of their own
            continue
        elif read_only and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", _Setting(inner, layer.place(key))) for name, inner in value.items())
        elif key in sections():
            if value is not None:  # an empty section says nothing
                inside = [known for known in keys() if known.startswith(f"{key}.")]
                problems.append(
                    f"{key} ({layer.place(key)}): a section, not a value; it holds "
                    f"{', '.join(inside[:4])}, ..."
                )
        elif key == "own":
            problems.append(
                f"own ({layer.place(key)}): settings of a method of one's own are a section of the method's "
                "by now, see docs/own-method.md"
            )
        else:
            hint = did_you_mean(key, sections() if isinstance(value, Mapping) else keys())
            problems.append(f"{key} ({layer.place(key)}): no such key{hint}")


def _validated(settings: Mapping[str, _Setting], problems: list[str]) -> Config | None:
    for key, setting in settings.items():
        known = keys().get(key)
        if known and isinstance(setting.value, bool) and bool not in alternatives(known.annotation):
            problems.append(_impossible(key, setting))  # pydantic would take true for 1
    try:
        return Config.model_validate(unflatten({key: setting.value for key, setting in settings.items()}))
    except ValidationError as error:
        reported = set()
        for detail in error.errors():
            location = [str(part) for part in detail["loc"]]
            key = next(
                (k for n in range(len(location), 0, -1) if (k := ".".join(location[:n])) in keys()), ""
            )
            if not key and ".".join(location) in sections():  # of several of its keys together
                problems.append(f"{'.'.join(location)}: {detail['msg'].removeprefix('Value error, ')}")
                continue
            if not key and location:
                problems.append(f"{'.'.join(location)}: no such key{did_you_mean(location[0], sections())}")
                continue
            if key in reported:  # one line a key, however many alternatives its type has
                continue
            reported.add(key)
            reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
            if not key:
                problems.append(reason or detail["msg"])
                continue
            problem = _impossible(key, settings[key], reason)
            if problem not in problems:
                problems.append(problem)
        return None


def _impossible(key: str, setting: _Setting, reason: str = "") -> str:
    known = keys()[key]
    try:
        text = yaml_text.inline(setting.value)
    except Exception:  # a Python object handed in through the API: any words for it will do
        text = repr(setting.value)
    shown = f"{key} = {text if len(text) <= 80 else f'{text[:77]}...'} ({setting.origin})"
    if reason:
        return f"{shown}: {reason}"
    words = choices(known.annotation)
    hint = did_you_mean(str(setting.value), words) if words and isinstance(setting.value, str) else ""
    return f"{shown}: should be {known.allowed}{hint}"


# --------------------------------------------------------------------------------------- in and out again


def values_of(config: Config) -> dict[str, Any]:
    """Every dotted key to its value, as YAML and JSON hold it: lists for tuples, text for paths.

    Example:
        >>> values_of(Config())["features.scales"]
        [1.0]
    """
    values: dict[str, Any] = {}
    for key in keys_in(config):
        value: Any = config
        for part in key.split("."):
            value = value[part] if isinstance(value, Mapping) else getattr(value, part)
        if isinstance(value, Path):
            value = value.as_posix()
        elif isinstance(value, BaseModel):
            value = value.model_dump(exclude_none=True)
        values[key] = list(value) if isinstance(value, tuple) else value
    return values


def flat(config: Config) -> dict[str, str | int | float | bool | None]:
    """Dotted keys to scalars, for trackers and tables; a list becomes its YAML text (``--set`` reads it).

    Example:
        >>> flat(Config())["flow.kernels"], flat(Config())["train.mapping.epochs"]
        ('[3, 3, 3, 5]', 10)
    """
    return {k: yaml_text.inline(v) if isinstance(v, list | dict) else v for k, v in values_of(config).items()}


def dump_yaml(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """A configuration as YAML, every key present; with origins, each line says where its value came from.

    Example:
        >>> print(dump_yaml(Config())[:75].rstrip())
        method: nf-bmr
        seed: 0
        output: runs
        store: .nfbmr/store
        data:
          path: null
    """
    lines: list[str] = []
    notes: list[str] = []
    open_path: list[str] = []
    for key, value in values_of(config).items():
        *path, name = key.split(".")
        shared = 0
        while shared < min(len(path), len(open_path)) and path[shared] == open_path[shared]:
            shared += 1
        for depth in range(shared, len(path)):
            lines.append(f"{'  ' * depth}{yaml_text.inline(path[depth])}:")
            notes.append("")
        open_path = path
        lines.append(f"{'  ' * len(path)}{yaml_text.inline(name)}: {yaml_text.inline(value)}")
        notes.append("" if origins is None else " ".join(origins[key].split()))
    width = min(max((len(line) for line, note in zip(lines, notes, strict=True) if note), default=0), 60)
    pairs = zip(lines, notes, strict=True)
    return "".join(f"{line:<{width}}  # {note}\n" if note else f"{line}\n" for line, note in pairs)


def load_config(path: Path) -> Config:
    """Read a run's ``config.yaml``; keys it does not have keep their defaults.

    Raises:
        ConfigError: It cannot be read, or holds what this version does not know.
    """
    return resolve([file_layer(path)]).config


def digest(*parts: BaseModel | Mapping[str, Any] | Sequence[Any] | str | float | None) -> str:
    """A name for what a result depends on: 32 hex digits over sections of a configuration and other values.

    Example:
        >>> digest(Config().flow, 0) == digest(Config().flow, 0)
        True
        >>> digest(Config().flow, 0) == digest(Config().flow, 1)
        False
    """
    values = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

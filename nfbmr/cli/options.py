"""Options that commands share, and the one way to print a result."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from nfbmr.text import as_text, parse_size

if TYPE_CHECKING:
    from nfbmr.config import Config
    from nfbmr.resolve import Resolved

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Size(click.ParamType[int]):
    """A number of bytes such as ``32MB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Shortcut(NamedTuple):
    """An option that sets one key."""

    key: str
    metavar: str
    help: str


SHORTCUTS: dict[str, Shortcut] = {
    "--data": Shortcut("data.path", "FOLDER|FILE", "Images, or a manifest; without it, the synthetic set."),
    "--category": Shortcut("data.category", "NAME", "Which one, where there are several; train: or all."),
    "--split": Shortcut("data.split", "NAME", "auto, official, legacy, group or random."),
    "--method": Shortcut("method", "NAME", "A method (nfbmr methods)."),
    "--known-defects": Shortcut(
        "data.known_defects", "FOLDER|N|SHARE", "Real defects to choose with; they leave the test set."
    ),
    "--limit-train": Shortcut("data.limit_train", "N", "Train on this many images at most."),
    "--seed": Shortcut("seed", "N", "Seed of weights, batches and synthetic defects."),
    "--output": Shortcut("output", "FOLDER", "Run folders are made here."),
    "--store": Shortcut("store", "FOLDER", "Features, latents and fitted stages that all runs share."),
}
"""Options that set one key of the configuration, by the name that is typed."""


_CONFIGS, _ASSIGNMENTS = "configs", "assignments"


def config_options(function: _Function) -> _Function:
    """Give a command ``--config``, ``--set`` and the shortcuts; it is called with ``resolved``.

    The command's function receives one keyword argument, ``resolved``: a :class:`nfbmr.resolve.Resolved`.
    A shortcut counts only where it is given.
    """
    return config_options_but()(function)


def config_options_but(*taken: str) -> Callable[[_Function], _Function]:
    """:func:`config_options` without some of the shortcuts, which the command has other uses for."""
    shortcuts = {option: shortcut for option, shortcut in SHORTCUTS.items() if option not in taken}
    return functools.partial(_with_config_options, shortcuts=shortcuts)


class SettingOption(click.Option):
    """An option that sets one key of the configuration.

    Args:
        key: Key of the configuration, dotted.
    """

    def __init__(self, declarations: Sequence[str], *, key: str, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.key = key


def _with_config_options(function: _Function, shortcuts: Mapping[str, Shortcut]) -> _Function:

    @click.pass_context
    @functools.wraps(function)
    def wrapped(context: click.Context, *args: Any, **kwargs: Any) -> Any:
        taken = {str(parameter.name) for parameter in _setting_parameters(context.command)}
        rest = {name: value for name, value in kwargs.items() if name not in taken}
        return function(*args, resolved=resolve_context(context), **rest)

    for option, shortcut in reversed(list(shortcuts.items())):
        wrapped = click.option(
            option, cls=SettingOption, key=shortcut.key, metavar=shortcut.metavar, help=shortcut.help
        )(wrapped)
    wrapped = click.option(
        "--set",
        _ASSIGNMENTS,
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=_complete_key,
        help="Set one key, such as flow.blocks=8. Repeatable.",
    )(wrapped)
    with_config = click.option(
        "--config",
        _CONFIGS,
        metavar="NAME|FILE",
        multiple=True,
        shell_complete=_complete_config,
        help="A named configuration (paper, demo, ...), a YAML file, or the folder of a run. Repeatable: "
        "the later wins.",
    )
    return with_config(wrapped)  # type: ignore[return-value]


def resolve_context(context: click.Context) -> Resolved:
    """The configuration that a parsed command line asks for; the command need not be run.

    Args:
        context: Context of a command that has :func:`config_options`.

    Raises:
        ConfigError: It asks for what cannot be.
    """
    given = {
        parameter.key: (parameter.opts[0], value)
        for parameter in _setting_parameters(context.command)
        if isinstance(parameter, SettingOption) and (value := context.params[str(parameter.name)]) is not None
    }
    return resolve_options(context.params[_CONFIGS], context.params[_ASSIGNMENTS], given)


def resolve_options(
    configs: tuple[str, ...] = (),
    assignments: tuple[str, ...] = (),
    given: Mapping[str, tuple[str, Any]] | None = None,
) -> Resolved:
    """Resolve what a command line says, with the named configurations and methods of this package."""
    from nfbmr.methods.registry import MethodDefaults, named_configurations
    from nfbmr.resolve import config_layers, resolve

    layers = config_layers(configs, assignments, given, named=named_configurations())
    return resolve(layers, methods=MethodDefaults())


def settings_given(resolved: Resolved, *, but: Collection[str] = (), kept: Config | None = None) -> list[str]:
    """Settings of a command line that cannot be taken by what goes on as it was begun, for a message.

    Args:
        resolved: What the command line says.
        but: Keys that count nevertheless.
        kept: What was begun; a setting that says the same changes nothing, and is not named.

    Returns:
        Each as ``KEY (ORIGIN)``.
    """
    from nfbmr.resolve import DEFAULT, values_of

    wanted, values = values_of(resolved.config), None if kept is None else values_of(kept)
    return [
        f"{key} ({origin})"
        for key, origin in resolved.origins.items()
        if origin != DEFAULT and not origin.startswith("method ") and key not in but
        if values is None or key not in values or wanted[key] != values[key]
    ]


def _setting_parameters(command: click.Command) -> list[click.Parameter]:
    """What :func:`config_options` gave a command."""
    return [
        parameter
        for parameter in command.params
        if isinstance(parameter, SettingOption) or parameter.name in (_CONFIGS, _ASSIGNMENTS)
    ]


def _complete_key(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nfbmr.fields import choices, keys
    from nfbmr.methods.registry import know_methods

    given = [text.partition("=")[::2] for text in ctx.params.get(_ASSIGNMENTS) or ()]
    given += [("method", ctx.params.get("method"))]
    know_methods([{key: value} for key, value in given])
    name, equals, value = incomplete.partition("=")
    if not equals:
        return [CompletionItem(f"{key}=") for key in keys() if key.startswith(name)]
    words = choices(keys()[name].annotation) if name in keys() else ()
    return [CompletionItem(f"{name}={word}") for word in words if word.startswith(value)]


def _complete_config(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nfbmr.methods.registry import named_configurations

    names = [CompletionItem(name) for name in named_configurations() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def json_option(function: _Function) -> _Function:
    """Give a command ``--json``; its function receives ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary.")(function)


def emit(summary: Any, *, as_json: bool, text: str = "") -> None:
    """Print a result on standard output: JSON for programs, or text for people.

    Numbers that are not finite become null, which is all that JSON has for them. Bytes of a file name that
    are no text are written as escapes.
    """
    if as_json:
        click.echo(json.dumps(_jsonable(summary), indent=2, ensure_ascii=True, allow_nan=False))
    elif text:
        click.echo(as_text(text.rstrip("\n")))


def _jsonable(value: Any) -> Any:
    """What JSON can hold, for the values that results are made of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    elif hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return value.as_posix()
    return value if value is None or isinstance(value, str | int) else str(value)

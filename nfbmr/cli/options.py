"""Options that commands share, and the one way to print a result."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from nfbmr.wording import as_text

Function = TypeVar("Function", bound=Callable[..., Any])


class Shortcut(NamedTuple):
    """An option that sets one key."""

    key: str
    metavar: str
    help: str


SHORTCUTS: dict[str, Shortcut] = {
    "--data": Shortcut("data.path", "FOLDER", "Folder of images; without it, the synthetic set."),
    "--category": Shortcut("data.category", "NAME", "Which one, where the folder holds several data sets."),
    "--split": Shortcut("data.split", "NAME", "auto, official, legacy, group or random."),
    "--method": Shortcut("method", "NAME", "A method (nfbmr methods)."),
    "--limit-train": Shortcut("data.limit_train", "N", "Train on this many images at most."),
    "--seed": Shortcut("seed", "N", "Seed of weights, batches and synthetic defects."),
    "--output": Shortcut("output", "FOLDER", "Run folders are made here."),
    "--store": Shortcut("store", "FOLDER", "Features, latents and flows that all runs share."),
}


def config_options(function: Function) -> Function:
    """Give a command ``--config``, ``--set`` and the shortcuts; it is called with ``resolved``.

    The command's function receives one keyword argument, ``resolved``: a :class:`nfbmr.resolve.Resolved`.
    A shortcut counts only where it is given.
    """
    return config_options_but()(function)


def config_options_but(*taken: str) -> Callable[[Function], Function]:
    """:func:`config_options` without some of the shortcuts, which the command has other uses for."""
    shortcuts = {option: shortcut for option, shortcut in SHORTCUTS.items() if option not in taken}
    return functools.partial(_with_config_options, shortcuts=shortcuts)


def _with_config_options(function: Function, shortcuts: Mapping[str, Shortcut]) -> Function:

    @functools.wraps(function)
    def wrapped(*args: Any, configs: tuple[str, ...], assignments: tuple[str, ...], **kwargs: Any) -> Any:
        given = {}
        for option, shortcut in shortcuts.items():
            value = kwargs.pop(_parameter(option))
            if value is not None:
                given[shortcut.key] = (option, value)
        return function(*args, resolved=resolve_options(configs, assignments, given), **kwargs)

    for option, shortcut in reversed(list(shortcuts.items())):
        wrapped = click.option(
            option, _parameter(option), metavar=shortcut.metavar, default=None, help=shortcut.help
        )(wrapped)
    wrapped = click.option(
        "--set",
        "assignments",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=_complete_key,
        help="Set one key, such as flow.blocks=8. Repeatable.",
    )(wrapped)
    with_config = click.option(
        "--config",
        "configs",
        metavar="NAME|FILE",
        multiple=True,
        shell_complete=_complete_config,
        help="A named configuration (paper, demo, ...), a YAML file, or the folder of a run. Repeatable: "
        "the later wins.",
    )
    return with_config(wrapped)  # type: ignore[return-value]


def resolve_options(
    configs: tuple[str, ...] = (),
    assignments: tuple[str, ...] = (),
    given: Mapping[str, tuple[str, Any]] | None = None,
) -> Any:
    """Resolve what a command line says, with the named configurations and methods of this package."""
    from nfbmr.methods.named import NAMED
    from nfbmr.methods.table import MethodDefaults
    from nfbmr.resolve import config_layers, resolve

    layers = config_layers(configs, assignments, given, named=NAMED)
    return resolve(layers, methods=MethodDefaults())


def _parameter(option: str) -> str:
    return "shortcut_" + option.removeprefix("--").replace("-", "_")


def _complete_key(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nfbmr.fields import choices, keys

    name, equals, value = incomplete.partition("=")
    if not equals:
        return [CompletionItem(f"{key}=") for key in keys() if key.startswith(name)]
    words = choices(keys()[name].annotation) if name in keys() else ()
    return [CompletionItem(f"{name}={word}") for word in words if word.startswith(value)]


def _complete_config(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nfbmr.methods.named import NAMED

    names = [CompletionItem(name) for name in NAMED if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def json_option(function: Function) -> Function:
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

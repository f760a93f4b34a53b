"""Where settings come from: named configurations, files, ``--set`` and options, each a :class:`Layer`.

Reading never raises: what is wrong with a layer is kept in it, so that :func:`nfbmr.resolve.resolve`
lists all at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nfbmr import yaml_text
from nfbmr.fields import Key, alternatives, choices, did_you_mean, is_list, keys

_FILE_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Args:
        origin: Where they come from, as shown to people: ``paper``, ``my.yaml``, ``--set``.
        values: Nested mappings, dotted keys, or a mixture.
        places: A more exact origin by dotted key, such as ``my.yaml:12``.
        problems: What was already found wrong while reading.
        complete: Whether it is all of a run's settings: what is not in it did not exist then.
    """

    origin: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    complete: bool = False

    def place(self, key: str) -> str:
        """Where a key's value comes from."""
        return self.places.get(key, self.origin)


def named_layer(name: str, named: Mapping[str, Mapping[str, Any]]) -> Layer:
    """A named configuration such as ``paper``."""
    return Layer(name, named[name])


def file_layer(path: Path) -> Layer:
    """A YAML (or JSON) file; what is wrong with it is kept as the layer's problem."""
    name = str(path)
    try:
        document = yaml_text.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        return Layer(name, {}, problems=(f"{name}: cannot be read ({error.strerror or error})",))
    except UnicodeDecodeError:
        return Layer(name, {}, problems=(f"{name}: not a text file",))
    except yaml_text.YamlError as error:
        return Layer(name, {}, problems=(f"{name}: not a YAML file ({error})",))
    if document.value is None:
        return Layer(name, {})
    if not isinstance(document.value, Mapping):
        return Layer(
            name, {}, problems=(f"{name}: holds no keys, only {yaml_text.inline(document.value)[:60]}",)
        )
    return Layer(name, document.value, {key: f"{name}:{line}" for key, line in document.lines.items()})


def set_layer(assignments: Iterable[str]) -> Layer:
    """The ``KEY=VALUE`` of ``--set``; the value is YAML, and a list may go without its brackets.

    Example:
        >>> set_layer(["train.flow.lr=1e-4", "features.taps=blocks.3,blocks.5"]).values
        {'train.flow.lr': 0.0001, 'features.taps': ['blocks.3', 'blocks.5']}
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"--set {assignment}: should read KEY=VALUE, such as flow.blocks=8")
            continue
        try:
            values[key] = _read(key, text.strip())
        except yaml_text.YamlError as error:
            problems.append(f"--set {assignment}: the value is not YAML ({error})")
    return Layer("--set", values, problems=tuple(problems))


def _read(key: str, text: str) -> Any:
    """A value as typed on a command line, read with the key's type in mind."""
    known = keys().get(key)
    value = yaml_text.parse(text).value
    if known is None or value is None or isinstance(value, list | dict):
        return value
    if is_list(known.annotation) and text not in choices(known.annotation):
        return [yaml_text.parse(part.strip()).value for part in text.split(",")]
    return text if _is_text(known) else value


def _is_text(key: Key) -> bool:
    """Whether a word that looks like a number is meant as a word, such as a category named 3."""
    kinds = alternatives(key.annotation)
    return (str in kinds or Path in kinds) and not {int, float, bool} & set(kinds)


def option_layer(options: Mapping[str, tuple[str, Any]]) -> Layer:
    """Command-line options: by dotted key, the option's own name and its value."""
    return Layer(
        "command line",
        {key: value for key, (_, value) in options.items()},
        {key: option for key, (option, _) in options.items()},
    )


def config_layers(
    configs: Sequence[str] = (),
    assignments: Sequence[str] = (),
    options: Mapping[str, tuple[str, Any]] | None = None,
    *,
    named: Mapping[str, Mapping[str, Any]],
) -> tuple[Layer, ...]:
    """The layers of a command line, lowest first.

    Args:
        configs: Names of configurations or files, in the order given.
        assignments: ``KEY=VALUE`` texts.
        options: As for :func:`option_layer`.
        named: The named configurations.
    """
    chosen = [_named_or_file(text, named) for text in configs]
    return (*chosen, set_layer(assignments), option_layer(options or {}))


def _named_or_file(text: str, named: Mapping[str, Mapping[str, Any]]) -> Layer:
    if text in named:
        return named_layer(text, named)
    path = Path(text)
    if path.is_file() or path.suffix.lower() in _FILE_SUFFIXES:
        return file_layer(path)
    if path.is_dir() and (path / "config.yaml").is_file():  # the folder of a run: the same again
        return replace(file_layer(path / "config.yaml"), complete=True)
    hint = did_you_mean(text, named)
    problem = f"--config {text}: neither a file nor a named configuration ({', '.join(sorted(named))}){hint}"
    return Layer(text, {}, problems=(problem,))

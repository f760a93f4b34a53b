"""Every key of the configuration, in words: what it allows, its default, what it is for.

``nfbmr config --describe``, ``docs/configuration.md`` and the error messages of :mod:`nfbmr.resolve` all read
this one description, which is itself read from :class:`nfbmr.config.Config`.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nfbmr.config import Config
from nfbmr.config.method_sections import added_sections, loads
from nfbmr.nesting import flatten

_PLAIN: dict[Any, str] = {bool: "true or false", str: "text", Path: "a path", types.NoneType: "null"}


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Args:
        name: Dotted, as ``--set`` takes it.
        allowed: What a value may be, in words.
        default: The default value.
        description: What it is for; empty where the name says it.
        annotation: The type, for those who must tell a list from a word.
    """

    name: str
    allowed: str
    default: Any
    description: str
    annotation: Any


def fields_of(model: type[BaseModel] = Config) -> tuple[Key, ...]:
    """Every dotted key of a configuration class, in the order of its declaration.

    Those of methods come last: of our methods, and of others that were loaded.

    Example:
        >>> [key.allowed for key in fields_of() if key.name == "flow.blocks"]
        ['a whole number from 1 to 64']
    """
    return tuple(keys(model).values())


def keys(model: type[BaseModel] = Config) -> dict[str, Key]:
    """The same by name."""
    return _keys_by_name(model, loads() if model is Config else 0)


def keys_in(config: Config) -> tuple[str, ...]:
    """Names of the keys that a configuration has: of all our methods, and of its own one.

    Example:
        >>> "patchcore.coreset" in keys_in(Config(method="padim"))
        True
    """
    ours = tuple(_keys_by_name(Config, 0))
    others = {name: value for name, value in (config.model_extra or {}).items() if isinstance(value, dict)}
    stages = {name: section.model_dump() for name, section in (config.train.model_extra or {}).items()}
    end = ours.index(next(name for name in reversed(ours) if name.startswith("train."))) + 1
    return (*ours[:end], *flatten(stages, "train."), *ours[end:], *_keys_of_values(others, ""))


def _keys_of_values(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Dotted keys of nested values; a mapping that is a key's value is not opened."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key not in keys():
            yield from _keys_of_values(value, f"{key}.")
        else:
            yield key


@cache
def _keys_by_name(model: type[BaseModel], loads: int) -> dict[str, Key]:
    """Keys by name; with no method of others loaded, those that every configuration has."""
    by_name = {key.name: key for key in _keys(model(), "")}
    for name, section in added_sections() if loads else ():
        by_name |= {key.name: key for key in _keys(section, f"{name}.")}
    return by_name


def sections(model: type[BaseModel] = Config) -> frozenset[str]:
    """Dotted names of the sections.

    Example:
        >>> {"patchcore", "train.flow"} <= sections()
        True
    """
    return _sections(model, loads() if model is Config else 0)


@cache
def _sections(model: type[BaseModel], loads: int) -> frozenset[str]:
    names = (name.split(".")[:-1] for name in _keys_by_name(model, loads))
    return frozenset(".".join(parts[:n]) for parts in names for n in range(1, len(parts) + 1))


def _keys(section: BaseModel, prefix: str) -> Iterator[Key]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            allowed = _words(field.annotation, field.metadata)
            yield Key(prefix + name, allowed, value, field.description or "", field.annotation)
    for name, value in (section.model_extra or {}).items():
        yield from _keys(value, f"{prefix}{name}.")


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; annotations are taken off.

    Example:
        >>> alternatives(int | None)
        (<class 'int'>, <class 'NoneType'>)
    """
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(alternative for part in get_args(annotation) for alternative in alternatives(part))
    return (annotation,)


def is_list(annotation: Any) -> bool:
    """Whether a list is among what the type allows.

    Example:
        >>> is_list(tuple[int, ...] | None)
        True
    """
    return any(get_origin(part) is tuple for part in alternatives(annotation))


def choices(annotation: Any) -> tuple[str, ...]:
    """The words a type allows by name.

    Example:
        >>> choices(Literal["max", "mean"] | None)
        ('max', 'mean')
    """
    literals = (get_args(part) for part in alternatives(annotation) if get_origin(part) is Literal)
    return tuple(str(word) for words in literals for word in words)


def _words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a type allows, as a phrase that fits after "should be"."""
    arguments = get_args(annotation)
    kind = get_origin(annotation) or annotation
    if kind is Annotated:
        words = _words(arguments[0], [*metadata, *(part for extra in arguments[1:] for part in _flat(extra))])
    elif kind in (Union, types.UnionType):
        words = " or ".join(_words(part, metadata) for part in arguments)
    elif kind is Literal:
        words = f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    elif kind is tuple:
        length = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        words = f"a list{length}, each {_words(arguments[0])}"
    elif kind in (int, float):
        words = ("a whole number" if kind is int else "a number") + _bounds(metadata)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        words = f"a mapping of {', '.join(kind.model_fields)}"
    elif kind is dict:
        words = f"names, each with {_words(arguments[1])}"
    else:
        words = _PLAIN.get(kind, "a value")
    return words


def _flat(extra: Any) -> list[Any]:
    return list(extra.metadata) if isinstance(extra, FieldInfo) else [extra]


def _bounds(metadata: Iterable[Any]) -> str:
    bounds = {
        name: getattr(part, name)
        for part in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(part, name, None) is not None
    }
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']:g} to {bounds['le']:g}"
    if "gt" in bounds and "lt" in bounds:
        return f" between {bounds['gt']:g} and {bounds['lt']:g}"
    phrases = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    limits = [f"{phrase} {bounds[name]:g}" for name, phrase in phrases.items() if name in bounds]
    return f" {' and '.join(limits)}" if limits else ""


def nearest(word: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Names that `word` may have meant, best first.

    A key missing its beginning comes first, then a spelling close to a whole name, then one close to its
    last part. Whether letters are small or large does not matter.

    Example:
        >>> nearest("flow.block", keys())
        ('flow.blocks',)
        >>> nearest("epochs", keys())
        ('train.flow.epochs', 'train.detail.epochs', 'train.mapping.epochs')
    """
    names = {name.lower(): name for name in known}
    word = word.lower()
    wanted = set(word.split("."))
    matches = [name for name in names if wanted <= set(name.split("."))]
    if not matches:
        matches = difflib.get_close_matches(word, names, n=1, cutoff=0.75)
    if not matches:
        tails: dict[str, list[str]] = {}
        for name in names:
            tails.setdefault(name.rpartition(".")[2], []).append(name)
        last = difflib.get_close_matches(word.rpartition(".")[2], tails, n=1, cutoff=0.7)
        matches = [name for tail in last for name in tails[tail]]
    return tuple(names[name] for name in matches[:limit])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to end a message with, or nothing.

    Example:
        >>> did_you_mean("grup", ["legacy", "group"])
        '; did you mean group?'
    """
    question = suggestion(word, known)
    return f"; {question}" if question else ""


def suggestion(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The same as a sentence of its own; where no name is near, what is said otherwise.

    Example:
        >>> suggestion("zebra", ["legacy", "group"], "splits are legacy and group")
        'splits are legacy and group'
    """
    names = nearest(word, known)
    return f"did you mean {' or '.join(names)}?" if names else otherwise

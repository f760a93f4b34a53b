"""YAML as people mean it: ``1e-4`` is a number, ``on`` is a word, and every key remembers its line.

PyYAML follows YAML 1.1, where ``1e-4`` is text and the key ``on`` is the boolean true. The loader here uses
the scalars of YAML 1.2 instead, and the writer quotes by both rules: what is written reads back equal, here
and elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_SCALARS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),
}
_LINE_BREAKS = re.compile("[\n\x85\u2028\u2029]")


class YamlError(ValueError):
    """Text that is not YAML, or not what a configuration can hold."""


class _Loader(yaml.SafeLoader):
    """Safe loading with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name, replaced and not extended


class _Dumper(yaml.SafeDumper):
    """Safe dumping that quotes whatever `_Loader` would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _integer(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


for _tag, (_pattern, _first) in _SCALARS.items():
    _compiled = re.compile(rf"^(?:{_pattern})$")
    _Loader.add_implicit_resolver(_tag, _compiled, _first)
    # added to, not replacing, the 1.1 rules: other readers must see text as text as well
    _Dumper.add_implicit_resolver(_tag, _compiled, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


@dataclass(frozen=True)
class Document:
    """A parsed document.

    Args:
        value: The content.
        lines: Line number, from 1, of every key; nested keys are joined by dots.
    """

    value: Any
    lines: Mapping[str, int]


def parse(text: str) -> Document:
    r"""Parse one YAML document.

    Raises:
        YamlError: Not YAML, several documents, or a key given twice; the message names the line.

    Example:
        >>> parse("train:\n  flow: {lr: 1e-4}\nselection: {on: test}").value
        {'train': {'flow': {'lr': 0.0001}}, 'selection': {'on': 'test'}}
        >>> parse("a: 1\nb:\n  c: 2").lines
        {'a': 1, 'b': 2, 'b.c': 3}
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines = dict(_lines(node, "")) if node is not None else {}
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise YamlError(f"{line}{error.problem or error.context or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(str(error).splitlines()[0]) from error
    return Document(value, lines)


def _lines(node: yaml.Node, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        line = key.start_mark.line + 1
        if name in seen and name != "<<":
            raise YamlError(f"line {line}: {prefix}{name} is given twice")
        seen.add(name)
        yield prefix + name, line
        yield from _lines(value, f"{prefix}{name}.")


def inline(value: Any) -> str:
    """A value on one line, such that :func:`parse` gives it back.

    Example:
        >>> inline([3, 3.0, "on", "1e-4", None, "blocks.5"])
        "[3, 3.0, 'on', '1e-4', null, blocks.5]"
    """
    options: dict[str, Any] = {"default_flow_style": True, "width": float("inf"), "allow_unicode": True}
    text: str = yaml.dump(value, Dumper=_Dumper, **options).removesuffix("...\n").rstrip("\n")
    if _LINE_BREAKS.search(text):  # inside a string: only double quotes keep it on one line
        text = yaml.dump(value, Dumper=_Dumper, default_style='"', **options).rstrip("\n")
    return text


def lines_of(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested mappings as a YAML file's lines.

    Example:
        >>> list(lines_of({"flow": {"blocks": 8, "kernels": (3, 5)}}))
        ['flow:', '  blocks: 8', '  kernels: [3, 5]']
    """
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield f"{indent}{inline(name)}:"
            yield from lines_of(inner, indent + "  ")
        else:
            yield f"{indent}{inline(name)}: {inline(list(inner) if isinstance(inner, tuple) else inner)}"

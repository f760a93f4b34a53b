"""What MLflow's limits make of names and values: nothing is dropped, and whatever is cut says so."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

_NAME_LENGTH = 250
PARAM_LENGTH = 6000
"""Characters of a parameter's value that MLflow takes."""
TAG_LENGTH = 8000
"""Characters of a tag's value that MLflow takes."""
# MLflow refuses requests of more than a megabyte; the rest is for what is around the items.
REQUEST_BYTES = 800_000
"""Bytes of values that are sent in one request."""


def valid_name(name: str) -> str:
    """A name that MLflow takes for a parameter, a metric or a tag.

    A name that had to be changed ends in a few digits of its hash, so that two names never become one.

    Example:
        >>> valid_name("test/image_auroc")
        'test/image_auroc'
        >>> valid_name("test/recall@0.5")
        'test/recall_0.5-3dca08'
    """
    changed = re.sub(r"[^/\w.\- :]", "_", name)
    changed = re.sub(r"^(\.\.(/|$))+", "", posixpath.normpath(changed).lstrip("/"))
    if changed == name and name not in ("", ".") and len(name) <= _NAME_LENGTH:
        return name
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{changed[: _NAME_LENGTH - 7]}-{digits}"


def value_text(value: Any, limit: int = PARAM_LENGTH) -> str:
    """A value as text, cut where MLflow would cut or refuse it, saying so.

    Example:
        >>> value_text([3, 3, 5]), value_text(None), value_text(True)
        ('[3, 3, 5]', 'null', 'true')
        >>> value_text("a" * 50, limit=40)
        'aaaaaaaaa… (cut, 50 characters in all)'
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= limit:
        return text
    note = f"… (cut, {len(text)} characters in all)"
    return text[: max(0, limit - len(note) - 2)] + note


def note_text(text: str, limit: int = TAG_LENGTH) -> str:
    r"""A text of many lines as MLflow takes it for a description: whole lines, and how many more there are.

    Example:
        >>> print(note_text("| a |\n|---|\n" + "| 1 |\n" * 40, limit=60))
        | a |
        |---|
        | 1 |
        | 1 |
        <BLANKLINE>
        38 more lines are in the artifacts.
    """
    if len(text) <= limit:
        return text
    lines = text.rstrip("\n").splitlines(keepends=True)
    room = limit - len(f"\n{len(lines)} more lines are in the artifacts.")
    fitting = 0
    while fitting < len(lines) and len(lines[fitting]) <= room:
        room -= len(lines[fitting])
        fitting += 1
    return f"{''.join(lines[:fitting])}\n{len(lines) - fitting} more lines are in the artifacts."


def chunks(items: Iterable[tuple[str, Any]], count: int) -> Iterator[list[tuple[str, Any]]]:
    """Items by the request: at most `count` of them, and not too many bytes."""
    chunk: list[tuple[str, Any]] = []
    size = 0
    for item in items:
        weight = len(json.dumps(item)) + 60
        if chunk and (len(chunk) == count or size + weight > REQUEST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += weight
    if chunk:
        yield chunk

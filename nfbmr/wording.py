"""How numbers and names are put for people: counts, sizes, file names."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters, and those that turn the direction of writing: a name must not disguise what follows.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def count(number: int, one: str, several: str | None = None) -> str:
    """A number and what it counts.

    Args:
        number: How many.
        one: The word for one of them.
        several: The word for any other number, where it is not the first and an s.

    Example:
        >>> count(1, "image"), count(0, "image"), count(12_345, "category", "categories")
        ('1 image', '0 images', '12345 categories')
    """
    return f"{number} {plural(number, one, several)}"


def plural(number: int, one: str, several: str | None = None) -> str:
    """The form of a word, or of a verb, that goes with a number.

    Example:
        >>> plural(1, "has", "have"), plural(2, "has", "have"), plural(3, "shard")
        ('has', 'have', 'shards')
    """
    return one if number == 1 else several or f"{one}s"


def size_of(bytes_: float) -> str:
    """A number of bytes, as file managers show it.

    Example:
        >>> size_of(999), size_of(31_460_000)
        ('999 B', '31.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first the heads, in columns that stand below each other.

    Example:
        >>> print(columns([["name", "size"], ["nf-bmr", "14 M"], ["nf", "8 M"]]))
        name    size
        nf-bmr  14 M
        nf      8 M
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_text(name: object) -> str:
    r"""A file name as text that can be written anywhere: bytes of it that are none become escapes.

    Example:
        >>> as_text("caf\udce9.png")
        'caf\\xe9.png'
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(name: object) -> str:
    r"""A file name on one line: what cannot be seen, line breaks among it, becomes escapes too.

    Example:
        >>> visible("two\nlines.png")
        'two\\nlines.png'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), as_text(name))

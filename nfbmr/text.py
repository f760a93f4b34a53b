"""How numbers and names are put for people: counts, sizes, file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Control characters, and those that turn the direction of writing: a name must not disguise what follows.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def count(number: int, singular: str, several: str | None = None) -> str:
    """A number and what it counts.

    Args:
        number: How many.
        singular: The word for one of them.
        several: The word for any other number, where it is not the first and an s.

    Example:
        >>> count(1, "image"), count(0, "image"), count(12_345, "category", "categories")
        ('1 image', '0 images', '12345 categories')
    """
    return f"{number} {plural(number, singular, several)}"


def plural(number: int, singular: str, several: str | None = None) -> str:
    """The form of a word, or of a verb, that goes with a number.

    Example:
        >>> plural(1, "has", "have"), plural(2, "has", "have"), plural(3, "shard")
        ('has', 'have', 'shards')
    """
    return singular if number == 1 else several or f"{singular}s"


def chosen_with(kinds: Mapping[str, int]) -> str:
    """That known defects had a say in what was chosen, in a sentence; empty where there were none.

    Args:
        kinds: How many of each kind.

    Example:
        >>> chosen_with({"crack": 6, "dent": 2})
        '8 known defects were used for choosing (6 crack, 2 dent); they are not in the test set.'
    """
    if not kinds:
        return ""
    listed = ", ".join(f"{number} {visible(kind)}" for kind, number in kinds.items())
    known = count(sum(kinds.values()), "known defect")
    return f"{known} were used for choosing ({listed}); they are not in the test set."


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


def parse_size(text: str) -> int:
    """A number of bytes as people write it.

    Raises:
        ValueError: It is none.

    Example:
        >>> parse_size("2GB"), parse_size("500 MB"), parse_size("1000")
        (2000000000, 500000000, 1000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no size; write it like 500MB or 2GB")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


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


def percentage(share: float) -> str:
    """A share for people: two digits where it is small, whole numbers above.

    Example:
        >>> percentage(0.05), percentage(0.0049), percentage(0.1517), percentage(1.0), percentage(1e-9)
        ('5%', '0.49%', '15%', '100%', '0%')
    """
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 or value < 0.005 else f"{value:.2g}%"


def as_text(name: object) -> str:
    r"""A file name as text that can be written anywhere: bytes of it that are none become escapes.

    Example:
        >>> as_text("caf\udce9.png"), as_text("half a \ud83d")
        ('caf\\xe9.png', 'half a \\ud83d')
    """
    try:
        return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no bytes of a name, but half a character, as JSON may hold it
        return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def visible(name: object) -> str:
    r"""A file name on one line: what cannot be seen, line breaks among it, becomes escapes too.

    Example:
        >>> visible("two\nlines.png")
        'two\\nlines.png'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), as_text(name))

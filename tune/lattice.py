"""What an ablation varies: rows of settings, from a named table or a YAML file.

::

    title: What each part of NF-BMR adds
    metric: image_auroc            # the default
    reference: n=2                 # every row is compared with it; the first row by default
    settings: {train.flow.epochs: 30}   # of all rows; the command line has the last word on these
    rows:                          # name -> what this row sets
      n=1: {mapping.residual_blocks: 1}
      n=2: {mapping.residual_blocks: 2}
      NF alone: {method: nf}
    grid: {flow.blocks: [2, 4]}    # the product of its lists; with rows, each row with each of them
    published:                     # numbers to compare with, in the metric's unit or in percent
      source: Zhang et al. 2024, Table 5
      protocol: MVTec AD, 15 categories
      values: {n=1: 97.4, n=2: {value: 98.7, source: "Table 1"}}

Reading collects every mistake and raises once, with line numbers and the nearest right names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from nfbmr import yaml_text
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean, keys
from nfbmr.nesting import flatten
from nfbmr.wording import count, visible
from tune.children import short_names

METRICS: dict[str, str] = {
    "image_auroc": "image AUROC",
    "image_ap": "average precision",
    "image_f1": "F1 at the threshold",
    "image_precision": "precision at the threshold",
    "image_recall": "recall at the threshold",
}
"""What rows can be compared by: all are shares, and higher is better."""

RESERVED = ("seed", "output", "store", "data.path", "data.layout", "data.category", "data.seed", "tracking.")
"""Keys that no row may set: they say where and on what all rows are run."""

_KEYS = ("title", "metric", "reference", "settings", "rows", "grid", "published")
_PUBLISHED = ("source", "protocol", "values")
_UNUSABLE = re.compile(r"[/\\\x00-\x1f\x7f]|^[. ]|[ ]$")
_LONGEST = 80
_FILE_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Published:
    """A number that somebody else reported.

    Attributes:
        value: Between 0 and 1.
        source: Where it stands.
        protocol: What it was measured on, and how.
    """

    value: float
    source: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        name: Also the name of its folder.
        settings: Dotted keys to values.
        published: What somebody else measured for it.
    """

    name: str
    settings: Mapping[str, Any]
    published: Published | None = None


@dataclass(frozen=True)
class Lattice:
    """The rows of an ablation, and what they are compared by.

    Attributes:
        name: Of the table: ``paper-table5``, or the file's.
        title: For the head of the table.
        metric: A key of :data:`METRICS`.
        reference: Name of the row that the others are compared with.
        rows: In the order of the table.
        settings: Of all rows, below what the command line sets.
        places: Where each key of `settings` and of the rows was read, for error messages.
    """

    name: str
    title: str
    metric: str
    reference: str
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :func:`read_lattice` takes."""
        found = {row.name: dict(vars(row.published)) for row in self.rows if row.published is not None}
        shared = {
            key: next(iter(words))
            for key in ("source", "protocol")
            if len(words := {one[key] for one in found.values()}) == 1
        }
        values = {name: {k: v for k, v in one.items() if k not in shared} for name, one in found.items()}
        return {
            "title": self.title,
            "metric": self.metric,
            "reference": self.reference,
            "settings": dict(self.settings),
            "rows": {row.name: dict(row.settings) for row in self.rows},
            **({"published": {**shared, "values": values}} if values else {}),
        }


def named_tables() -> tuple[str, ...]:
    """Names of the tables that come with the package.

    Example:
        >>> named_tables()
        ('paper-table5',)
    """
    folder = resources.files("tune") / "named"
    return tuple(sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml")))


def load_lattice(table: str) -> Lattice:
    """A named table, or one in a YAML file.

    Raises:
        ConfigError: There is no such table or file, or it holds mistakes: all of them in one message.

    Example:
        >>> [row.name for row in load_lattice("paper-table5").rows]
        ['n=1', 'n=2', 'n=3', 'NF + B-PFM', 'NF alone']
    """
    if table in named_tables():
        text = (resources.files("tune") / "named" / f"{table}.yaml").read_text(encoding="utf-8")
        return parse_lattice(text, table, table)
    path = Path(table)
    if not path.is_file() and path.suffix.lower() not in _FILE_SUFFIXES:
        hint = did_you_mean(table, named_tables()).removeprefix("; ")
        names = ", ".join(named_tables())
        raise ConfigError(
            "neither a table nor a file", where=table, fix=hint or f"tables are {names}; or give a YAML file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"the table cannot be read ({reason})", where=path, fix="check the path") from error
    return parse_lattice(text, path.stem, str(path))


def parse_lattice(text: str, name: str, file: str) -> Lattice:
    """A table from YAML text.

    Args:
        text: As at the head of this module.
        name: Of the table.
        file: What error messages call it.

    Raises:
        ConfigError: What is wrong with it, all at once.

    Example:
        >>> lattice = parse_lattice("grid: {flow.blocks: [2, 4], seed_: [1]}", "blocks", "blocks.yaml")
        Traceback (most recent call last):
        nfbmr.errors.ConfigError: 1 mistake in the table...
        >>> lattice = parse_lattice("grid: {flow.blocks: [2, 4], flow.hidden: [8]}", "a", "a.yaml")
        >>> [row.name for row in lattice.rows], lattice.reference
        (['blocks=2 hidden=8', 'blocks=4 hidden=8'], 'blocks=2 hidden=8')
    """
    try:
        document = yaml_text.parse(text)
    except yaml_text.YamlError as error:
        raise ConfigError(f"not a YAML file ({error})", where=file, fix="see docs/ablations.md") from error
    return read_lattice(document.value, name, file, document.lines)


def read_lattice(value: Any, name: str, file: str, lines: Mapping[str, int] | None = None) -> Lattice:
    """A table from plain values; arguments as for :func:`parse_lattice`."""
    reader = _Reader(file, lines or {})
    lattice = reader.read(value, name)
    if reader.problems or lattice is None:
        listed = "".join(f"\n  - {problem}" for problem in reader.problems)
        raise ConfigError(
            f"{count(len(reader.problems), 'mistake')} in the table {visible(file)}:{listed}",
            fix="mend the table; docs/ablations.md says what it may hold",
        )
    return lattice


class _Reader:
    """Reads a table and gathers what is wrong with it."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self.file = file
        self.lines = lines
        self.problems: list[str] = []
        self.places: dict[str, str] = {}

    def read(self, value: Any, name: str) -> Lattice | None:
        if not isinstance(value, Mapping):
            self.problems.append("holds no keys; rows or a grid are needed")
            return None
        for key in value:
            if key not in _KEYS:
                self._say(str(key), f"no such key{did_you_mean(str(key), _KEYS)}")
        settings = self._settings(value.get("settings"), "settings")
        published = self._published(value.get("published"))
        named = [Row(*row) for row in self._rows(value.get("rows"))]
        cells = list(self._grid(value.get("grid")))
        rows = [
            Row(" ".join(filter(None, [row.name, name_])), {**row.settings, **cell})
            for row, (name_, cell) in itertools.product(named or [Row("", {})], cells or [("", {})])
        ]
        rows = [Row(row.name, row.settings, published.pop(row.name, None)) for row in rows if row.name]
        names = [row.name for row in rows]
        if not self.problems:
            self._check(rows, settings)
        for left in published:
            self._say(f"published.values.{left}", f"no such row{did_you_mean(left, names)}")
        return Lattice(
            name=name,
            title=str(value.get("title") or name),
            metric=self._one_of(value, "metric", tuple(METRICS), "image_auroc"),
            reference=self._one_of(value, "reference", tuple(names), names[0] if names else ""),
            rows=tuple(rows),
            settings=settings,
            places=self.places,
        )

    def _rows(self, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if value is None:
            return
        if not isinstance(value, Mapping) or not value:
            self._say("rows", "should be names, each with its settings")
            return
        for name, settings in value.items():
            text = str(name)
            if _UNUSABLE.search(text) or not text or len(text) > _LONGEST:
                self._say(f"rows.{text}", "the name of a row is the name of a folder too: no slashes, no dot "
                          f"first, at most {_LONGEST} characters")  # fmt: skip
            yield text, self._settings(settings, f"rows.{text}")

    def _grid(self, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if value is None:
            return
        if not isinstance(value, Mapping) or not value:
            self._say("grid", "should be keys, each with a list of values")
            return
        flat = {str(key): values for key, values in flatten(value).items()}
        for key, values in flat.items():
            if not isinstance(values, list) or not values:
                self._say(f"grid.{key}", "should be a list of values, such as [2, 4]")
        self._settings(dict.fromkeys(flat), "grid")
        if any(not isinstance(values, list) for values in flat.values()):
            return
        short = short_names(flat)
        for values in itertools.product(*flat.values()):
            cell = dict(zip(flat, values, strict=True))
            yield " ".join(f"{short[key]}={_word(one)}" for key, one in cell.items()), cell

    def _settings(self, value: Any, where: str) -> dict[str, Any]:
        """Dotted keys to values; keys that are none, and those that no row may set, are mistakes."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._say(where, "should be keys of the configuration with their values")
            return {}
        flat = {str(key): one for key, one in flatten(value).items()}
        for key in flat:
            place = f"{where}.{key}"
            if key not in keys():
                self._say(place, f"no such key of the configuration{did_you_mean(key, keys())}")
            elif key == "seed" or key.startswith(RESERVED[1:]):
                self._say(place, "is the same for all rows: set it on the command line")
            self.places[place] = self._place(place)
        return flat

    def _published(self, value: Any) -> dict[str, Published]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not isinstance(value.get("values"), Mapping):
            self._say("published", "should hold values: names of rows with numbers")
            return {}
        for key in value:
            if key not in _PUBLISHED:
                self._say(f"published.{key}", f"no such key{did_you_mean(str(key), _PUBLISHED)}")
        shared = {key: str(value[key]) for key in ("source", "protocol") if value.get(key) is not None}
        found = {}
        for row, given in value["values"].items():
            own = dict(given) if isinstance(given, Mapping) else {"value": given}
            number = own.pop("value", None)
            place = f"published.values.{row}"
            if unknown := own.keys() - {"source", "protocol"}:
                self._say(place, f"no such key: {', '.join(map(str, unknown))}")
            elif isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100:
                self._say(place, "should be a share, or a number of percent")
            else:
                share = round(number / 100, 9) if number > 1 else float(number)
                found[str(row)] = Published(share, **{**shared, **{k: str(v) for k, v in own.items()}})
        return found

    def _check(self, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
        if not rows:
            self.problems.append("no rows: give rows, or a grid")
        seen: dict[str, str] = {}
        for row in rows:
            whole = yaml_text.inline(sorted({**settings, **row.settings}.items(), key=str))
            if row.name in seen.values():
                self.problems.append(f"two rows are called {row.name}")
            elif whole in seen:
                self.problems.append(f"rows {seen[whole]} and {row.name} set the same: one is enough")
            seen.setdefault(whole, row.name)
            if len(row.name) > _LONGEST or "/" in row.name:
                self.problems.append(f"the row {row.name[:_LONGEST]} needs a shorter name, without slashes")

    def _one_of(self, value: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> str:
        given = value.get(key)
        if given is None:
            return default
        if str(given) not in known:
            shown = ", ".join(known)
            self._say(key, f"{given} should be one of {shown}{did_you_mean(str(given), known)}")
        return str(given)

    def _say(self, key: str, problem: str) -> None:
        self.problems.append(f"{visible(key)} ({self._place(key)}): {problem}")

    def _place(self, key: str) -> str:
        """The file and the line of a key, or of the nearest key above it that has one."""
        parts = key.split(".")
        for n in range(len(parts), 0, -1):
            line = self.lines.get(".".join(parts[:n]))
            if line is not None:
                return f"{self.file}:{line}"
        return self.file


def _word(value: Any) -> str:
    """A value inside the name of a row."""
    if isinstance(value, list):
        return "+".join(map(_word, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""Reads the plain values of a table, and gathers everything that is wrong with them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nfbmr import yaml_text
from nfbmr.fields import did_you_mean, keys
from nfbmr.methods.registry import know_methods, named_configurations
from nfbmr.nesting import flatten
from nfbmr.text import visible
from tune.ablation.literature import Reading
from tune.ablation.reference_datasets import BENCHMARKS
from tune.records.children import short_names
from tune.tables.rows import METRICS, PICTURES, AblationSpec, Row

RESERVED = ("seed", "output", "store", "data.path", "data.layout", "data.category", "data.seed", "tracking.")
"""Keys that no row may set: they say where and on what all rows are run."""
AS_PUBLISHED = "as_published"
"""Of a row: the named configuration that its source used, taken with ``--as-published``."""

_KEYS = (
    "title", "metric", "metrics", "reference", "settings", "rows", "grid", "published", "quoted", "dataset",
    "categories", "over", "pictures", "notes",
)  # fmt: skip
_UNUSABLE = re.compile(r"[/\\\x00-\x1f\x7f]|^[. ]|[ ]$")
_LONGEST = 80


class Reader:
    """Reads a table and gathers what is wrong with it.

    Args:
        file: What error messages call it.
        lines: Line numbers of dotted keys, where they are known.
    """

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self.file = file
        self.lines = lines
        self.problems: list[str] = []
        self.places: dict[str, str] = {}

    def read(self, value: Any, name: str) -> AblationSpec | None:
        """The table; None where it holds nothing at all. What is wrong is in ``problems``."""
        if not isinstance(value, Mapping):
            self.problems.append("holds no keys; rows or a grid are needed")
            return None
        know_methods(value)
        for key in value:
            if key not in _KEYS:
                self._say(str(key), f"no such key{did_you_mean(str(key), _KEYS)}")
        metrics = self._metrics(value)
        settings = self._settings(value.get("settings"), "settings")
        published = Reading(metrics[0], self._say).published(value.get("published"))
        named = list(self._rows(value.get("rows")))
        cells = list(self._grid(value.get("grid")))
        rows = [
            Row(
                " ".join(filter(None, [row.name, name_])),
                {**row.settings, **cell},
                as_published=row.as_published,
            )
            for row, (name_, cell) in itertools.product(named or [Row("")], cells or [("", {})])
        ]
        rows = [replace(row, published=published.pop(row.name, {})) for row in rows if row.name]
        names = [row.name for row in rows]
        literature_rows = [
            Row(quoted, {}, published.pop(quoted, {})) for quoted in self._words(value, "quoted")
        ]
        if not self.problems:
            self._check(rows, settings)
        for row in literature_rows:
            if row.name in names or not row.published:
                self._say("quoted", f"{row.name} should have published numbers, and be no row as well")
        for left in published:
            self._say(f"published.values.{left}", f"no such row{did_you_mean(left, names)}")
        return AblationSpec(
            name=name,
            title=str(value.get("title") or name),
            metric=metrics[0],
            reference=self._one_of(value, "reference", tuple(names), names[0] if names else ""),
            rows=tuple(rows),
            settings=settings,
            places=self.places,
            secondary_metrics=metrics[1:],
            literature_rows=tuple(literature_rows),
            dataset=self._one_of(value, "dataset", tuple(BENCHMARKS), "") or None,
            categories=self._words(value, "categories"),
            sweep_key=self._one_of(value, "over", tuple(keys()), "") or _longest(value.get("grid")),
            pictures=self._words(value, "pictures", PICTURES),
            notes=self._words(value, "notes"),
        )

    def _metrics(self, value: Mapping[str, Any]) -> tuple[str, ...]:
        """``metric``, or the list ``metrics``."""
        if "metrics" not in value:
            return (self._one_of(value, "metric", tuple(METRICS), "image_auroc"),)
        if "metric" in value:
            self._say("metric", "give metric or metrics, not both")
        metrics = self._words(value, "metrics", tuple(METRICS))
        if not metrics or len(set(metrics)) < len(metrics):
            self._say("metrics", "should be a list such as [image_auroc, pixel_aupro], each once")
        return metrics or ("image_auroc",)

    def _words(self, value: Mapping[str, Any], key: str, known: Sequence[str] = ()) -> tuple[str, ...]:
        given = value.get(key)
        if given is None:
            return ()
        if not isinstance(given, list):
            self._say(key, "should be a list of names")
            return ()
        for word in map(str, given):
            if known and word not in known:
                self._say(key, f"{word} should be one of {', '.join(known)}{did_you_mean(word, known)}")
        return tuple(map(str, given))

    def _rows(self, value: Any) -> Iterator[Row]:
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
            row_settings, configuration = settings, None
            if isinstance(settings, Mapping) and AS_PUBLISHED in settings:
                row_settings = {key: setting for key, setting in settings.items() if key != AS_PUBLISHED}
                configuration = self._one_of(settings, AS_PUBLISHED, tuple(named_configurations()), "")
            yield Row(text, self._settings(row_settings, f"rows.{text}"), as_published=configuration)

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
            yield " ".join(f"{short[key]}={_word(item)}" for key, item in cell.items()), cell

    def _settings(self, value: Any, where: str) -> dict[str, Any]:
        """Dotted keys to values; keys that are none, and those that no row may set, are mistakes."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._say(where, "should be keys of the configuration with their values")
            return {}
        flat = {str(key): item for key, item in flatten(value).items()}
        for key in flat:
            place = f"{where}.{key}"
            if key not in keys():
                self._say(place, f"no such key of the configuration{did_you_mean(key, keys())}")
            elif key == "seed" or key.startswith(RESERVED[1:]):
                self._say(place, "is the same for all rows: set it on the command line")
            self.places[place] = self._place(place)
        return flat

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


def _longest(grid: Any) -> str | None:
    """The key of a grid with most values, three at least: rows are a line over it where nobody says more."""
    if not isinstance(grid, Mapping):
        return None
    flat = flatten(grid)
    lengths = {key: len(values) for key, values in flat.items() if isinstance(values, list)}
    key = max(lengths, key=lambda key: lengths[key], default=None)
    return key if key is not None and lengths[key] > 2 else None

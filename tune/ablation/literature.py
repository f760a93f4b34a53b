"""Reads published numbers: of the main metric or of several, over all categories or in some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nfbmr.fields import did_you_mean
from tune.tables.rows import METRICS, WHOLE, Published, Reports

_KEYS = ("source", "protocol", "values")
_ABOUT = ("source", "protocol")


class Reading:
    """Reads the section ``published`` of a table.

    Args:
        metric: The table's main one, which a plain number is of.
        say: Hears of what is wrong: a dotted key, and the problem.
    """

    def __init__(self, metric: str, say: Callable[[str, str], None]) -> None:
        self._metric, self._say = metric, say

    def published(self, value: Any) -> dict[str, Reports]:
        """The numbers of each row."""
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not isinstance(value.get("values"), Mapping):
            self._say("published", "should hold values: names of rows with numbers")
            return {}
        for key in value:
            if key not in _KEYS:
                self._say(f"published.{key}", f"no such key{did_you_mean(str(key), _KEYS)}")
        shared = _about(value)
        reports = {}
        for row, given in value["values"].items():
            plain = not isinstance(given, Mapping) or "value" in given  # a number, or one with its source
            by_metric = {self._metric: {WHOLE: given}} if plain else given
            reports[str(row)] = self._by_metric(by_metric, shared, f"published.values.{row}")
        return reports

    def _by_metric(self, given: Mapping[Any, Any], shared: Mapping[str, str], place: str) -> Reports:
        about = {**shared, **_about(given)}
        reports: dict[str, dict[str | None, Published]] = {}
        for metric, numbers in given.items():
            if metric in _ABOUT:
                continue
            if metric not in METRICS:
                self._say(place, f"no such metric: {metric}{did_you_mean(str(metric), METRICS)}")
                continue
            several = isinstance(numbers, Mapping) and "value" not in numbers
            by_category = numbers if several else {WHOLE: numbers}
            sources = {**about, **_about(by_category)}
            reported = reports.setdefault(str(metric), {})
            for category, number in by_category.items():
                published = None if category in _ABOUT else self._number(number, sources, place)
                if published is not None:
                    reported[None if category == WHOLE else str(category)] = published
        return reports

    def _number(self, given: Any, about: Mapping[str, str], place: str) -> Published | None:
        fields = dict(given) if isinstance(given, Mapping) else {"value": given}
        number = fields.pop("value", None)
        if unknown := fields.keys() - set(_ABOUT):
            self._say(place, f"no such key: {', '.join(map(str, unknown))}")
        elif isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100:
            self._say(place, "should be a share, or a number of percent")
        else:
            share = round(number / 100, 9) if number > 1 else float(number)
            return Published(share, **{**about, **_about(fields)})
        return None


def _about(values: Mapping[Any, Any]) -> dict[str, str]:
    return {key: str(values[key]) for key in _ABOUT if values.get(key) is not None}

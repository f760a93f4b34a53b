"""What an ablation varies, read and checked: rows of settings, and numbers that others reported for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nfbmr.nesting import flatten

IMAGE_METRICS: dict[str, str] = {
    "image_auroc": "image AUROC",
    "image_ap": "average precision",
    "image_f1": "F1 at the threshold",
    "image_precision": "precision at the threshold",
    "image_recall": "recall at the threshold",
}
"""Metrics of images that tables have: flat name to title."""
PIXEL_METRICS: dict[str, str] = {"pixel_auroc": "pixel AUROC", "pixel_aupro": "AUPRO"}
"""Metrics of maps that tables have: flat name to title."""
METRICS: dict[str, str] = {**IMAGE_METRICS, **PIXEL_METRICS}
"""What rows can be compared by: all are shares, and higher is better. Those of pixels need masks."""


@dataclass(frozen=True)
class Published:
    """A number that somebody else reported.

    Attributes:
        value: Between 0 and 1.
        source: Publication that it stands in.
        protocol: What it was measured on, and how.
    """

    value: float
    source: str = ""
    protocol: str = ""


PICTURES = ("categories", "spaces")
"""Pictures that a table may ask for besides its own: bars of each category, and t-SNE of feature spaces."""

Reports = Mapping[str, Mapping[str | None, Published]]
"""By metric, then by category or group of categories; None is the mean over all."""


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        name: Also the name of its folder.
        settings: Dotted keys to values.
        published: What somebody else measured for it.
        as_published: The named configuration that they used, where there is one.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Reports = field(default_factory=dict)
    as_published: str | None = None

    def reported(self, metric: str, category: str | None = None) -> Published | None:
        """What somebody else measured, over all categories or in one of them."""
        return self.published.get(metric, {}).get(category)

    def configured_as_published(self) -> Row:
        """The row with its source's own configuration below what it sets."""
        from nfbmr.methods.registry import named_configurations

        below = {} if self.as_published is None else flatten(named_configurations()[self.as_published])
        return replace(self, settings={**below, **self.settings}, as_published=None)


@dataclass(frozen=True)
class Curve:
    """Rows along the values of a key.

    Attributes:
        label: What they have in common.
        points: Value and name of the row, in order.
    """

    label: str
    points: tuple[tuple[Any, str], ...]

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in self.points)


def _order(point: tuple[Any, str]) -> tuple[bool, float, str]:
    """Numbers by size, anything else as it is written."""
    value = point[0]
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return (not numeric, float(value) if numeric else 0.0, str(value))


@dataclass(frozen=True)
class AblationSpec:
    """The rows of an ablation, and what they are compared by.

    Attributes:
        name: Name of the table: ``paper-table5``, or the file's.
        title: For the head of the table.
        metric: The main one, a key of :data:`METRICS`: differences are of it.
        reference: Name of the row that the others are compared with.
        rows: In the order of the table.
        settings: Settings of all rows, below what the command line sets.
        places: Where each key of `settings` and of the rows was read, for error messages.
        secondary_metrics: Further metrics of the main table.
        literature_rows: Rows that are not run: what others reported stands in the table alone.
        dataset: A key of :data:`tune.ablation.reference_datasets.BENCHMARKS`: what the published numbers were
            measured on.
        categories: Those to run where nobody asks for others, as far as they are given; all by default.
        sweep_key: The key that some rows differ in alone: they are drawn as a line over its values.
        pictures: Names of pictures besides those that every table has; see :mod:`tune.tables.figures`.
        notes: What a reader of just this table has to know.
    """

    name: str
    title: str
    metric: str
    reference: str
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    secondary_metrics: tuple[str, ...] = ()
    literature_rows: tuple[Row, ...] = ()
    dataset: str | None = None
    categories: tuple[str, ...] = ()
    sweep_key: str | None = None
    pictures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The main one, then the others of the main table."""
        return (self.metric, *self.secondary_metrics)

    def curves(self) -> tuple[Curve, ...]:
        """Rows that differ in the key :attr:`sweep_key` alone, as curves over its values.

        Example:
            >>> rows = [Row(f"n={n}", {"flow.blocks": n}) for n in (4, 2)] + [Row("nf", {"method": "nf"})]
            >>> spec = AblationSpec("a", "", "image_auroc", "n=2", tuple(rows), sweep_key="flow.blocks")
            >>> [curve.points for curve in spec.curves()]
            [((2, 'n=2'), (4, 'n=4'))]
        """
        if self.sweep_key is None:
            return ()
        families: dict[str, list[tuple[Any, str]]] = {}
        for row in self.rows:
            if self.sweep_key in row.settings:
                others = {key: value for key, value in row.settings.items() if key != self.sweep_key}
                label = ", ".join(f"{key}={value}" for key, value in sorted(others.items()))
                families.setdefault(label, []).append((row.settings[self.sweep_key], row.name))
        curves = [
            Curve(label, tuple(sorted(points, key=_order)))
            for label, points in families.items()
            if len(points) > 1
        ]
        return tuple(curves)

    def as_json(self) -> dict[str, Any]:
        """Plain values, which :func:`tune.ablation.spec.read_spec` takes."""
        everyone = [row for row in (*self.rows, *self.literature_rows) if row.published]
        numbers = [
            number for row in everyone for reports in row.published.values() for number in reports.values()
        ]
        shared = {
            about: next(iter(words))
            for about in ("source", "protocol")
            if len(words := {getattr(number, about) for number in numbers}) == 1
        }
        reported: dict[str, Any] = {row.name: {} for row in everyone}
        for row in everyone:  # each number with what is its own of source and protocol
            for metric, reports in row.published.items():
                reported[row.name][metric] = {
                    WHOLE if category is None else category: {
                        k: v for k, v in vars(number).items() if k not in shared
                    }
                    for category, number in reports.items()
                }
        rows = {row.name: dict(row.settings) for row in self.rows}
        for row in self.rows:
            if row.as_published:
                rows[row.name]["as_published"] = row.as_published
        values = {
            "title": self.title,
            "metrics": list(self.metrics),
            "reference": self.reference,
            "settings": dict(self.settings),
            "rows": rows,
            "quoted": [row.name for row in self.literature_rows],
            "dataset": self.dataset,
            "categories": list(self.categories),
            "over": self.sweep_key,
            "pictures": list(self.pictures),
            "notes": list(self.notes),
            "published": {**shared, "values": reported} if reported else None,
        }
        return {key: value for key, value in values.items() if value not in (None, [], {})}


WHOLE = "all"
"""What the mean over all categories is called in files."""

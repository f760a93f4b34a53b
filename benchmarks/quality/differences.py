"""How far settings lie from the default on the same test images, with intervals.

For a set with test images of scores ``a`` by one setting and ``b`` by the default, the difference is
``AUROC(a) - AUROC(b)``, drawn anew together (:mod:`tune.tables.statistics`): what both find hard cancels.
Where images show one part, whole parts are drawn. Images that one of the two has not scored (known defects
leave the test set) are left out of both. The mean is over the sets that both have, and over no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.rows import Row
from nfbmr.evaluation.intervals import Estimate
from tune.tables.cell_scores import CellScores
from tune.tables.statistics import Comparison

BASE = "default"
"""The setting that others are compared with."""
Place = tuple[str, int]
"""Set and seed of a cell."""
_ROLES = ("setting", "base")


@dataclass(frozen=True)
class Compared:
    """A setting less the default: differences of the image AUROC.

    Attributes:
        mean: Over the sets that both have, of the seeds that all these have; undefined where there is none.
        sets: By set.
    """

    mean: Estimate
    sets: Mapping[str, Estimate]


def differences(rows: Iterable[Row], scores: Path, resamples: int = 2000) -> dict[str, Compared]:
    """Each setting less :data:`BASE`, in the order of their means.

    Args:
        rows: Finished ones of all training images.
        scores: The study's folder of scores, a file a cell.
        resamples: Of the images.
    """
    by_setting: dict[str, dict[Place, Row]] = defaultdict(dict)
    for row in rows:
        if (scores / f"{row['key']}.parquet").exists():
            by_setting[row["setting"]][row["set"], int(row["seed"])] = row
    base = by_setting.pop(BASE, {})
    compared = {}
    for setting, own in by_setting.items():
        pairs = {place: (row, base[place]) for place, row in own.items() if place in base}
        if pairs:
            compared[setting] = _compared(pairs, scores, resamples)
    return dict(sorted(compared.items(), key=_order))


def _order(item: tuple[str, Compared]) -> tuple[bool, float]:
    """The best first, and last where no seed is common to all sets."""
    mean = item[1].mean
    return not mean.defined, -mean.value


def _compared(pairs: Mapping[Place, tuple[Row, Row]], scores: Path, resamples: int) -> Compared:
    cells = []
    for (name, seed), rows in pairs.items():
        first, second = (
            CellScores.read(
                scores / f"{row['key']}.parquet", role, name, seed, grouped=row["split"] == "group"
            )
            for role, row in zip(_ROLES, rows, strict=True)
        )
        cells += [first.only(set(second.names)), second.only(set(first.names))]
    comparison = Comparison(cells, "image_auroc", resamples=resamples)
    names = dict.fromkeys(name for name, _ in pairs)
    sets = {name: comparison.difference(*_ROLES, [name]).estimate for name in names}
    return Compared(comparison.difference(*_ROLES).estimate, sets)

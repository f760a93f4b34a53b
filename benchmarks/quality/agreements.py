r"""How far detectors agree about the same images: which of them to trust, without a real defect.

Synthetic defects say how well a detector finds *them*. On parts whose real defects look unlike them, several
detectors are often right about the same images and wrong each about others, so that the mean of their ranks
is better than most of them, and who is near it is good (rank aggregation: Goswami et al., Unsupervised Model
Selection for Time-series Anomaly Detection, ICLR 2023; model centrality: Lin et al., ICML 2020).

For detectors s with ranks :math:`r_s(i)` of validation images i, good ones and those with synthetic defects,
and objectives :math:`v_s`,

.. math::
    a_s = \rho\Bigl(r_s, \sum_{t \ne s} \max(0, v_t - 1/2)\, r_t\Bigr)

with Spearman's :math:`\rho`: a detector is compared with the others, those that find synthetic defects
counting for more, and one that guesses for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality.rows import Row
from nfbmr.evaluation.intervals import Floats

AGREEMENT = "agreement"
"""The column: known before the test set is read, but only beside other settings."""
K = TypeVar("K", bound=Hashable)
FEWEST = 3
"""Detectors, and images, below which nothing is said."""


def agreement(scores: Mapping[K, Mapping[str, float]], objectives: Mapping[K, float]) -> dict[K, float]:
    """How far each detector agrees with the others, from -1 to 1.

    Args:
        scores: Of validation images by their names, higher being more anomalous; images that not all have
            are left out.
        objectives: An AUROC of each detector against synthetic defects.

    Returns:
        A value a detector; none where there are fewer than :data:`FEWEST` detectors or images, and none for
        a detector whose scores, or the others' mean, are all alike.

    Example:
        >>> images = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}
        >>> odd = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0}
        >>> agreement({1: images, 2: images, 3: odd}, {1: 0.9, 2: 0.9, 3: 0.5})
        {1: 1.0, 2: 1.0, 3: -1.0}
    """
    shared = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if len(scores) < FEWEST or len(shared) < FEWEST:
        return {}
    ranks = {key: _ranks([own[name] for name in shared]) for key, own in scores.items()}
    weights = {key: max(0.0, objectives[key] - 0.5) for key in scores}
    everybody = sum((weights[key] * ranks[key] for key in scores), np.zeros(len(shared)))
    values = {key: _correlation(own, _ranks(everybody - weights[key] * own)) for key, own in ranks.items()}
    return {key: value for key, value in values.items() if value is not None}


def _ranks(values: object) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _correlation(first: Floats, second: Floats) -> float | None:
    """Pearson's, of ranks Spearman's; None where one side does not vary."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(np.corrcoef(first, second)[0, 1]), 12)


def with_agreement(rows: Iterable[Row], scores: Path) -> list[Row]:
    """The rows with their :data:`AGREEMENT`, where it can be said.

    Args:
        rows: Finished ones.
        scores: The study's folder of scores.
    """
    together: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        together[row["set"], row["seed"]].append(row)
    return [
        {**row, AGREEMENT: values.get(row["key"])}
        for own in together.values()
        for values in (_agreement(own, scores),)
        for row in own
    ]


def _agreement(rows: Iterable[Row], scores: Path) -> dict[str, float]:
    known = {row["key"]: row["objective"] for row in rows if row.get("objective") is not None}
    files = {key: scores / f"{key}.parquet" for key in known}
    return agreement({key: _validation(file) for key, file in files.items() if file.exists()}, known)


def _validation(file: Path) -> dict[str, float]:
    """Scores of validation images, each by its name and its defect, good or synthetic."""
    images = pq.read_table(file, columns=["side", "name", "defect", "score"]).to_pylist()
    return {
        f"{image['name']} {image['defect']}": image["score"]
        for image in images
        if image["side"] == "validation"
    }

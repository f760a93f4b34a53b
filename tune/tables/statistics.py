r"""Means over seeds and categories with their intervals, and paired differences between rows.

A cell is a row's detector, trained on a category with a seed, and its scores of that category's test
images. Its metric is :math:`T_{rcs}`; a row's is the mean over categories and seeds. Two things would come
out differently another time, and an interval holds the sum of both errors:

- *other test images*: images are drawn anew (groups of images where the split keeps groups together; the
  classes apart), the same draw for every row and every seed that saw the image;
- *other seeds*: :math:`t_{S-1}\,\mathrm{sd}_s / \sqrt{S}`, with the deviation between the seeds and Student's
  t. Drawing three seeds with replacement would claim two thirds of their variance, with far too thin tails.

With one seed the second is unknown, and the interval is of the images alone. Where a bootstrap's interval of
an image AUROC is too narrow (:func:`nfbmr.evaluation.intervals.auroc_interval`), a mean's is widened by those
of its C categories, :math:`\mathrm{mean} - \sqrt{\sum_c (T_c - \mathrm{low}_c)^2} / C` and likewise above
(Zou & Donner 2008). A difference between two rows is taken draw by draw and seed by seed, so what the rows
have in common (hard images, a lucky split) cancels.
Categories are not drawn: the mean is over these and no others.

Shapes: N test images of a category, R resamples, S seeds.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nfbmr.evaluation.intervals import (
    UNDEFINED,
    Estimate,
    Floats,
    Statistic,
    auroc_interval,
    resampled_weights,
)
from nfbmr.evaluation.metrics import image_metric
from tune.tables.cell_scores import CellScores
from tune.tables.rows import PIXEL_METRICS


def metrics_of(cell: CellScores, names: Iterable[str], aupro_limit: float) -> Iterator[tuple[str, Statistic]]:
    """Metrics (keys of ``METRICS``) of a cell's images, as functions of their weights (R, N)."""
    wanted = tuple(names)
    histograms = None
    if cell.pixels is not None and any(name in PIXEL_METRICS for name in wanted):
        histograms = cell.pixels()
    for name in wanted:
        if name not in PIXEL_METRICS:
            yield name, image_metric(name, cell.score, cell.rejected, cell.defective)
        elif histograms is None:
            yield name, lambda weights_RN: np.full(len(weights_RN), np.nan)
        else:
            statistic = histograms.auroc() if name == "pixel_auroc" else histograms.aupro(aupro_limit)
            yield name, _on(histograms.images, statistic)


def _on(images: NDArray[np.int64], metric: Statistic) -> Statistic:
    """A metric of some of the images."""
    return lambda weights_RN: metric(weights_RN[:, images])


_Verdict = Literal["better", "worse", "tie", "unknown"]


@dataclass(frozen=True)
class Difference:
    """A row less the reference.

    Attributes:
        estimate: The difference and its interval.
        seeds: Seeds that both have.
        same_images: Whether both were scored on the same images, seed by seed.
    """

    estimate: Estimate
    seeds: int
    same_images: bool = True

    @property
    def verdict(self) -> _Verdict:
        """``better``, ``worse``, ``tie`` where the interval contains zero, or ``unknown``."""
        if not (self.estimate.defined and self.estimate.has_interval):
            return "unknown"
        if self.estimate.low <= 0.0 <= self.estimate.high:
            return "tie"
        return "better" if self.estimate.low > 0 else "worse"


@dataclass(frozen=True)
class Mean:
    """A row's metric.

    Attributes:
        estimate: The mean and its interval.
        values: Values of each seed.
        of_seeds: The seeds, in the order of `values`.
    """

    estimate: Estimate
    values: tuple[float, ...] = ()
    of_seeds: tuple[int, ...] = ()

    @property
    def seeds(self) -> int:
        """Seeds that it is the mean of."""
        return len(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation between seeds; NaN for fewer than two."""
        return float(np.std(self.values, ddof=1)) if self.seeds > 1 else math.nan


@dataclass(frozen=True)
class _Drawn:
    """A cell's metric on its images as they are, and on each resample of them."""

    value: float
    draws_R: Floats
    images: frozenset[str]
    parts: tuple[int, int]
    """Good and defective ones."""


Key = tuple[str, str | None, int]
"""Row, category and seed of a cell."""


class Comparison:
    """The cells of an ablation, and every number that its tables are made of.

    All cells see the same resamples of the images, so that any two of them are paired.

    Args:
        cells: Those that finished; a (row, category, seed) at most once.
        metric: A key of :data:`tune.tables.rows.METRICS`.
        resamples: Number of resamples of the images; 0 for no intervals.
        confidence: Share of the resamples inside an interval.
        seed: Seed of the resamples.
        drawn: What :func:`drawn_of` made of the cells, where that is known; `cells` are then not read.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> bad = np.arange(60) < 30
        >>> def cell(row, seed, shift):
        ...     score = rng.normal(size=60) + shift * bad
        ...     return CellScores(row, None, seed, [f"{i}" for i in range(60)], bad, score, score > 1)
        >>> cells = [cell("a", s, 2.0) for s in range(3)] + [cell("b", s, 0.0) for s in range(3)]
        >>> found = Comparison(cells, "image_auroc")
        >>> round(found.mean("a").estimate.value, 1), found.difference("b", "a").verdict
        (0.9, 'worse')
    """

    def __init__(
        self,
        cells: Iterable[CellScores],
        metric: str,
        *,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        drawn: Mapping[Key, _Drawn] | None = None,
    ) -> None:
        self.confidence = confidence
        self._metric = metric
        self._seed = seed
        self.resamples = resamples
        if drawn is None:
            drawn = drawn_of(cells, (metric,), resamples=resamples, seed=seed)[metric]
        self._drawn = drawn
        self.categories: tuple[str | None, ...] = tuple(sorted({key[1] for key in drawn}, key=str))

    @classmethod
    def of_each(
        cls,
        cells: Sequence[CellScores],
        metrics: Sequence[str],
        *,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        aupro_limit: float = 0.3,
    ) -> dict[str, Comparison]:
        """Several metrics of the same cells by name, each cell's images being read once."""
        drawn = drawn_of(cells, metrics, resamples=resamples, seed=seed, aupro_limit=aupro_limit)
        return {
            name: cls((), name, resamples=resamples, confidence=confidence, seed=seed, drawn=drawn[name])
            for name in metrics
        }

    def seeds(self, row: str, categories: Sequence[str | None]) -> tuple[int, ...]:
        """Seeds for which a row has a value in every one of the categories."""
        by_category = [
            {
                s
                for r, c, s in self._drawn
                if (r, c) == (row, category) and not math.isnan(self.value(r, c, s))
            }
            for category in categories
        ]
        return tuple(sorted(set.intersection(*by_category))) if by_category else ()

    def value(self, row: str, category: str | None, seed: int) -> float:
        """A cell's own metric; NaN where there is none."""
        cell = self._drawn.get((row, category, seed))
        return math.nan if cell is None else cell.value

    def mean(self, row: str, categories: Sequence[str | None] | None = None) -> Mean:
        """A row's metric, over the seeds that have all of the categories.

        Args:
            row: Name of the row.
            categories: Those to take the mean over; all of them by default.
        """
        chosen = self.categories if categories is None else tuple(categories)
        seeds = self.seeds(row, chosen)
        values_S, draws_SR = self._over(row, chosen, seeds)
        mean = self._estimate(values_S, draws_SR, bounds=(0.0, 1.0))
        if self._metric == "image_auroc" and mean.estimate.has_interval:
            mean = replace(mean, estimate=mean.estimate.widened(self._of_ranks(row, chosen, seeds)))
        return replace(mean, of_seeds=seeds)

    def difference(
        self, row: str, reference: str, categories: Sequence[str | None] | None = None
    ) -> Difference:
        """A row less another, over the seeds that both have; arguments as for :meth:`mean`."""
        chosen = self.categories if categories is None else tuple(categories)
        seeds = tuple(s for s in self.seeds(row, chosen) if s in self.seeds(reference, chosen))
        (row_S, row_SR), (other_S, other_SR) = (self._over(r, chosen, seeds) for r in (row, reference))
        mean = self._estimate(row_S - other_S, row_SR - other_SR, bounds=(-1.0, 1.0))
        same = all(
            self._drawn[row, c, s].images == self._drawn[reference, c, s].images
            for c in chosen
            for s in seeds
        )
        return Difference(mean.estimate, mean.seeds, same)

    def _of_ranks(self, row: str, categories: Sequence[str | None], seeds: Sequence[int]) -> Estimate:
        """A mean AUROC and its interval, from those of its categories; seeds saw the same images."""
        estimates = []
        for category in categories:
            cells = [self._drawn[row, category, seed] for seed in seeds]
            value = float(np.mean([cell.value for cell in cells]))
            estimates.append(auroc_interval(value, *cells[0].parts, self.confidence))
        mean = float(np.mean([one.value for one in estimates]))
        below, above = (
            math.sqrt(sum((one.value - end) ** 2 for one, end in ends)) / len(estimates)
            for ends in (
                [(one, one.low) for one in estimates],
                [(one, one.high) for one in estimates],
            )
        )
        return Estimate(mean, mean - below, mean + above)

    def _over(
        self, row: str, categories: Sequence[str | None], seeds: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """Means over categories, a seed each: values (S,) and draws (S, R)."""
        if not seeds:
            return np.zeros(0), np.zeros((0, self.resamples))
        cells = [[self._drawn[row, category, seed] for category in categories] for seed in seeds]
        values_S = np.asarray([np.mean([cell.value for cell in line]) for line in cells])
        draws_SR = np.stack([np.mean([cell.draws_R for cell in line], axis=0) for line in cells])
        return values_S, draws_SR

    def _estimate(self, values_S: Floats, draws_SR: Floats, bounds: tuple[float, float]) -> Mean:
        if not len(values_S):
            return Mean(UNDEFINED)
        values = tuple(map(float, values_S))
        mean = Mean(Estimate(float(values_S.mean()), math.nan, math.nan), values)
        draws_R = draws_SR.mean(axis=0)
        if mean.seeds > 1 and len(draws_R):
            from scipy import stats

            # Student's t at R evenly spaced probabilities, in random order: no luck in its tails.
            order_R = np.random.default_rng(_seed_of(self._seed, "seeds")).permutation(self.resamples)
            student_R = stats.t.ppf((order_R + 0.5) / self.resamples, mean.seeds - 1).astype(np.float64)
            draws_R = draws_R + student_R * mean.deviation / math.sqrt(mean.seeds)
        draws_R = draws_R[~np.isnan(draws_R)]
        if not len(draws_R):
            return mean
        tail = (1 - self.confidence) / 2
        low, high = np.clip(np.quantile(draws_R, [tail, 1 - tail]), *bounds)
        return Mean(Estimate(mean.estimate.value, float(low), float(high)), values)


def drawn_of(
    cells: Iterable[CellScores],
    metrics: Sequence[str],
    *,
    resamples: int,
    seed: int,
    aupro_limit: float = 0.3,
) -> dict[str, dict[Key, _Drawn]]:
    """Each metric of each cell, on its images and on resamples of them, which all cells of a category share.

    Args:
        cells: See :class:`Comparison`.
        metrics: Keys of :data:`tune.tables.rows.METRICS`.
        resamples: Number of resamples of the images.
        seed: Seed of the resamples.
        aupro_limit: False-positive rate up to which AUPRO is integrated.
    """
    drawn: dict[str, dict[Key, _Drawn]] = {name: {} for name in metrics}
    by_category: dict[str | None, list[CellScores]] = {}
    for cell in cells:
        by_category.setdefault(cell.category, []).append(cell)
    for category, members in by_category.items():
        known: dict[str, tuple[bool, str | None]] = {}
        for cell in members:
            groups = cell.groups or [None] * len(cell.names)
            for name, bad, group in zip(cell.names, cell.defective.tolist(), groups, strict=True):
                known.setdefault(name, (bad, group))
        place = {name: i for i, name in enumerate(sorted(known))}
        order = [known[name] for name in place]
        for cell in members:
            index_N = np.asarray([place[name] for name in cell.names], dtype=np.int64)
            for name, measure in metrics_of(cell, metrics, aupro_limit):
                # A category's draws depend on its own images alone: another one leaves them as they were.
                weights = resampled_weights(
                    len(order),
                    groups=[group for _, group in order],
                    strata=[bad for bad, _ in order],
                    resamples=resamples if order else 0,
                    seed=_seed_of(seed, str(category)),
                )
                draws = [measure(weights_RN[:, index_N]) for weights_RN in weights]
                drawn[name][cell.row, cell.category, cell.seed] = _Drawn(
                    float(measure(np.ones((1, len(index_N))))[0]) if len(index_N) else math.nan,
                    np.concatenate(draws) if draws else np.full(resamples, np.nan),
                    frozenset(cell.names),
                    cell.parts,
                )
    return drawn


def _seed_of(seed: int, text: str) -> int:
    """A seed of its own for a purpose, the same on every machine."""
    return (seed * 1_000_003 + zlib.crc32(text.encode("utf-8", "surrogateescape"))) % 2**32

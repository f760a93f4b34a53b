"""Numbers with their uncertainty: an estimate and its interval, by a bootstrap or by a formula.

Shapes: N images, R resamples. A statistic is a function of *weights*, ``weights_RN -> values_R``: how often
each image occurs in each resample. A metric written this way is computed for all resamples at once, and its
plain value is the same function at weights of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Real numbers, float64."""
Statistic = Callable[[Floats], Floats]
"""Weights (R, N) to values (R,); NaN where the statistic is undefined."""

_CHUNK = 2_000_000
_MOST_ROWS = 250


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its interval; NaN where undefined (for instance, no defective image).

    Attributes:
        value: On the images as they are.
        low: Lower end of the interval, NaN where none was computed.
        high: Upper end.

    Example:
        >>> print(Estimate(0.859, 0.83, 0.88))
        0.859 [0.830, 0.880]
        >>> f"{Estimate(0.859, 0.83, 0.88):.1%}"
        '85.9% [83.0%, 88.0%]'
        >>> print(Estimate(0.5, math.nan, math.nan), UNDEFINED)
        0.500 undefined
    """

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval around it."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        if not self.defined:
            return "undefined"
        text = format(self.value, spec)
        return f"{text} [{self.low:{spec}}, {self.high:{spec}}]" if self.has_interval else text

    def __str__(self) -> str:
        return format(self, "")

    def widened(self, other: Estimate) -> Self:
        """The same value in an interval that holds another one's too; as it is where either has none.

        Example:
            >>> print(Estimate(0.9, 0.8, 0.95).widened(Estimate(0.9, 0.7, 0.94)))
            0.900 [0.700, 0.950]
        """
        if not (self.has_interval and other.has_interval):
            return self
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))

    def as_json(self) -> dict[str, float | None]:
        """``{"value": ..., "low": ..., "high": ...}``, null where undefined.

        Example:
            >>> UNDEFINED.as_json()
            {'value': None, 'low': None, 'high': None}
        """
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(x) else x for name, x in numbers.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, float | None]) -> Estimate:
        """The inverse of :meth:`as_json`."""
        numbers = (value.get(name) for name in ("value", "low", "high"))
        return cls(*(math.nan if x is None else float(x) for x in numbers))


UNDEFINED = Estimate(math.nan, math.nan, math.nan)
"""An estimate of something that the images at hand do not determine."""


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    groups: Sequence[str | None] | None = None,
    strata: Sequence[object] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with its percentile bootstrap interval (Efron 1979).

    Resamples in which the statistic is undefined are left out. A statistic at the end of its range in every
    resample gets an interval of no width: the images then hold no sign of what would go wrong on others
    (see :func:`auroc_interval` and :func:`proportion`).

    Args:
        statistic: Weights (R, N) to values (R,).
        n: Images N.
        groups: The part each image shows (None: an image of its own). Where given, whole groups are drawn,
            since images of one part are not independent.
        strata: Each image's class; see :func:`resampled_weights`.
        resamples: How many; 0 for no interval.
        confidence: Share of the resamples inside the interval.
        seed: The same seed gives the same resamples, so that two metrics of the same images are paired.

    Example:
        >>> x_N = np.arange(100.0)
        >>> mean = lambda weights_RN: weights_RN @ x_N / weights_RN.sum(axis=1)
        >>> f"{bootstrap(mean, 100, seed=1):.0f}"
        '50 [44, 55]'
    """
    value = float(statistic(np.ones((1, n)))[0]) if n else math.nan
    if math.isnan(value) or resamples == 0:
        return Estimate(value, math.nan, math.nan)
    weights = resampled_weights(n, groups=groups, strata=strata, resamples=resamples, seed=seed)
    draws_R = np.concatenate([statistic(weights_RN) for weights_RN in weights])
    draws_R = draws_R[~np.isnan(draws_R)]
    if not len(draws_R):
        return Estimate(value, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_R, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def difference(first: Statistic, second: Statistic) -> Statistic:
    """One statistic less another on the same images: paired, so that what both have in common cancels.

    Example:
        >>> x_N, y_N = np.arange(50.0), np.arange(50.0) + 1
        >>> mean = lambda v_N: lambda weights_RN: weights_RN @ v_N / weights_RN.sum(axis=1)
        >>> f"{bootstrap(difference(mean(y_N), mean(x_N)), 50):.1f}"
        '1.0 [1.0, 1.0]'
    """
    return lambda weights_RN: first(weights_RN) - second(weights_RN)


def proportion(hits: float, n: float, confidence: float = 0.95) -> Estimate:
    """A share with its exact interval (Clopper & Pearson 1934), which is wide where there is little to go by.

    Unlike a bootstrap's it is not of no width where nothing, or everything, was hit.

    Args:
        hits: Number of hits among them.
        n: How many there are. Where several images show one part, parts; `hits` need not be whole then.
        confidence: Confidence of the interval.

    Example:
        >>> print(proportion(0, 20))
        0.000 [0.000, 0.168]
    """
    from scipy.special import betaincinv  # scipy.stats would take a second to load

    if n <= 0:
        return UNDEFINED
    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return Estimate(hits / n, low, high)


def auroc_interval(value: float, good: int, defective: int, confidence: float = 0.95) -> Estimate:
    r"""An AUROC with the interval of Newcombe's method 5 (2006, Statistics in Medicine 25, 559-573).

    It holds each A that lies within z standard errors of the AUROC that was seen, where the error is that at
    A itself (Hanley & McNeil 1982):

    .. math::
        (\mathrm{value} - A)^2 \le z^2 \frac{A (1 - A)}{\mathrm{good} \cdot \mathrm{defective}}
        \Bigl[1 + m \Bigl(\frac{1 - A}{2 - A} + \frac{A}{1 + A}\Bigr)\Bigr],
        \qquad m = \frac{\mathrm{good} + \mathrm{defective}}{2} - 1

    A bootstrap's interval is too narrow near 1, and has no width at 1: of normally distributed scores with an
    AUROC of 0.99 it holds the truth 86 times in 100 with 50 good and 70 defective images, 61 times with 50
    and 8. This one does 98 times.

    Args:
        value: The AUROC.
        good: Good images; where several show one part, parts.
        defective: Defective ones.
        confidence: Confidence of the interval.

    Example:
        >>> print(auroc_interval(1.0, 50, 8), auroc_interval(0.9, 50, 70))
        1.000 [0.857, 1.000] 0.900 [0.824, 0.944]
    """
    if math.isnan(value) or not (good and defective):
        return UNDEFINED
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    mean = (good + defective) / 2 - 1

    def holds(a: float) -> bool:
        spread = 1 + mean * ((1 - a) / (2 - a) + a / (1 + a))
        return (value - a) ** 2 <= z * z * a * (1 - a) * spread / (good * defective)

    def end(outside: float) -> float:
        inside = value
        for _ in range(50):  # halves, to the last bit that is shown anywhere
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        return inside

    return Estimate(value, end(0.0), end(1.0))


def resampled_weights(
    n: int,
    *,
    groups: Sequence[str | None] | None = None,
    strata: Sequence[object] | None = None,
    resamples: int,
    seed: int,
) -> Iterator[Floats]:
    """How often each image occurs in each resample, a few resamples at a time.

    Units (groups; where there are none, images) are drawn with replacement within strata: those whose
    images are all good, those all defective, those with both. So every resample has both classes wherever
    the images have.

    Args:
        n: Images N.
        groups: Group of each image; None stands for an image of its own.
        strata: Class of each image.
        resamples: Rows in all.
        seed: Seed of the draws.

    Yields:
        Weights (r, N), float64 whole numbers; the r of all yields add up to `resamples`.
    """
    names = [f"={i}" if g is None else f"group {g}" for i, g in enumerate(groups or [None] * n)]
    _, unit_N = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    classes: dict[int, set[object]] = {}
    for unit, stratum in zip(unit_N.tolist(), strata if strata is not None else [0] * n, strict=True):
        classes.setdefault(unit, set()).add(stratum)
    members: dict[frozenset[object], list[int]] = {}
    for unit in sorted(classes):
        members.setdefault(frozenset(classes[unit]), []).append(unit)

    rng = np.random.default_rng(seed)
    units = len(classes)
    rows = max(1, min(_MOST_ROWS, _CHUNK // max(n, 1)))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        weights_RU = np.zeros((count, units))
        for stratum in members.values():
            size = len(stratum)
            drawn_RS = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
            times = np.bincount(drawn_RS.ravel(), minlength=count * size)
            weights_RU[:, stratum] = times.reshape(count, size)
        yield weights_RU[:, unit_N]

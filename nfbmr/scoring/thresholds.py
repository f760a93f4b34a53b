r"""Thresholds from the scores of good images alone: of images, and of positions of their maps.

Shapes: N good images, H W the map.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from nfbmr.scoring.regions import Limit

TAIL = 0.25
"""Share of the good images whose scores say how the scores of good images end."""

FEWEST_IN_TAIL = 4
"""Of the highest scores, from which a tail is drawn on, where there are more than so many."""

_DRAWS = 100_000


def threshold_at(good_N: Tensor, false_reject_rate: float) -> float:
    r"""The score that a new good image exceeds with about this probability.

    With a few dozen images a quantile of the scores themselves is their highest or next to it: one odd image
    decides, and defects below it pass. The end of the distribution is smoother than that. The k highest
    scores, a quarter of all, are taken to exceed the next one, m, by exponentially distributed steps (peaks
    over a threshold, Pickands 1975, with the shape of most light tails), and the threshold is the quantile of
    a new image's score given them,

    .. math::
        T = m + S \left(\left(\frac{k + 1}{(N + 1) \, a}\right)^{1/k} - 1\right),
        \qquad S = \sum_{i \le k} (x_{(i)} - m).

    For exponential tails the expected rate is a, whatever N; for lighter ones (normal, uniform) it is less,
    for heavier ones hardly more. Of up to four scores all but the lowest are the tail. Where `a` is not in
    the tail, or there is one score, T is the split-conformal quantile: the j-th smallest score,
    j = ceil((N + 1)(1 - a)), N at most.

    Args:
        good_N: Scores of held-out good images.
        false_reject_rate: The stated rate a.

    Example:
        >>> import torch
        >>> round(threshold_at(torch.arange(1.0, 100.0), 0.05), 1)
        96.2
        >>> threshold_at(torch.arange(1.0, 100.0), 0.4)
        60.0
    """
    ordered_N = good_N.double().sort().values
    n = len(ordered_N)
    k = _in_tail(n, false_reject_rate)
    if k == 0:
        return float(ordered_N[_quantile(n, false_reject_rate) - 1])
    base = ordered_N[n - k - 1]
    steps = (ordered_N[n - k :] - base).sum()
    return float(base + steps * _reach(n, k, false_reject_rate))


def realised_rates(good: int, false_reject_rate: float, confidence: float = 0.95) -> tuple[float, float]:
    r"""Between which shares of new good images lies what a threshold from so many rejects.

    The expected rate is the stated one, a; that of the threshold that these images happened to give is

    .. math::
        U e^{-c G}, \qquad U \sim \mathrm{Beta}(k + 1, N - k), \quad G \sim \mathrm{Gamma}(k), \quad
        c = \left(\frac{k + 1}{(N + 1) \, a}\right)^{1/k} - 1

    for exponential tails (:func:`threshold_at`), and Beta(N - j + 1, j) where T is the j-th smallest score.

    Args:
        good: Held-out good images N; where several show one part, parts.
        false_reject_rate: The stated rate a.
        confidence: Probability that the rate lies in between.

    Returns:
        The ends, from draws of a fixed seed.

    Example:
        >>> [f"{rate:.3f}" for rate in realised_rates(94, 0.05)]
        ['0.020', '0.094']
    """
    rng = np.random.default_rng(0)
    k = _in_tail(good, false_reject_rate)
    if k == 0:
        j = _quantile(good, false_reject_rate)
        rates = rng.beta(good - j + 1, j, _DRAWS)
    else:
        reach = _reach(good, k, false_reject_rate)
        rates = rng.beta(k + 1, good - k, _DRAWS) * np.exp(-reach * rng.gamma(k, size=_DRAWS))
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def _in_tail(n: int, rate: float) -> int:
    """How many of the highest of `n` scores are the tail; 0 where the threshold is no part of it."""
    k = min(max(FEWEST_IN_TAIL, round(TAIL * n)), n - 1)
    return 0 if (k + 1) / (n + 1) <= rate else k


def _reach(n: int, k: int, rate: float) -> float:
    """How far the threshold lies above the tail's base, in sums of the tail's steps."""
    return float(((k + 1) / ((n + 1) * rate)) ** (1 / k) - 1)


def _quantile(n: int, rate: float) -> int:
    """Which of `n` scores in order the split-conformal quantile is, from 1 on."""
    return min(n, math.ceil((n + 1) * (1 - rate) - 1e-9))


def limit_of(good_N: Tensor, false_reject_rate: float) -> Limit:
    """The threshold of some values, and what is typical of the good images that pass it: their median.

    For positions the values are the maps' maxima: a good image is a false alarm where any position exceeds
    the threshold. Upsampled bilinearly no map rises above its own maximum, so the rate holds at any
    picture's size.

    Example:
        >>> import torch
        >>> limit = limit_of(torch.arange(1.0, 100.0), 0.05)
        >>> limit.typical, round(limit.threshold, 1)
        (48.0, 96.2)
    """
    threshold = threshold_at(good_N, false_reject_rate)
    passing_N = good_N[good_N < threshold]
    return Limit(float(passing_N.median()) if len(passing_N) else threshold, threshold)


def colours_of(good_NHW: Tensor) -> tuple[float, float]:
    """Where a heat map's colours begin and end, from the maps of good images alone.

    They begin at what nine positions of ten stay below, and end three times as far away as the highest in a
    thousand: a flow can put a defect ten thousand times as far, and one such image would leave all others
    without a colour.

    Example:
        >>> import torch
        >>> colours_of(torch.linspace(0, 1, 1001).view(1, 7, 143))
        (0.9, 1.197)
    """
    common, highest = np.quantile(good_NHW.numpy(), (0.9, 0.999)).tolist() if good_NHW.numel() else (0.0, 1.0)
    reach = max(3.0 * (highest - common), 1e-3 * abs(common), 1e-6)
    return round(common, 6), round(common + reach, 6)

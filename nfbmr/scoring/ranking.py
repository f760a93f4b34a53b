"""How well scores rank: the AUROC, and what two AUROCs on the same images may differ by.

Shapes: N good and M defective images, U units (the parts photographed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def auroc(good_N: Tensor, defective_M: Tensor, weights_M: Sequence[float] | None = None) -> float:
    """Probability that a defective image scores higher than a good one, ties counting half.

    Args:
        good_N: Scores of good images.
        defective_M: Scores of defective images.
        weights_M: What each defective image counts for; None for all alike.

    Example:
        >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
        0.875
        >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), (1.0, 3.0))
        0.9375
    """
    return float(_mean(_won(defective_M, good_N), weights_M))


def effective(number: int, weights: Sequence[float] | None) -> float:
    r"""How many images of equal weight say as much: :math:`(\sum w)^2 / \sum w^2` (Kish 1965).

    Example:
        >>> effective(3, None), effective(3, (4.0, 4.0, 0.0))
        (3.0, 2.0)
    """
    if weights is None:
        return float(number)
    return sum(weights) ** 2 / sum(weight**2 for weight in weights)


def auroc_error(value: float, good: float, defective: float) -> float:
    """Standard error of an AUROC of that value on that many images (Hanley & McNeil 1982, eq. 1).

    Example:
        >>> round(auroc_error(0.9, 100, 100), 3)
        0.023
    """
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (defective - 1) * (q1 - value**2) + (good - 1) * (q2 - value**2)
    return math.sqrt(max(0.0, variance) / (good * defective))


def auroc_influence(
    good_N: Tensor,
    defective_M: Tensor,
    good_units: Sequence[str],
    defective_units: Sequence[str],
    weights_M: Sequence[float] | None = None,
) -> Tensor:
    r"""What each unit's images add to the AUROC's deviation from its expectation, (U,) float64.

    With :math:`\psi` the share of images of the other class that an image is ranked rightly against:

    .. math::
        \phi_u = \frac{1}{M} \sum_{j \in u} (\psi_j - A) + \frac{1}{N} \sum_{i \in u} (\psi_i - A)

    sums over the unit's defective images j and good images i; with weights, j counts for its share of them
    instead of 1 / M. Images of one part are not independent, so units are what is counted (Obuchowski,
    Biometrics 53, 1997; with one image a unit DeLong et al. 1988).

    Args:
        good_N: Scores of good images.
        defective_M: Scores of defective images.
        good_units: The unit that each good image shows.
        defective_units: The same of the defective ones.
        weights_M: What each defective image counts for; None for all alike.

    Returns:
        By unit, in alphabetical order of their names.
    """
    units = {unit: u for u, unit in enumerate(sorted({*good_units, *defective_units}))}
    influence_U = torch.zeros(len(units), dtype=torch.float64)
    right_M, right_N = _won(defective_M, good_N), 1.0 - _won(good_N, defective_M, weights_M)
    for right, names, weights in ((right_M, defective_units, weights_M), (right_N, good_units, None)):
        index = torch.tensor([units[name] for name in names])
        influence_U.index_add_(0, index, _share(right - _mean(right, weights), weights))
    return influence_U


def difference_error(one_U: Tensor, other_U: Tensor) -> float:
    """Standard error of the difference of two statistics of the same units, from their influences.

    Example:
        >>> influence_U = torch.tensor([0.1, -0.2, 0.1])
        >>> difference_error(influence_U, influence_U)
        0.0
    """
    difference_U = (one_U - other_U).double()
    units = len(difference_U)
    if units < 2:
        return 0.0
    return math.sqrt(float((difference_U - difference_U.mean()).square().sum()) * units / (units - 1))


def _mean(values_N: Tensor, weights_N: Sequence[float] | None) -> Tensor:
    if weights_N is None:
        return values_N.mean()
    weights = torch.tensor(weights_N, dtype=torch.float64)
    return (values_N * weights).sum() / weights.sum()  # of values that are all 1 exactly 1


def _share(values_N: Tensor, weights_N: Sequence[float] | None) -> Tensor:
    """What each value adds to their mean."""
    if weights_N is None:
        return values_N / len(values_N)
    weights = torch.tensor(weights_N, dtype=torch.float64)
    return values_N * weights / weights.sum()


def _won(one_N: Tensor, other_M: Tensor, weights_M: Sequence[float] | None = None) -> Tensor:
    """For each of `one_N`, the share of `other_M` that it scores higher than; ties count half."""
    ordered_M, order_M = other_M.double().sort()
    values_N = one_N.double().contiguous()
    below_N = torch.searchsorted(ordered_M, values_N, right=False)
    not_above_N = torch.searchsorted(ordered_M, values_N, right=True)
    if weights_M is None:
        return (below_N + not_above_N).double() / (2 * len(ordered_M))
    weights = torch.tensor(weights_M, dtype=torch.float64)[order_M]
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])
    return (sums[below_N] + sums[not_above_N]) / (2 * sums[-1])

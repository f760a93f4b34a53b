"""How well scores rank: the AUROC, and what two AUROCs on the same images may differ by.

Shapes: N good and M defective images, U units (the parts photographed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def auroc(good_N: Tensor, defective_M: Tensor) -> float:
    """Probability that a defective image scores higher than a good one, ties counting half.

    Example:
        >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
        0.875
    """
    return float(_won(defective_M, good_N).mean())


def auroc_error(value: float, good: int, defective: int) -> float:
    """Standard error of an AUROC of that value on that many images (Hanley & McNeil 1982, eq. 1).

    Example:
        >>> round(auroc_error(0.9, 100, 100), 3)
        0.023
    """
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (defective - 1) * (q1 - value**2) + (good - 1) * (q2 - value**2)
    return math.sqrt(max(0.0, variance) / (good * defective))


def auroc_influence(
    good_N: Tensor, defective_M: Tensor, good_units: Sequence[str], defective_units: Sequence[str]
) -> Tensor:
    r"""What each unit's images add to the AUROC's deviation from its expectation, (U,) float64.

    With :math:`\psi` the share of images of the other class that an image is ranked rightly against:

    .. math::
        \phi_u = \frac{1}{M} \sum_{j \in u} (\psi_j - A) + \frac{1}{N} \sum_{i \in u} (\psi_i - A)

    sums over the unit's defective images j and good images i. Images of one part are not independent, so
    units are what is counted (Obuchowski, Biometrics 53, 1997; with one image a unit DeLong et al. 1988).

    Args:
        good_N: Scores of good images.
        defective_M: Scores of defective images.
        good_units: The unit that each good image shows.
        defective_units: The same of the defective ones.

    Returns:
        By unit, in alphabetical order of their names.
    """
    units = {unit: u for u, unit in enumerate(sorted({*good_units, *defective_units}))}
    influence_U = torch.zeros(len(units), dtype=torch.float64)
    right_M, right_N = _won(defective_M, good_N), 1.0 - _won(good_N, defective_M)
    for right, names in ((right_M, defective_units), (right_N, good_units)):
        index = torch.tensor([units[name] for name in names])
        influence_U.index_add_(0, index, (right - right.mean()) / len(right))
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


def _won(one_N: Tensor, other_M: Tensor) -> Tensor:
    """For each of `one_N`, the share of `other_M` that it scores higher than; ties count half."""
    ordered_M = other_M.double().sort().values
    values_N = one_N.double().contiguous()
    below_N = torch.searchsorted(ordered_M, values_N, right=False)
    not_above_N = torch.searchsorted(ordered_M, values_N, right=True)
    return (below_N + not_above_N).double() / (2 * len(ordered_M))

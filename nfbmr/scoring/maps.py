"""Score parts: what each position of the feature map says.

Shapes: B batch, C channels, H W the feature map, P = 3 score parts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PARTS = ("source", "target", "norm")
"""Source error ||y - y_hat||^2, target error ||z - z_hat||^2, and ||z||^2."""


def part_maps(
    y_BCHW: Tensor,
    z_BCHW: Tensor,
    y_hat_BCHW: Tensor | None = None,
    z_hat_BCHW: Tensor | None = None,
    *,
    pool: float = 0.0,
) -> Tensor:
    r"""The score parts at each position.

    ``source(i, j) = ||y - y_hat||^2``, ``target(i, j) = ||z - z_hat||^2`` (the two terms of eq. 14 of
    Zhang et al. 2024) and ``norm(i, j) = ||z||^2``, all squared norms over channels.

    With `pool`, every error vector e (``y - y_hat``, ``z - z_hat``, ``z``) is first averaged over its
    neighbours q with Gaussian weights g:

    .. math:: p(i, j) = \Big\| \sum_q g_q \, e(i + q_1, j + q_2) \Big\|^2

    A defect displaces neighbouring vectors alike, and stays; what scatters from one position to the next
    averages out. Smoothing the map of squared norms would average the scatter's size instead. The papers
    do not pool.

    Args:
        y_BCHW: Source features.
        z_BCHW: Target features, z = TNF(y).
        y_hat_BCHW: SMNN(z); None for a method without a mapping, whose part is then zero.
        z_hat_BCHW: TMNN(y); likewise.
        pool: Sigma of the Gaussian g, in feature positions; 0 for none.

    Returns:
        float32 (B, 3, H, W), in the order of :data:`PARTS`.

    Example:
        >>> y = torch.zeros(1, 4, 2, 2); z = torch.ones(1, 4, 2, 2)
        >>> part_maps(y, z, y + 1, z)[0, :, 0, 0].tolist()
        [4.0, 0.0, 4.0]
    """
    y, z = y_BCHW.float(), z_BCHW.float()
    norm_BHW = _squared_norm(z, pool)
    none_BHW = torch.zeros_like(norm_BHW)
    source_BHW = none_BHW if y_hat_BCHW is None else _squared_norm(y - y_hat_BCHW.float(), pool)
    target_BHW = none_BHW if z_hat_BCHW is None else _squared_norm(z - z_hat_BCHW.float(), pool)
    return torch.stack((source_BHW, target_BHW, norm_BHW), dim=1)


def smoothed(map_NHW: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing with reflected borders; `sigma` in positions, 0 for none."""
    if sigma == 0:
        return map_NHW
    from torchvision.transforms.functional import gaussian_blur

    # Reflection needs a kernel shorter than twice the map.
    longest = 2 * min(map_NHW.shape[-2:]) - 1
    width = min(2 * math.ceil(3 * sigma) + 1, longest if longest % 2 else longest - 1)
    blurred: Tensor = gaussian_blur(map_NHW.unsqueeze(1), [width, width], [sigma, sigma])
    return blurred.squeeze(1)


def _squared_norm(error_BCHW: Tensor, pool: float) -> Tensor:
    pooled_BCHW = smoothed(error_BCHW.flatten(0, 1), pool).view(error_BCHW.shape)
    return pooled_BCHW.square().sum(1)

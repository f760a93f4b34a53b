"""What each position of a feature map says.

Shapes: B batch, C channels, H W the feature map.
"""

from __future__ import annotations

import math

from torch import Tensor


def squared_norm(error_BCHW: Tensor, pool: float = 0.0) -> Tensor:
    r"""The squared norm over channels at each position, (B, H, W) float32.

    With `pool`, every error vector e is first averaged over its neighbours q with Gaussian weights g:

    .. math:: p(i, j) = \Big\| \sum_q g_q \, e(i + q_1, j + q_2) \Big\|^2

    A defect displaces neighbouring vectors alike, and stays; what scatters from one position to the next
    averages out. Smoothing the map of squared norms would average the scatter's size instead. The papers
    do not pool.

    Args:
        error_BCHW: Error vectors, such as ``y - y_hat``.
        pool: Sigma of the Gaussian g, in positions; 0 for none.

    Example:
        >>> import torch
        >>> squared_norm(torch.ones(1, 4, 2, 2))[0].tolist()
        [[4.0, 4.0], [4.0, 4.0]]
    """
    error_BCHW = error_BCHW.float()
    pooled_BCHW = smoothed(error_BCHW.flatten(0, 1), pool).view(error_BCHW.shape)
    return pooled_BCHW.square().sum(1)


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

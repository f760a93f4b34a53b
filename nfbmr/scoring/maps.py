"""What each position of a feature map says.

Shapes: B batch, C channels, H W the feature map, h w a picture.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


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
    """Gaussian smoothing with reflected borders; `sigma` in positions, 0 for none.

    The same numbers as torchvision's ``gaussian_blur``, whose import takes longer than many a run's scores.
    """
    if sigma == 0:
        return map_NHW
    # Reflection needs a kernel shorter than twice the map.
    longest = 2 * min(map_NHW.shape[-2:]) - 1
    width = min(2 * math.ceil(3 * sigma) + 1, longest if longest % 2 else longest - 1)
    x_K = torch.linspace(
        -(width - 1) / 2, (width - 1) / 2, steps=width, dtype=map_NHW.dtype, device=map_NHW.device
    )
    g_K = torch.exp(-0.5 * (x_K / sigma).pow(2))
    g_K = g_K / g_K.sum()
    g_11KK = torch.mm(g_K[:, None], g_K[None, :])[None, None]
    padded_N1HW = functional.pad(map_NHW.unsqueeze(1), [width // 2] * 4, mode="reflect")
    return functional.conv2d(padded_N1HW, g_11KK).squeeze(1)


def upsampled(map_HW: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """A map at another size (h, w), bilinearly, borders aligned (not corner centres)."""
    map_11HW = torch.from_numpy(np.ascontiguousarray(map_HW, dtype=np.float32))[None, None]
    up_11hw = functional.interpolate(map_11HW, size=size, mode="bilinear", align_corners=False)
    return np.asarray(up_11hw[0, 0].numpy())

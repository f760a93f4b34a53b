"""Score parts: what each position of the feature map says.

Shapes: B batch, C channels, H W the feature map, P = 3 score parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = ("source", "target", "norm")
"""Source error ||y - y_hat||^2, target error ||z - z_hat||^2, and ||z||^2."""


def part_maps(
    y_BCHW: Tensor, z_BCHW: Tensor, y_hat_BCHW: Tensor | None = None, z_hat_BCHW: Tensor | None = None
) -> Tensor:
    """The score parts at each position.

    ``source(i, j) = ||y - y_hat||^2``, ``target(i, j) = ||z - z_hat||^2`` (the two terms of eq. 14 of
    Zhang et al. 2024) and ``norm(i, j) = ||z||^2``, all squared norms over channels.

    Args:
        y_BCHW: Source features.
        z_BCHW: Target features, z = TNF(y).
        y_hat_BCHW: SMNN(z); None for a method without a mapping, whose part is then zero.
        z_hat_BCHW: TMNN(y); likewise.

    Returns:
        float32 (B, 3, H, W), in the order of :data:`PARTS`.

    Example:
        >>> y = torch.zeros(1, 4, 2, 2); z = torch.ones(1, 4, 2, 2)
        >>> part_maps(y, z, y + 1, z)[0, :, 0, 0].tolist()
        [4.0, 0.0, 4.0]
    """
    z = z_BCHW.float()
    norm_BHW = z.square().sum(1)
    source_BHW = torch.zeros_like(norm_BHW) if y_hat_BCHW is None else _error(y_BCHW, y_hat_BCHW)
    target_BHW = torch.zeros_like(norm_BHW) if z_hat_BCHW is None else _error(z_BCHW, z_hat_BCHW)
    return torch.stack((source_BHW, target_BHW, norm_BHW), dim=1)


def _error(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    return (a_BCHW.float() - b_BCHW.float()).square().sum(1)

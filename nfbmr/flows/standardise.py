"""Per-channel standardisation of features, measured once on the training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nfbmr.features.table import Features, FeatureTable


class Standardise(nn.Module):
    r"""Bring every channel to mean 0 and standard deviation 1: :math:`y' = (y - \mu) / \sigma`.

    The identity until :meth:`fit` has measured. Mean and deviation are buffers: they travel with the
    weights but are never trained. The paper leaves the scale of y open; with this map all channels weigh
    the same in both losses.

    Args:
        channels: C.
        enabled: Otherwise it stays the identity, whatever it is fitted on (``flow.standardize=false``).

    Example:
        >>> standardise = Standardise(2)
        >>> standardise.mean += 1
        >>> standardise(torch.ones(1, 2, 1, 1)).flatten()
        tensor([0., 0.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def fit(
        self, table: FeatureTable, rows: Sequence[int] | Tensor | None = None, *, batch: int = 64
    ) -> Standardise:
        """Measure mean and standard deviation over images and positions, in one pass.

        A channel that hardly varies is divided by a thousandth of the typical deviation at least: a dead
        channel must not become the loudest one when a defect wakes it.

        Args:
            table: Stored features.
            rows: Which of them; all by default.
            batch: Rows read at a time, or fewer of large maps.

        Returns:
            Itself.
        """
        if not self.enabled:
            return self
        chosen = torch.arange(len(table)) if rows is None else torch.as_tensor(rows)
        mean_C = torch.zeros(self.mean.shape, dtype=torch.float64)
        moment_C = torch.zeros_like(mean_C)  # sum of squared deviations from the mean
        count = 0
        batch = Features((table,)).at_once(batch)  # in double precision, on several copies
        for part in (chosen[start : start + batch] for start in range(0, len(chosen), batch)):
            y_CN = table.gather(part).double().transpose(0, 1).flatten(1)
            n, part_mean_C = y_CN.shape[1], y_CN.mean(1)
            shift_C = part_mean_C - mean_C
            moment_C += (y_CN - part_mean_C[:, None]).square().sum(1)
            moment_C += shift_C.square() * (count * n / (count + n))
            mean_C += shift_C * (n / (count + n))
            count += n
        std_C = (moment_C / max(count, 1)).sqrt()
        self.mean.copy_(mean_C)
        self.std.copy_(std_C.clamp(min=max(1e-3 * float(std_C.median()), 1e-6)))
        return self

    def forward(self, y_BCHW: Tensor) -> Tensor:
        """Standardise (B, C, H, W)."""
        return (y_BCHW - self.mean[:, None, None]) / self.std[:, None, None]

    def inverse(self, y_BCHW: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        return y_BCHW * self.std[:, None, None] + self.mean[:, None, None]

    def logdet(self, positions: int) -> Tensor:
        """Log abs det of :meth:`forward` on a map of ``positions`` = H * W: a constant scalar."""
        return -positions * self.std.log().sum()

r"""The nearest rows of a large bank, in about a quarter of the time: an inverted file of cells.

The bank is divided among cells, each around a center that k-means finds; a vector looks for its nearest
row in the `PROBES` cells alone whose centers are nearest (Jégou, Douze & Schmid, PAMI 33, 2011: the inverted
file of FAISS, of the rows themselves). A row beyond these cells may be nearer, so a distance is exact or too
large, never too small:

.. math:: \tilde d_q \ge d_q

Hence the n largest of many distances are known exactly once some vectors are searched through the whole bank,
those first that seem farthest, and n of them are at least as far as any other seems. An image's score and
what lights up in its heat map are those of the exact search. ``python -m benchmarks nearest`` measures both.

Shapes: Q vectors asked about, C channels, K rows of the bank, G cells, P probes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nfbmr.methods.nearest import nearest

PROBES = 12
"""Cells that a vector looks into: 99.4 % of the patches of a printed board get the nearest of 20 000 rows."""
ROUNDS = 4
"""Of k-means."""
EXACT_SHARE = 0.02
"""Share of an image's distances, the largest, that are exact."""
REFINED = 128
"""Vectors that are searched through the whole bank at once, to make them so."""
_SAMPLED = 32  # rows a cell that k-means looks at


class Cells:
    """A bank's rows, cell by cell: a copy, so that those of a cell lie together in memory.

    Attributes:
        source_KC: The bank as it was given.
        source_square_K: Its rows' squared norms.
        rows_KC: Its rows in order of their cells.
        square_K: Squared norms of these.
        number_K: What number each has in the bank.
        centers_GC: Center of each cell.
        starts: Where each cell begins in `rows_KC`, and where the last one ends.

    Args:
        bank_KC: At least one row.
        seed: Draws the rows that k-means begins with.
    """

    def __init__(self, bank_KC: Tensor, seed: int = 0) -> None:
        count = max(1, math.isqrt(PROBES * len(bank_KC)))
        generator = torch.Generator().manual_seed(seed)
        sampled_N = torch.randperm(len(bank_KC), generator=generator)[: count * _SAMPLED]
        self.source_KC, self.source_square_K = bank_KC, bank_KC.square().sum(1)
        self.centers_GC = _centers(bank_KC[sampled_N], count)
        cell_K = nearest(bank_KC, self.centers_GC)[1]
        self.number_K = cell_K.argsort(stable=True)
        self.rows_KC = bank_KC[self.number_K]
        self.square_K = self.source_square_K[self.number_K]
        self.starts = [0, *torch.bincount(cell_K, minlength=count).cumsum(0).tolist()]

    def nearest(self, x_QC: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of each vector to the nearest row of its cells, (Q,), and that row's number, (Q,)."""
        with torch.no_grad():
            row_Q = self._rows(x_QC.detach())
        return self._distances(x_QC, row_Q), row_Q

    def nearest_of_images(self, x_BQC: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`nearest` for the vectors of each image, (B, Q).

        The largest `EXACT_SHARE` of an image's distances, one at least, are exact.
        """
        with torch.no_grad():
            row_BQ = torch.stack([self._largest_exact(x_QC) for x_QC in x_BQC.detach()])
        return self._distances(x_BQC, row_BQ), row_BQ

    def _largest_exact(self, x_QC: Tensor) -> Tensor:
        """Numbers of the rows, (Q,), exact for vectors that are farthest from theirs."""
        row_Q = self._rows(x_QC)
        distance_Q, farthest_Q = self._distances(x_QC, row_Q).sort(descending=True)
        count = max(1, round(EXACT_SHARE * len(x_QC)))
        for start in range(0, len(x_QC), REFINED):
            searched_R = distance_Q[:start]
            if start >= count and searched_R.topk(count).values[-1] >= distance_Q[start]:
                break
            part = slice(start, start + REFINED)
            distance_Q[part], row_Q[farthest_Q[part]] = nearest(
                x_QC[farthest_Q[part]], self.source_KC, self.source_square_K
            )
        return row_Q

    def _rows(self, x_QC: Tensor) -> Tensor:
        probes = min(PROBES, len(self.centers_GC))
        square_G = self.centers_GC.square().sum(1)
        nearness_QG = torch.addmm(square_G, x_QC, self.centers_GC.T, alpha=-2.0)
        cell_QP = nearness_QG.topk(probes, largest=False, sorted=False).indices
        # Vectors that look into the same cell do so together.
        cell_L, order_L = cell_QP.flatten().sort()
        value_L = x_QC.new_full((len(cell_L),), math.inf)
        row_L = torch.zeros_like(order_L)
        end = 0
        for cell, asked in enumerate(torch.bincount(cell_L, minlength=len(self.centers_GC)).tolist()):
            start, end = end, end + asked
            rows = slice(self.starts[cell], self.starts[cell + 1])
            if asked and rows.start < rows.stop:
                x_RC = x_QC[order_L[start:end] // probes]
                value_RM = torch.addmm(self.square_K[rows], x_RC, self.rows_KC[rows].T, alpha=-2.0)
                value_L[start:end], nearest_R = value_RM.min(1)
                row_L[start:end] = nearest_R + rows.start
        value_QP, row_QP = torch.empty_like(value_L), torch.empty_like(row_L)
        value_QP[order_L], row_QP[order_L] = value_L, row_L
        best_Q1 = value_QP.view(-1, probes).argmin(1, keepdim=True)
        return self.number_K[row_QP.view(-1, probes).gather(1, best_Q1)[:, 0]]

    def _distances(self, x_QC: Tensor, row_Q: Tensor) -> Tensor:
        return (x_QC - self.source_KC[row_Q]).square().sum(-1).sqrt()


def _centers(x_NC: Tensor, count: int) -> Tensor:
    """Centers of k-means, (G, C), begun with the first vectors; one that loses all of them stays."""
    centers_GC = x_NC[:count].clone()
    for _ in range(ROUNDS):
        cell_N = nearest(x_NC, centers_GC)[1]
        sum_GC = torch.zeros_like(centers_GC).index_add_(0, cell_N, x_NC)
        members_G1 = torch.bincount(cell_N, minlength=len(centers_GC))[:, None]
        centers_GC = torch.where(members_G1 > 0, sum_GC / members_G1.clamp(min=1), centers_GC)
    return centers_GC

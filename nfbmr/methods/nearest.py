r"""The nearest rows of a bank, exactly, at about the price of the matrix product.

The row that is nearest is the one of the least squared distance, less what all have in common:

.. math::
    \operatorname{argmin}_m \|x - m\| = \operatorname{argmin}_m \|m\|^2 - 2\, x \cdot m

so that there is no root and no clamp before the minimum, one matrix product does the work, and its output is
worked off in blocks that never leave the cache. Minima are quicker than their places: a first pass keeps the
least of every stretch of the bank, and the place is looked up in the winning stretch alone.

What rounding does: terms as large as :math:`\|x\|^2` cancel, so a squared distance here is off by about
:math:`2^{-24} \|x\|^2`. That decides at most which of two rows is taken that are equally far within it:
the distance d that is given comes from differences, in which nothing cancels, and is off by no more
than the two rows differ, some :math:`2^{-24} \|x\|^2 / d`. ``python -m benchmarks nearest`` measures it.

Shapes: B and Q vectors asked about, C channels, K rows of the bank.
"""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 512
"""Vectors, and rows of a bank, of one product: 1 MiB of distances, which a core's own cache holds."""
STRETCH = 256
"""Rows of which the least distance is kept."""
DISTANCES_AT_ONCE = 1 << 27
"""Held in memory on a device of its own, where large products are what is quick: 512 MiB."""
ROWS_AT_ONCE = 1024
"""Of a bank, in an exported graph."""


def nearest(x_QC: Tensor, bank_KC: Tensor, square_K: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance of each vector to the nearest row of a bank, (Q,), and that row's number, (Q,).

    Args:
        x_QC: Vectors asked about.
        bank_KC: At least one row.
        square_K: The rows' squared norms, where they are at hand
            (:meth:`~nfbmr.methods.statistics.MemoryBank.squares`).

    Example:
        >>> nearest(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 1.0], [3.0, 1.0]]))
        (tensor([3.]), tensor([1]))
    """
    if torch.compiler.is_exporting():
        rows_Q = _rows_in_graph(x_QC, bank_KC)
    else:
        with torch.no_grad():
            square_K = bank_KC.square().sum(1) if square_K is None else square_K
            search = _rows_on_cpu if x_QC.device.type == "cpu" else _rows_on_device
            rows_Q = search(x_QC.detach(), bank_KC, square_K)
    return (x_QC - bank_KC[rows_Q]).square().sum(1).sqrt(), rows_Q


def closest(x_BC: Tensor, bank_KC: Tensor, count: int, square_K: Tensor | None = None) -> Tensor:
    """Numbers of the so many nearest rows of each of a few vectors, (B, count), nearest first.

    All distances of a vector are held at once.
    """
    with torch.no_grad():
        square_K = bank_KC.square().sum(1) if square_K is None else square_K
        return torch.addmm(square_K, x_BC, bank_KC.T, alpha=-2.0).topk(count, largest=False).indices


def _rows_on_cpu(x_QC: Tensor, bank_KC: Tensor, square_K: Tensor) -> Tensor:
    """Numbers of the nearest rows, (Q,)."""
    if not len(x_QC):
        return torch.zeros(0, dtype=torch.long)
    stretches = -(-len(bank_KC) // STRETCH)
    least_QS = x_QC.new_empty(len(x_QC), stretches)
    buffer = x_QC.new_empty(min(AT_ONCE, len(x_QC)) * min(AT_ONCE, len(bank_KC)))
    for at in range(0, len(x_QC), AT_ONCE):
        part_RC = x_QC[at : at + AT_ONCE]
        s = 0
        for start in range(0, len(bank_KC), AT_ONCE):
            rows_MC = bank_KC[start : start + AT_ONCE]
            value_RM = buffer[: len(part_RC) * len(rows_MC)].view(len(part_RC), len(rows_MC))
            torch.addmm(square_K[start : start + AT_ONCE], part_RC, rows_MC.T, alpha=-2.0, out=value_RM)
            for stretch_RM in torch.split(value_RM, STRETCH, dim=1):
                least_QS[at : at + AT_ONCE, s] = stretch_RM.amin(1)
                s += 1
    # Vectors that look into the same stretch do so together.
    stretch_Q, order_Q = least_QS.argmin(1).sort()
    counts = torch.bincount(stretch_Q, minlength=stretches).tolist()
    numbers = []
    for s, sorted_RC in enumerate(torch.split(x_QC[order_Q], counts)):
        if len(sorted_RC):
            part = slice(s * STRETCH, (s + 1) * STRETCH)
            value_RM = torch.addmm(square_K[part], sorted_RC, bank_KC[part].T, alpha=-2.0)
            numbers.append(value_RM.argmin(1) + s * STRETCH)
    rows_Q = torch.empty_like(order_Q)
    rows_Q[order_Q] = torch.cat(numbers)
    return rows_Q


def _rows_on_device(x_QC: Tensor, bank_KC: Tensor, square_K: Tensor) -> Tensor:
    """Numbers of the nearest rows, (Q,), by as few and as large products as memory allows."""
    at_once = max(1, DISTANCES_AT_ONCE // len(bank_KC))
    blocks = torch.split(x_QC, at_once)
    return torch.cat([torch.addmm(square_K, x, bank_KC.T, alpha=-2.0).argmin(1) for x in blocks])


def _rows_in_graph(x_QC: Tensor, bank_KC: Tensor) -> Tensor:
    """Numbers of the nearest rows, (Q,): in a graph, where Q is open, the bank is worked off in blocks."""
    least_Q: Tensor | None = None
    rows_Q = torch.zeros(0)
    for start in range(0, len(bank_KC), ROWS_AT_ONCE):
        part_KC = bank_KC[start : start + ROWS_AT_ONCE]
        value_Q, row_Q = torch.addmm(part_KC.square().sum(1), x_QC, part_KC.T, alpha=-2.0).min(1)
        if least_Q is None:
            least_Q, rows_Q = value_Q, row_Q
        else:
            rows_Q = torch.where(value_Q < least_Q, row_Q + start, rows_Q)
            least_Q = torch.minimum(value_Q, least_Q)
    return rows_Q

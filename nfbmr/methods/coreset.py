r"""Greedy choice of a coreset: again and again the vector that is farthest from all that are chosen.

The greedy choice's largest distance is at most twice the smallest possible (Gonzalez 1985). Done plainly it
compares every vector with every chosen one. Here a vector's distance to the chosen ones is only an *upper
bound* until it is needed: distances shrink as more are chosen, so a vector whose bound lies below the
farthest one's true distance cannot be the next, and is not looked at. The choice is the same.

Shapes: N vectors, D dimensions, K chosen ones, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from nfbmr.progress import ticking

CANDIDATES = 32768
"""Vectors that are held up to date at a time: those with the highest bounds."""
ROWS = 4096
"""Vectors compared with 2048 chosen ones in one product, 32 MiB of distances: more take no less time."""

GROUP = 512
"""Rows are refreshed together whose last looks lie within so many choices: a few are compared again."""


def greedy_coreset(
    x_ND: Tensor, count: int, *, first: int = 0, check: Callable[[], None] = lambda: None
) -> tuple[Tensor, float]:
    """Row numbers of a greedy coreset, in the order of their choice, and its coverage radius.

    Args:
        x_ND: Vectors; exact in float32.
        count: How many to choose, K.
        first: The row to begin with.
        check: Called now and then; may raise to stop.

    Returns:
        (K,) row numbers, and an upper bound of the largest distance of any row to the nearest chosen one.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [5.0]])
        >>> greedy_coreset(x, 3)
        (tensor([0, 3, 4]), 1.0)
    """
    return _Choice(x_ND.float().contiguous(), min(count, len(x_ND)), first).run(check)


class _Choice:
    """The state of the choice: bounds of all squared distances, and how many chosen ones each has seen."""

    def __init__(self, x_ND: Tensor, count: int, first: int) -> None:
        self.x_ND, self.count = x_ND, count
        self.square_N = x_ND.square().sum(1)
        self.chosen = torch.empty(count, dtype=torch.long)
        self.chosen_KD = torch.empty(count, x_ND.shape[1])
        self.chosen_square_K = torch.empty(count)
        self.done = 0
        self.bound_N = torch.full((len(x_ND),), torch.inf)
        self.seen_N = torch.zeros(len(x_ND), dtype=torch.long)
        self._choose(first)
        self._refresh(torch.arange(len(x_ND)))

    def run(self, check: Callable[[], None]) -> tuple[Tensor, float]:
        """Choose until there are enough."""
        progress = tqdm(total=self.count, initial=self.done, desc="coreset", disable=None, leave=False)
        with ticking(progress) as bar:
            while self.done < self.count:
                check()
                before = self.done
                self._round()
                bar.update(self.done - before)
        return self.chosen, math.sqrt(max(0.0, float(self.bound_N.max())))

    def _round(self) -> None:
        """Choose among the highest bounds, for as long as nothing outside them can be farther."""
        size = min(CANDIDATES, len(self.bound_N))
        top = self.bound_N.topk(min(size + 1, len(self.bound_N)))
        outside = float(top.values[-1]) if len(top.values) > size else -1.0
        rows_M = top.indices[:size]
        self._refresh(rows_M)
        x_MD, square_M, distance_M = self.x_ND[rows_M], self.square_N[rows_M], self.bound_N[rows_M]
        while self.done < self.count:
            best = int(distance_M.argmax())
            if float(distance_M[best]) < outside:
                break
            self._choose(int(rows_M[best]))
            k = self.done - 1
            new_M = square_M + self.chosen_square_K[k] - 2.0 * (x_MD @ self.chosen_KD[k])
            new_M[best] = 0.0
            distance_M = torch.minimum(distance_M, new_M.clamp(min=0.0))
        self.bound_N[rows_M] = distance_M
        self.seen_N[rows_M] = self.done

    def _choose(self, row: int) -> None:
        self.chosen[self.done] = row
        self.chosen_KD[self.done] = self.x_ND[row]
        self.chosen_square_K[self.done] = self.square_N[row]
        self.done += 1

    def _refresh(self, rows_M: Tensor) -> None:
        """Compare rows with the chosen ones that they have not seen: in few products, each large."""
        group_M = self.seen_N[rows_M] // GROUP
        for group in torch.unique(group_M).tolist():
            for rows in torch.split(rows_M[group_M == group], ROWS):
                for start in range(group * GROUP, self.done, 2048):
                    end = min(start + 2048, self.done)
                    squares_K, chosen_KD = self.chosen_square_K[start:end], self.chosen_KD[start:end]
                    near_M = torch.addmm(squares_K, self.x_ND[rows], chosen_KD.T, alpha=-2.0).amin(1)
                    distance_M = (near_M + self.square_N[rows]).clamp(min=0.0)
                    self.bound_N[rows] = torch.minimum(self.bound_N[rows], distance_M)
        self.seen_N[rows_M] = self.done

r"""Features averaged over an image and its mirror images, or its turns.

A convolutional network sees a part and the same part turned differently: a position's features depend on
how edges fall on the network's grid, and on which way the part lies. The mean over a group G of mirror images
and turns,

.. math::
    y(x) = \frac{1}{|G|} \sum_{g \in G} g^{-1} f(g\,x),

has less of both: :math:`y(g\,x) = g\,y(x)`, so that a good part that lies another way has features that
training has seen (symmetrisation, Puny et al., Frame Averaging, ICLR 2022; a test-time augmentation of
features). What it loses is the difference between a place and its image under G. It costs |G| forward passes
and nothing after them.

Shapes: B batch, S T the sides of a picture, C H W a tap's map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from nfbmr.config import Symmetry


class Move(NamedTuple):
    """A member of a group: rows and columns exchanged or not, then axes flipped."""

    axes: tuple[int, ...] = ()
    transposed: bool = False

    def of(self, x: Tensor) -> Tensor:
        """A picture, moved: the last two axes of (..., S, T)."""
        return (x.transpose(-2, -1) if self.transposed else x).flip(self.axes)

    def back(self, y: Tensor) -> Tensor:
        """A map of a moved picture, over the picture as it was."""
        y = y.flip(self.axes)
        return y.transpose(-2, -1) if self.transposed else y


_HALF_TURN = Move((-2, -1))
_FLIPS = (Move(), Move((-1,)), Move((-2,)), _HALF_TURN)
GROUPS: dict[Symmetry, tuple[Move, ...]] = {
    "none": (Move(),),
    "mirror": (Move(), Move((-1,))),
    "flips": _FLIPS,
    "turns": (Move(), _HALF_TURN, Move((-1,), transposed=True), Move((-2,), transposed=True)),
    "square": (*_FLIPS, *(move._replace(transposed=True) for move in _FLIPS)),
}
"""Each group by its name; the picture as it is comes first."""


def symmetrized(
    forward: Callable[[Tensor], tuple[Tensor, ...]], x_B3ST: Tensor, symmetry: Symmetry
) -> tuple[Tensor, ...]:
    """The mean of a network's maps over a picture's images under a group, each map moved back.

    Args:
        forward: Gives the map of every tap, (B, C, H, W).
        x_B3ST: Pictures; squares where the group turns them.
        symmetry: A key of :data:`GROUPS`; one forward pass for each member.

    Returns:
        A (B, C, H, W) a tap, summed in float32, in the type of `forward`'s.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 2.0]]]])
        >>> symmetrized(lambda x: (x.cumsum(-1),), x, "mirror")[0]
        tensor([[[[2.0000, 2.5000]]]])
    """
    _, *others = GROUPS[symmetry]
    maps = forward(x_B3ST)
    if not others:
        return maps
    totals = [y.float() for y in maps]
    for move in others:
        moved = forward(move.of(x_B3ST))
        totals = [total + move.back(y).float() for total, y in zip(totals, moved, strict=True)]
    count = len(GROUPS[symmetry])
    return tuple((total / count).to(y.dtype) for total, y in zip(totals, maps, strict=True))

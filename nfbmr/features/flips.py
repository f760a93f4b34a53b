r"""Features averaged over an image and its mirror images.

A convolutional network sees a part and its mirror image differently: a position's features depend on how
edges fall on the network's grid, and on which way the part lies. The mean over a group G of flips,

.. math::
    y(x) = \frac{1}{|G|} \sum_{g \in G} g^{-1} f(g\,x),

has less of both: :math:`y(g\,x) = g\,y(x)`, so that a good part that lies the other way round has features
that training has seen (symmetrisation; Puny et al., Frame Averaging, ICLR 2022). What it loses is the
difference between a place and its mirror image. It costs |G| forward passes and nothing after them.

Shapes: B batch, S T the sides of a picture, C H W a tap's map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from nfbmr.config import Flips


class Mirror(NamedTuple):
    """A member of a group of mirror images: rows and columns exchanged or not, then axes flipped."""

    axes: tuple[int, ...] = ()
    transposed: bool = False

    def of(self, x: Tensor) -> Tensor:
        """A picture, mirrored: the last two axes of (..., S, T)."""
        return (x.transpose(-2, -1) if self.transposed else x).flip(self.axes)

    def back(self, y: Tensor) -> Tensor:
        """A map of a mirrored picture, over the picture as it was."""
        y = y.flip(self.axes)
        return y.transpose(-2, -1) if self.transposed else y


_FLIPPED = tuple(map(Mirror, ((), (-1,), (-2,), (-2, -1))))
MIRRORS: dict[Flips, tuple[Mirror, ...]] = {
    "none": _FLIPPED[:1],
    "horizontal": _FLIPPED[:2],
    "both": _FLIPPED,
    "square": (*_FLIPPED, *(mirror._replace(transposed=True) for mirror in _FLIPPED)),
}
"""Each group by its name; the picture as it is comes first."""


def flip_averaged(
    forward: Callable[[Tensor], tuple[Tensor, ...]], x_B3ST: Tensor, flips: Flips
) -> tuple[Tensor, ...]:
    """The mean of a network's maps over a picture's mirror images, each map turned back.

    Args:
        forward: Gives the map of every tap, (B, C, H, W).
        x_B3ST: Pictures.
        flips: ``none``, ``horizontal`` (two passes), ``both`` (four), or ``square`` (eight: quarter turns as
            well, of square pictures).

    Returns:
        A (B, C, H, W) a tap, summed in float32, in the type of `forward`'s.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 2.0]]]])
        >>> flip_averaged(lambda x: (x.cumsum(-1),), x, "horizontal")[0]
        tensor([[[[2.0000, 2.5000]]]])
    """
    _, *others = MIRRORS[flips]
    maps = forward(x_B3ST)
    if not others:
        return maps
    totals = [y.float() for y in maps]
    for mirror in others:
        mirrored = forward(mirror.of(x_B3ST))
        totals = [total + mirror.back(y).float() for total, y in zip(totals, mirrored, strict=True)]
    return tuple((total / len(MIRRORS[flips])).to(y.dtype) for total, y in zip(totals, maps, strict=True))

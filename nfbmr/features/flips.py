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

from torch import Tensor

from nfbmr.config import Flips

AXES: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}
"""The axes that each member of the group flips; each is its own inverse."""


def flip_averaged(
    forward: Callable[[Tensor], tuple[Tensor, ...]], x_B3ST: Tensor, flips: Flips
) -> tuple[Tensor, ...]:
    """The mean of a network's maps over a picture's flips, each map flipped back.

    Args:
        forward: Gives the map of every tap, (B, C, H, W).
        x_B3ST: Pictures.
        flips: ``none``, ``horizontal`` (two passes), or ``both`` (four).

    Returns:
        A (B, C, H, W) a tap, summed in float32, in the type of `forward`'s.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 2.0]]]])
        >>> flip_averaged(lambda x: (x.cumsum(-1),), x, "horizontal")[0]
        tensor([[[[2.0000, 2.5000]]]])
    """
    members = AXES[flips]
    if len(members) == 1:
        return forward(x_B3ST)
    maps = forward(x_B3ST)
    totals = [y.float() for y in maps]
    for axes in members[1:]:
        totals = [
            total + y.flip(axes).float() for total, y in zip(totals, forward(x_B3ST.flip(axes)), strict=True)
        ]
    return tuple((total / len(members)).to(y.dtype) for total, y in zip(totals, maps, strict=True))

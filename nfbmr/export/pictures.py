r"""What happens to pixels before a backbone, as operators of a graph.

The product decodes with Pillow and resizes with torch's 8-bit kernel (:mod:`nfbmr.data.pictures`); neither
is an operator of ONNX. Here are the same steps on float values that are whole numbers from 0 to 255: bicubic
antialiased resizing rounds after each of its two passes, as the 8-bit kernel does, and a turned square is
sampled as Pillow samples it: both to the last bit. Photometric changes differ by a level in a few pixels of a
thousand.

Shapes: B batch, V views, H W the image, S T the height and width that a network sees.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nfbmr.data.pictures import Photometric

CUBIC = -0.5
"""Of the bicubic kernel, as Pillow and torch have it where they antialias."""
BLOCK = 32
"""Rows of a resized image that are computed from the same rows of the image."""


def levels(x_B3HW: Tensor) -> Tensor:
    """Values as an 8-bit image can hold them."""
    return x_B3HW.round().clamp(0.0, 255.0)


def exposed(x_B3HW: Tensor, photometric: Photometric) -> Tensor:
    """:func:`nfbmr.data.pictures.exposed` of whole values from 0 to 255."""
    if photometric == "none":
        return x_B3HW
    red, green, blue = x_B3HW.unbind(1)
    # Pillow's grey: ITU-R 601-2 in units of 1 / 65536, rounded; whole numbers below 2^24 are exact here.
    grey_BHW = ((red * 19595 + green * 38470 + blue * 7471 + 32768) / 65536).floor()
    mean_B = grey_BHW.mean((1, 2))
    if photometric == "brightness":
        gain_B = (127.5 / mean_B.clamp(min=1.0)).clamp(max=8.0)
        return levels(gain_B[:, None, None, None] * x_B3HW)
    spread_B = (grey_BHW - mean_B[:, None, None]).square().mean((1, 2)).sqrt()
    gain_B = 0.2 * 255 / spread_B.clamp(min=2.0)
    shift_B = 127.5 - gain_B * mean_B
    return levels(gain_B[:, None, None, None] * x_B3HW + shift_B[:, None, None, None])


def resized(x_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """:func:`nfbmr.data.pictures.resized` of whole values from 0 to 255, to the last bit: (B, 3, S, T)."""
    wide_B3WH = _along(x_B3HW.transpose(2, 3), size[1])
    return _along(wide_B3WH.transpose(2, 3), size[0])


def _along(x_BCNM: Tensor, size: int) -> Tensor:
    r"""One of the two passes, over the rows: (B, C, N, M) to (B, C, S, M).

    What torch's 8-bit kernel does: the cubic kernel k, a = -1/2, stretched by the reduction r = N / S where
    there is one, gives row j of the image a weight in row i of the result,

    .. math:: w_{ij} \propto k\big((j + \tfrac12 - (i + \tfrac12) r) / \max(r, 1)\big)

    adding up to 1 over j, which is rounded to a whole number of 2^-p, the finest for which the largest fits
    16 bits; the sum is rounded to a whole level. Rows of the result are worked off in blocks, each with the
    rows that it sees.
    Weights are split in two bytes: every product and sum is then a whole number that float32 holds.
    """
    count, blocks = x_BCNM.shape[2], -(-size // BLOCK)
    whole = torch.full((), count, dtype=torch.float64)
    ratio = whole / size
    stretch = ratio.clamp(min=1.0)
    middle_bG = (torch.arange(blocks * BLOCK, dtype=torch.float64).view(blocks, BLOCK) + 0.5) * ratio
    first_b1 = (middle_bG[:, :1] - 2.0 * stretch).floor()
    length = ((BLOCK + 4) * count) // size + 8  # rows that a block sees, and some to spare
    rows_bL = first_b1 + torch.arange(length, dtype=torch.float64)
    t_bGL = ((rows_bL[:, None] + 0.5 - middle_bG[:, :, None]) / stretch).abs()
    inside_b1L = ((rows_bL >= 0) & (rows_bL < whole))[:, None]
    weights_bGL = torch.where(inside_b1L, _cubic(t_bGL), 0.0)
    weights_bGL = weights_bGL / weights_bGL.sum(2, keepdim=True).clamp(min=0.5)
    largest = weights_bGL.flatten()[: (size * length)].max()
    unit = torch.exp2((torch.log2(32767.5 / largest).ceil() - 1.0).clamp(max=22.0))
    steps_bGL = weights_bGL * unit
    steps_bGL = torch.where(steps_bGL < 0, (steps_bGL - 0.5).ceil(), (steps_bGL + 0.5).floor())
    upper_bGL = (steps_bGL / 256).floor()
    lower_bGL = steps_bGL - 256 * upper_bGL
    chosen_N = rows_bL.clamp(min=0.0).minimum(whole - 1.0).long().flatten()
    x_BCbLM = torch.unflatten(x_BCNM.index_select(2, chosen_N), 2, (blocks, length))
    sums_BCbGM = (upper_bGL.float() @ x_BCbLM).double() * 256 + (lower_bGL.float() @ x_BCbLM).double()
    levels_BCSM = (sums_BCbGM / unit + 0.5).floor().clamp(0.0, 255.0).float().flatten(2, 3)
    return levels_BCSM.narrow(2, 0, size)


def _cubic(t: Tensor) -> Tensor:
    """The kernel at distances t >= 0, a = -1/2 as where torch and Pillow antialias."""
    near = ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1
    far = (((t - 5) * t + 8) * t - 4) * CUBIC
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


class Turned(nn.Module):
    """A square turned by each of `parts` of a full turn, itself first: (B, C, S, S) to (B V, C, S, S).

    As Pillow turns 8-bit images, to the last bit: it interpolates in double precision and cuts fractions off.
    With the upper left pixel a, the others b, c and d, and the fractions X and Y of a position,

    .. math:: a + (b - a) X + (c - a) Y + (a - b - c + d) X Y.

    X, Y and their product are constants, each the sum of three float32: a multiple of :math:`2^{-14}`, one of
    :math:`2^{-28}`, and the rest. Steps between pixels are whole numbers up to 510, so sums of the first two
    kinds are exact in float32, in any order, and the rest only matters where these cancel. OpenVINO has no
    double precision and finds the same pixels. All views are gathered at once, so that a graph has a few
    operators for them, however many there are. The views of an image are next to each other.

    Args:
        parts: V.
        side: S.
    """

    def __init__(self, parts: int, side: int) -> None:
        super().__init__()
        turns = torch.tensor([_turn(360.0 * k / parts, side) for k in range(parts)], dtype=torch.float64)
        turns_V6, middle_S = turns[:, :, None, None], torch.arange(side, dtype=torch.float64) + 0.5
        across_VSS = turns_V6[:, 0] * middle_S + turns_V6[:, 1] * middle_S[:, None] + turns_V6[:, 2]
        down_VSS = turns_V6[:, 3] * middle_S + turns_V6[:, 4] * middle_S[:, None] + turns_V6[:, 5]
        seen_VSS = (across_VSS >= 0) & (across_VSS < side) & (down_VSS >= 0) & (down_VSS < side)
        across_Q, down_Q = across_VSS.flatten() - 0.5, down_VSS.flatten() - 0.5
        left_Q, upper_Q = across_Q.floor(), down_Q.floor()
        x_Q, y_Q = across_Q - left_Q, down_Q - upper_Q
        self.register_buffer("seen", seen_VSS.flatten(), persistent=False)
        self.register_buffer("left", left_Q.to(torch.int32), persistent=False)
        self.register_buffer("upper", upper_Q.to(torch.int32), persistent=False)
        self.register_buffer("shares", _in_three(torch.stack([x_Q, y_Q, x_Q * y_Q])), persistent=False)
        self._side = side

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """All views; Q = V S S."""
        side, flat_BCP = self._side, x_BCSS.flatten(2)
        left_Q, upper_Q = self.get_buffer("left"), self.get_buffer("upper")

        def at(right: int, lower: int) -> Tensor:
            column_Q, row_Q = ((left_Q + right).clamp(0, side - 1), (upper_Q + lower).clamp(0, side - 1))
            return flat_BCP.index_select(2, row_Q * side + column_Q)

        a_BCQ, b_BCQ, c_BCQ, d_BCQ = at(0, 0), at(1, 0), at(0, 1), at(1, 1)
        steps = (b_BCQ - a_BCQ, c_BCQ - a_BCQ, a_BCQ - b_BCQ - c_BCQ + d_BCQ)

        def of(shares_3Q: Tensor) -> Tensor:
            return steps[0] * shares_3Q[0] + steps[1] * shares_3Q[1] + steps[2] * shares_3Q[2]

        coarse_BCQ, fine_BCQ, rest_BCQ = (of(share_3Q) for share_3Q in self.get_buffer("shares"))
        coarse_BCQ = a_BCQ + coarse_BCQ
        level_BCQ = coarse_BCQ.floor()
        above_BCQ = coarse_BCQ - level_BCQ
        # What is near a level is compared with it: added to it, small numbers would be rounded away.
        reaches_BCQ = (fine_BCQ - (1.0 - above_BCQ)) + rest_BCQ >= 0
        misses_BCQ = (fine_BCQ + above_BCQ) + rest_BCQ < 0
        turned_BCQ = level_BCQ + reaches_BCQ.float() - misses_BCQ.float()
        views_BCVSS = torch.unflatten(turned_BCQ * self.get_buffer("seen").float(), 2, (-1, side, side))
        return views_BCVSS.transpose(1, 2).flatten(0, 1)


def _in_three(x: Tensor) -> Tensor:
    """Numbers from 0 to 1 in double precision as sums of three in float32: (3, ...)."""
    coarse = (x * 2.0**14).round() / 2.0**14
    fine = ((x - coarse) * 2.0**28).round() / 2.0**28
    return torch.stack([coarse, fine, x - coarse - fine]).float()


def _turn(degrees: float, side: int) -> tuple[float, ...]:
    """Where a position of the turned square lies in the square itself: a x + b y + c and d x + e y + f.

    The numbers are those of :meth:`PIL.Image.Image.rotate`, which turns about the middle and rounds to 15
    digits.
    """
    angle = -math.radians(degrees % 360.0)
    a, b = round(math.cos(angle), 15), round(math.sin(angle), 15)
    d, e, middle = -b, a, side / 2
    return a, b, a * -middle + b * -middle + middle, d, e, d * -middle + e * -middle + middle


class Normalised(nn.Module):
    """Whole values from 0 to 255 to what a backbone was trained on: each channel by mean and deviation.

    Args:
        mean: Mean of values from 0 to 1.
        std: Their standard deviation.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        deviation = np.asarray(std, dtype=np.float64)
        scale, shift = 1.0 / (255.0 * deviation), -np.asarray(mean, dtype=np.float64) / deviation
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)).view(-1, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift.astype(np.float32)).view(-1, 1, 1))

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """``x * scale + shift``, as :func:`nfbmr.data.pictures.normalised`."""
        return x_B3SS * self.get_buffer("scale") + self.get_buffer("shift")

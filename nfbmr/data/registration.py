"""Laying one picture on another, and asking in how many places the two then agree.

A view A maps the coordinates of one picture to those of another, both from -0.5 to 0.5 over height and width,
the other first turned by quarters and mirrored. Known views are tried roughly; the best is then refined from
shifts of single blocks by weighted least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.fingerprints import MAP, SIDE, Bands, Field, Fingerprint, spectrum

_Matrix = NDArray[np.float64]

COARSE = 16
"""Positions a side of the grid on which pictures are laid on each other first."""
NEAR = 6
"""Pixels of a fingerprint by which details may be shifted against each other."""
BLOCK = 24
"""Pixels a side of the blocks whose agreement is counted."""
STEP = 16
"""Pixels between the corners of neighbouring blocks, which overlap."""
PLACE = 16
"""Pixels of the sides of the blocks that are asked whether they agree."""

_FEWEST_BLOCKS = 6
_LEAST_FIT = 0.4
_LEAST_EXACT_FIT = 0.25
_SOME, _MUCH = 0.05, 0.4


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How a picture may lie in another.

    Attributes:
        quarters: Turns by 90 degrees.
        mirrored: Whether it is mirrored before that.
        matrix_23: Coordinates of the one to those of the other, turned.
    """

    quarters: int
    mirrored: bool
    matrix_23: _Matrix

    def turned(self, x_HW: Field) -> Field:
        """A picture turned by quarters and mirrored."""
        return np.ascontiguousarray(np.rot90(x_HW[:, ::-1] if self.mirrored else x_HW, self.quarters))

    def moved(self, shift_2: _Matrix) -> View:
        """The view that shows the same further on, by a share of height and width."""
        matrix_23 = self.matrix_23.copy()
        matrix_23[:, 2] -= matrix_23[:, :2] @ shift_2
        return View(self.quarters, self.mirrored, matrix_23)

    def coordinates(self) -> _Matrix:
        """(3, 3) from the coordinates of a picture that is turned and mirrored to those of the picture."""
        turn_33 = np.linalg.matrix_power(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), self.quarters)
        matrix_33: _Matrix = np.diag([1.0, -1.0 if self.mirrored else 1.0, 1.0]) @ turn_33
        return matrix_33


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two pictures agree when one is laid on the other.

    Attributes:
        worst: Mean correlation of their details in the quarter of the places that agree least, -1 to 1.
        places: Blocks with structure of their own that could be compared.
    """

    worst: float
    places: int


NONE = Agreement(0.0, 0)
"""The agreement of pictures that cannot be laid on each other."""


@cache
def views() -> tuple[View, ...]:
    """Views that are tried: all quarter turns and mirrorings, up to 7 degrees, crops of up to an eighth."""
    made: list[View] = []
    for mirrored in (False, True):
        for quarters in range(4):  # the same views in each: `sampling` relies on it
            plain: list[tuple[float, float, float, float, float]] = [
                (degrees, zoom, zoom, 0.0, 0.0)
                for degrees in range(-6, 7, 2)
                for zoom in (1.0, 0.95, 0.9, 0.85)
            ]
            for y, x in ((0.94, 0.94), (0.94, 1.0), (1.0, 0.94), (0.88, 0.94), (0.94, 0.88), (0.88, 0.88)):
                plain += [
                    (0, y, x, dy, dx)
                    for dy in sorted({-(1 - y) / 2, (1 - y) / 2})
                    for dx in sorted({-(1 - x) / 2, (1 - x) / 2})
                ]
            plain += [(0, 1.08, 1.08, 0, 0), (0, 1.08, 1, 0, 0), (0, 1, 1.08, 0, 0)]
            made += [View(quarters, mirrored, _matrix(*numbers)) for numbers in plain]
    return tuple(made)


@cache
def sampling() -> Any:
    """Sparse (V * 256, 1024): maps (M, M) to what each view shows of them, 16 x 16 and faded."""
    from scipy.sparse import csr_matrix, vstack

    views_of_one = len(views()) // 8
    upright = vstack([_samples(view.matrix_23) for view in views()[:views_of_one]]).tocsr()
    place_MM = np.arange(MAP * MAP, dtype=np.float32).reshape(MAP, MAP)
    made = []
    for view in views()[::views_of_one]:
        index_P = view.turned(place_MM).astype(np.int32).ravel()
        made.append(csr_matrix((upright.data, index_P[upright.indices], upright.indptr), shape=upright.shape))
    return vstack(made).tocsr().astype(np.float32)


def coarse_match(test: Fingerprint, view: View, train_SF: NDArray[np.complex64]) -> tuple[float, View]:
    """Correlation of details under a view, the best over shifts of up to `NEAR` pixels, and its view."""
    from scipy.fft import irfft2

    seen_SF = spectrum(warped(view.turned(test.detail_SS), view.matrix_23, (SIDE, SIDE), 0.0))
    near = np.r_[0 : NEAR + 1, SIDE - NEAR : SIDE]
    found_NN = irfft2(seen_SF.conj() * train_SF, s=(SIDE, SIDE))[near[:, None], near]
    y, x = np.unravel_index(int(found_NN.argmax()), found_NN.shape)
    shift_2 = np.array([(near[i] + SIDE // 2) % SIDE - SIDE // 2 for i in (y, x)]) / SIDE
    return float(found_NN.max()), view.moved(shift_2)


def laid_on(test: Bands, train: Bands, view: View, *, exact: bool = False) -> tuple[View, Agreement]:
    """The refined view of a test picture in a training picture, and how far the two agree under it.

    Args:
        test: The picture that is laid on the other.
        train: The other.
        view: Where it lies, roughly.
        exact: Whether it is known to a few pixels. The contours, which may let it slide, are then not asked.
    """
    shape_HW, detail_HW = view.turned(test.shape_HW), view.turned(test.detail_HW)
    matrix_23 = view.matrix_23
    if exact:
        matrix_23, fit = refined(detail_HW, train.detail_HW, matrix_23, 3)
    else:
        matrix_23, _ = refined(shape_HW, train.shape_HW, matrix_23, 6)
        matrix_23, fit = refined(shape_HW, train.shape_HW, matrix_23, 3)
    if fit < (_LEAST_EXACT_FIT if exact else _LEAST_FIT):  # they do not meet: no place will agree
        return View(view.quarters, view.mirrored, matrix_23), NONE
    matrix_23, _ = refined(detail_HW, train.detail_HW, matrix_23, 2)
    laid = View(view.quarters, view.mirrored, matrix_23)
    seen_HW = warped(detail_HW, matrix_23, train.detail_HW.shape, np.nan)
    values = places_of(seen_HW, train.detail_HW, PLACE)
    if len(values) == 0:
        return laid, NONE
    return laid, Agreement(float(values[: max(1, len(values) // 4)].mean()), len(values))


def warped(x_HW: Field, matrix_23: _Matrix, shape: tuple[int, ...], outside: float) -> Field:
    """What a view shows of a picture, on a grid of another shape."""
    from scipy.ndimage import affine_transform

    inner_2, outer_2 = np.array(x_HW.shape, float), np.array(shape, float)
    matrix_22 = matrix_23[:, :2] * inner_2[:, None] / outer_2
    first_2 = matrix_23 @ np.array([0.5 / outer_2[0] - 0.5, 0.5 / outer_2[1] - 0.5, 1.0])
    offset_2 = (first_2 + 0.5) * inner_2 - 0.5
    seen: Field = affine_transform(
        x_HW, matrix_22, offset_2, output_shape=shape, order=1, cval=outside, prefilter=False
    )
    return seen


def _matrix(degrees: float, y: float, x: float, dy: float, dx: float) -> _Matrix:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[y * c, -y * s, dy], [x * s, x * c, dx]])


def _samples(matrix_23: _Matrix) -> Any:
    """What a view shows of each pixel of a map, sparse (256, 1024): bilinear, four points a pixel, faded."""
    from scipy.sparse import coo_matrix

    centre_C = (np.arange(COARSE) + 0.5) / COARSE - 0.5
    y_CC, x_CC = np.meshgrid(centre_C, centre_C, indexing="ij")
    at_2CC = np.einsum("ij,jyx->iyx", matrix_23, np.stack([y_CC, x_CC, np.ones_like(y_CC)]))
    fade_C = np.sqrt(np.hanning(COARSE + 2)[1:-1])
    fade_CC = fade_C[:, None] * fade_C / 4
    pixel_CC = np.arange(COARSE * COARSE).reshape(COARSE, COARSE)
    weights, rows, columns = [], [], []
    for oy, ox in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
        y, x = (at_2CC[0] + 0.5) * MAP - 0.5 + oy, (at_2CC[1] + 0.5) * MAP - 0.5 + ox
        y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            inside = (y0 + dy >= 0) & (y0 + dy < MAP) & (x0 + dx >= 0) & (x0 + dx < MAP)
            part = np.abs(1 - dy - (y - y0)) * np.abs(1 - dx - (x - x0)) * fade_CC
            weights.append(part[inside])
            rows.append(pixel_CC[inside])
            columns.append(((y0 + dy) * MAP + x0 + dx)[inside])
    where = (np.concatenate(rows), np.concatenate(columns))
    return coo_matrix((np.concatenate(weights), where), shape=(COARSE * COARSE, MAP * MAP))


@cache
def _window(block: int) -> Any:
    hann_B = np.hanning(block + 2)[1:-1].astype(np.float32)
    return hann_B[:, None] * hann_B


def _blocks(x_HW: Field, block: int, step: int) -> Field:
    windows = np.lib.stride_tricks.sliding_window_view(x_HW, (block, block))[::step, ::step]
    return np.asarray(windows.reshape(-1, block, block))


def refined(
    test_HW: Field,
    train_HW: Field,
    matrix_23: _Matrix,
    reach: int,
    *,
    block: int = BLOCK,
    step: int = STEP,
) -> tuple[_Matrix, float]:
    """A better view from shifts of single blocks, and the median of their correlations; 0 if few agree."""
    from scipy.fft import irfft2, rfft2

    height, width = train_HW.shape
    if min(height, width) < block:
        return matrix_23, 1.0
    seen_HW = warped(test_HW, matrix_23, (height, width), np.nan)
    inside_HW = np.isfinite(seen_HW)
    a_NBB = _blocks(np.where(inside_HW, seen_HW, 0), block, step) * _window(block)
    b_NBB = _blocks(train_HW, block, step) * _window(block)
    norm_N = np.sqrt((a_NBB**2).sum((1, 2)) * (b_NBB**2).sum((1, 2)))
    near = np.r_[block - reach : block, 0 : reach + 1]
    found_NRR = irfft2(rfft2(a_NBB).conj() * rfft2(b_NBB), s=(block, block))[:, near[:, None], near]
    found_NRR = found_NRR / np.maximum(norm_N, 1e-3)[:, None, None]
    side = 2 * reach + 1
    place_N = found_NRR.reshape(len(found_NRR), -1).argmax(1)
    y_N, x_N = place_N // side, place_N % side
    peak_N = found_NRR[np.arange(len(found_NRR)), y_N, x_N]
    whole_N = (_blocks(inside_HW.astype(np.float32), block, step).mean((1, 2)) > 0.8) & (norm_N > 1.0)
    good_N = whole_N & (peak_N > 0.2) & (y_N % (side - 1) > 0) & (x_N % (side - 1) > 0)
    if good_N.sum() < _FEWEST_BLOCKS:
        return matrix_23, 0.0
    i = np.nonzero(good_N)[0]
    y, x, peak = y_N[i], x_N[i], peak_N[i]
    dy = y - reach + _vertex(found_NRR[i, y - 1, x], peak, found_NRR[i, y + 1, x])
    dx = x - reach + _vertex(found_NRR[i, y, x - 1], peak, found_NRR[i, y, x + 1])
    columns = (width - block) // step + 1
    at_y = ((i // columns) * step + block / 2) / height - 0.5
    at_x = ((i % columns) * step + block / 2) / width - 0.5
    ones = np.ones_like(at_y)
    goal = np.stack([at_y - dy / height, at_x - dx / width, ones], 1) @ matrix_23.T
    better_23 = _fitted(np.stack([at_y, at_x, ones], 1), goal, peak.astype(float) ** 2, max(height, width))
    fit = float(np.median(peak_N[whole_N]))
    return (better_23, fit) if np.abs(better_23 - matrix_23).max() < 0.15 else (matrix_23, fit)


def _vertex(before: Field, peak: Field, after: Field) -> Field:
    """Where the parabola through three values has its top, from -0.5 to 0.5."""
    top: Field = np.clip(0.5 * (before - after) / np.minimum(before - 2 * peak + after, -1e-6), -0.5, 0.5)
    return top


def _fitted(at_N3: _Matrix, goal_N2: _Matrix, weight_N: _Matrix, side: int) -> _Matrix:
    """Weighted least squares in which blocks that are a pixel or more off count little."""
    w_N = weight_N
    for _ in range(4):
        solved = np.linalg.lstsq(at_N3 * w_N[:, None], goal_N2 * w_N[:, None], rcond=1e-4)[0]
        w_N = weight_N / (1 + (np.linalg.norm(at_N3 @ solved - goal_N2, axis=1) * side) ** 2)
    return np.asarray(solved.T)


def places_of(
    seen_HW: Field, train_HW: Field, place: int, *, least: float = _SOME, much: float = _MUCH
) -> Field:
    """Correlations of two pictures place by place, lowest first, in places that can tell.

    Args:
        seen_HW: What a view shows of one, NaN where it shows nothing.
        train_HW: The other.
        place: Pixels of a place's sides.
        least: Mean square that both have in a place that can tell,
        much: or that one of the two has, the other being empty there.
    """
    inside_HW = np.isfinite(seen_HW)
    m_N = _places(inside_HW.astype(np.float32), place).mean(1)
    a_NP, b_NP = _places(np.where(inside_HW, seen_HW, 0), place), _places(train_HW, place)
    a_NP, b_NP = a_NP - a_NP.mean(1, keepdims=True), b_NP - b_NP.mean(1, keepdims=True)
    a_N, b_N = (a_NP**2).mean(1), (b_NP**2).mean(1)
    telling_N = (m_N > 0.95) & ((np.minimum(a_N, b_N) > least) | (np.maximum(a_N, b_N) > much))
    correlation_N: Field = (a_NP * b_NP).mean(1) / np.sqrt(np.maximum(a_N * b_N, 1e-6))
    return np.sort(correlation_N[telling_N])


def _places(x_HW: Field, place: int) -> Field:
    """Blocks of a picture (N, P), as many as it holds about its middle."""
    rows, columns = (max(1, n // place) for n in x_HW.shape)
    y, x = (x_HW.shape[0] - rows * place) // 2, (x_HW.shape[1] - columns * place) // 2
    part_HW = x_HW[y : y + rows * place, x : x + columns * place]
    return np.asarray(
        part_HW.reshape(rows, place, columns, place).swapaxes(1, 2).reshape(rows * columns, place * place)
    )

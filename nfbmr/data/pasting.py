"""Drawing one synthetic defect onto an image.

Three kinds, each a spread from barely visible to plain, because a validation set on which everything scores
1.0 chooses nothing:

=========  ==================================================================================================
cutpaste   a rectangle or a thin scar cut from another image (or elsewhere in the same), its brightness and
           contrast jittered (Li et al., CutPaste, CVPR 2021)
blend      a noise-shaped region (as in DRAEM, Zavrtanik et al., ICCV 2021) that takes another texture, goes
           dark or bright like a pit or a stain, or loses its own fine structure like a worn place
scratch    a thin wandering line, dark or bright, like a crack
=========  ==================================================================================================

Contrasts are relative to the brightness where the defect lies, so that a dark exposure gets the defect that
a bright one would; small defects are stronger than large ones, as those that anyone would call a defect are.
Extents are 1.2 to 30 % of the image's side on a logarithmic scale, as many small as large: defects of single
parts are a thousandth to a hundredth of a picture, and whatever is too coarse for them has to be told from
what is not. One blend in five is larger, up to 60 %, because worn and uneven places of real parts are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from nfbmr.data.noise import fractal_noise

_Pixels = NDArray[np.uint8]
_Mask = NDArray[np.bool_]
_Array = NDArray[np.float64]
Kind = Literal["cutpaste", "blend", "scratch"]
"""How a synthetic defect is made."""

SMALLEST, LARGEST, WIDEST = 0.012, 0.30, 0.60
"""Sides of a defect as shares of the image's: the least, the largest of most, the largest of all."""
_OPACITY = (0.35, 1.0)
_PLACES, _SURROUNDINGS = 16, 0.05
_LEAST_CHANGE = 6.0  # grey levels, on average over the defect: below that it is JPEG noise


@dataclass(frozen=True)
class _Patch:
    """What lies on the image: `content_HWC` seen with the opacity `alpha_HW`, its corner at (top, left)."""

    top: int
    left: int
    alpha_HW: _Array
    content_HWC: _Array


def paste_defect(pixels_HWC: _Pixels, donor_HWC: _Pixels, kind: Kind, seed: int) -> tuple[_Pixels, _Mask]:
    """Draw one defect.

    Args:
        pixels_HWC: The image, of any size, with C = 1 or 3 channels; it is not changed.
        donor_HWC: Another image with as many channels, of any size, from which textures are taken.
        kind: ``"cutpaste"``, ``"blend"`` or ``"scratch"``.
        seed: Together with the images it determines the result.

    Returns:
        The new image (H, W, C) and the mask (H, W) of the defect. Some pixels under the mask have changed,
        none far from it has.

    Example:
        >>> grey = np.full((32, 32, 1), 120, np.uint8)
        >>> defective, mask = paste_defect(grey, grey, "scratch", seed=3)
        >>> bool(mask.any()), bool((defective != grey).any())
        (True, True)
    """
    rng = np.random.default_rng([seed, list(_DRAW).index(kind)])
    patch = _DRAW[kind](rng, pixels_HWC, donor_HWC)
    height, width = patch.alpha_HW.shape
    box = np.s_[patch.top : patch.top + height, patch.left : patch.left + width]
    old_HWC = pixels_HWC[box].astype(np.float64)
    new_HWC = np.clip(old_HWC + patch.alpha_HW[..., None] * (patch.content_HWC - old_HWC), 0, 255)
    result = pixels_HWC.copy()
    result[box] = np.rint(_visible(rng, old_HWC, new_HWC, patch.alpha_HW)).astype(np.uint8)
    mask = np.zeros(pixels_HWC.shape[:2], dtype=np.bool_)
    mask[box] = patch.alpha_HW > 0.3 * patch.alpha_HW.max()
    return result, mask


def _visible(rng: np.random.Generator, old_HWC: _Array, new_HWC: _Array, alpha_HW: _Array) -> _Array:
    """Make an invisible defect, e.g. a patch of a plain surface on itself, just visible."""
    change = float((np.abs(new_HWC - old_HWC).mean(axis=2) * alpha_HW).sum() / alpha_HW.sum())
    if change >= _LEAST_CHANGE:
        return new_HWC
    level, trend = float(old_HWC.mean()), float((new_HWC - old_HWC).mean())
    # onwards, so that nothing cancels out; where nothing changes yet, away from the nearer end of the range
    onwards = trend > 0 if abs(trend) > 0.5 else level < 64 or (level < 192 and rng.random() < 0.5)
    up = level < 235 and (onwards or level < 20)
    shift = (_LEAST_CHANGE + 4.0) * (1 if up else -1)
    return np.asarray(np.clip(new_HWC + (alpha_HW / alpha_HW.max() * shift)[..., None], 0, 255))


def _side(pixels_HWC: _Pixels) -> float:
    """The image's side in pixels, as a geometric mean."""
    return float(np.sqrt(pixels_HWC.shape[0] * pixels_HWC.shape[1]))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _place(
    rng: np.random.Generator, pixels_HWC: _Pixels, height: float, width: float
) -> tuple[int, int, int, int]:
    """A box of about this size that lies within the image: top, left, height, width.

    Of a few places drawn at random one is taken in proportion to the contrast around it: where a part lies on
    a plain ground, its defects are on the part. On a texture all places are alike.
    """
    limits = pixels_HWC.shape[:2]
    h, w = (int(np.clip(round(n), 1, limit)) for n, limit in zip((height, width), limits, strict=True))
    places = [
        tuple(int(rng.integers(0, limit - n + 1)) for n, limit in zip((h, w), limits, strict=True))
        for _ in range(_PLACES)
    ]
    reach = round(_SURROUNDINGS * _side(pixels_HWC))
    contrasts = np.array([_contrast(pixels_HWC, top, left, h, w, reach) for top, left in places])
    top, left = places[rng.choice(_PLACES, p=(contrasts + 1e-3) / (contrasts + 1e-3).sum())]
    return top, left, h, w


def _contrast(pixels_HWC: _Pixels, top: int, left: int, height: int, width: int, reach: int) -> float:
    """Standard deviation of the grey values, 0 to 255, in a box and up to `reach` pixels around it."""
    rows = slice(max(0, top - reach), top + height + reach)
    columns = slice(max(0, left - reach), left + width + reach)
    return float(pixels_HWC[rows, columns].mean(axis=2, dtype=np.float32).std())


def _crop(rng: np.random.Generator, source_HWC: _Pixels, height: int, width: int) -> _Array:
    """A random crop, mirrored or turned by half; sources that are too small are mirrored at their borders."""
    missing = [max(0, n - have) for n, have in zip((height, width), source_HWC.shape, strict=False)]
    if any(missing):
        source_HWC = np.pad(source_HWC, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top = int(rng.integers(0, source_HWC.shape[0] - height + 1))
    left = int(rng.integers(0, source_HWC.shape[1] - width + 1))
    crop = source_HWC[top : top + height, left : left + width]
    crop = crop[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]
    return crop.astype(np.float64)


def _foreign(rng: np.random.Generator, old_HWC: _Array, pixels_HWC: _Pixels, donor_HWC: _Pixels) -> _Array:
    """Texture from elsewhere, brought most of the way to the brightness of the place it goes to."""
    height, width = old_HWC.shape[:2]
    source = donor_HWC if rng.random() < 0.6 else pixels_HWC
    # a quarter turn shows where the surface has a grain
    turned = rng.random() < 0.4
    crop = _crop(rng, source, *((width, height) if turned else (height, width)))
    crop = crop.swapaxes(0, 1) if turned else crop
    centre = crop.mean(axis=(0, 1))
    level = centre + rng.uniform(0.7, 1.0) * (old_HWC.mean(axis=(0, 1)) - centre)
    jitter = np.exp(rng.uniform(-0.3, 0.3, 2))
    content: _Array = level * jitter[0] + (crop - centre) * jitter[1]
    return content


def _cutpaste(rng: np.random.Generator, pixels_HWC: _Pixels, donor_HWC: _Pixels) -> _Patch:
    share = _log_uniform(rng, SMALLEST, LARGEST)
    extent = max(3.0, share * _side(pixels_HWC))
    scar = rng.random() < 0.4
    aspect = rng.uniform(4, 10) if scar else _log_uniform(rng, 1.0, 3.0)
    length, breadth = extent, max(2.0, extent / aspect)
    angle = rng.uniform(0, np.pi) if scar else float(rng.integers(0, 2)) * np.pi / 2
    reach_h = abs(length * np.sin(angle)) + abs(breadth * np.cos(angle)) + 1
    reach_w = abs(length * np.cos(angle)) + abs(breadth * np.sin(angle)) + 1
    top, left, h, w = _place(rng, pixels_HWC, reach_h, reach_w)
    y, x = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w)[None, :] - (w - 1) / 2
    along = np.abs(x * np.cos(angle) + y * np.sin(angle)) - length / 2
    across = np.abs(y * np.cos(angle) - x * np.sin(angle)) - breadth / 2
    feather = max(1.0, breadth * rng.uniform(0.05, 0.25))
    alpha = np.clip(0.5 - np.maximum(along, across) / feather, 0, 1) * rng.uniform(*_OPACITY)
    old = pixels_HWC[top : top + h, left : left + w].astype(np.float64)
    return _Patch(top, left, alpha, _foreign(rng, old, pixels_HWC, donor_HWC))


def _blend(rng: np.random.Generator, pixels_HWC: _Pixels, donor_HWC: _Pixels) -> _Patch:
    share = _log_uniform(rng, SMALLEST, LARGEST) if rng.random() < 0.8 else rng.uniform(LARGEST, WIDEST)
    extent = max(3.0, share * _side(pixels_HWC))
    stretch = _log_uniform(rng, 0.6, 1.7)
    top, left, h, w = _place(rng, pixels_HWC, extent * stretch, extent / stretch)
    y, x = ((2 * np.arange(h) + 1) / h - 1)[:, None], ((2 * np.arange(w) + 1) / w - 1)[None, :]
    border = rng.integers(12)  # one in three is cut by a border of the part, like a broken edge
    if border < 2:
        left, x = (0, (x + 1) / 2) if border else (pixels_HWC.shape[1] - w, (x - 1) / 2)
    elif border < 4:
        top, y = (0, (y + 1) / 2) if border == 3 else (pixels_HWC.shape[0] - h, (y - 1) / 2)
    radius = np.hypot(x, y)
    bumps = fractal_noise(rng, (h, w), extent * rng.uniform(0.25, 0.6))
    bumps /= max(float(np.abs(bumps).max()), 1e-6)
    inside = 1.0 - radius + 0.95 * bumps * np.clip(1.0 - radius, 0.0, 0.5)
    alpha = np.clip((inside - min(0.1, 0.5 * float(inside.max()))) * _log_uniform(rng, 3.0, 15.0), 0, 1)
    old = pixels_HWC[top : top + h, left : left + w].astype(np.float64)
    look = rng.choice(3, p=(0.35, 0.45, 0.2))
    if look == 0:
        content = _foreign(rng, old, pixels_HWC, donor_HWC)
    elif look == 1:
        content = _tone(rng, old, share) + 8.0 * bumps[..., None]
    else:
        content = _blurred(old, extent / 8) + 0.4 * (_tone(rng, old, share) - old)
    return _Patch(top, left, alpha * rng.uniform(*_OPACITY), content)


def _scratch(rng: np.random.Generator, pixels_HWC: _Pixels, donor_HWC: _Pixels) -> _Patch:
    del donor_HWC  # a scratch is made of the surface's own brightness
    share, side = _log_uniform(rng, 2 * SMALLEST, LARGEST), _side(pixels_HWC)
    extent = max(3.0, share * side)
    steps = max(4, round(extent / 3))
    bends = np.cumsum(rng.normal(0.0, rng.uniform(0.05, 0.35), steps))
    heading = rng.uniform(0, 2 * np.pi) + bends
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * extent / steps
    breadth = max(1.0, side * _log_uniform(rng, 0.003, 0.02))
    path += breadth + 1.0 - path.min(axis=0)
    reach = path.max(axis=0) + breadth + 1.0
    top, left, h, w = _place(rng, pixels_HWC, reach[1], reach[0])
    widths = breadth * np.exp(np.cumsum(rng.normal(0, 0.15, steps)).clip(-0.6, 0.6))
    alpha = stroke(path, widths, h, w)
    old = pixels_HWC[top : top + h, left : left + w].astype(np.float64)
    return _Patch(top, left, alpha * rng.uniform(*_OPACITY), _tone(rng, old, 0.3 * share))


def stroke(path_N2: _Array, widths_N: _Array, height: int, width: int, *, fine: int = 4) -> _Array:
    """Opacity (H, W) of a line through (x, y) points, antialiased; never empty."""
    canvas = Image.new("L", (width * fine, height * fine))
    draw = ImageDraw.Draw(canvas)
    points = [(float(x), float(y)) for x, y in path_N2 * fine]
    for start, end, breadth in zip(points[:-1], points[1:], widths_N[1:] * fine, strict=True):
        draw.line([start, end], fill=255, width=max(1, round(float(breadth))))
    small = canvas.filter(ImageFilter.GaussianBlur(fine / 3)).resize((width, height), Image.Resampling.BOX)
    alpha = np.asarray(small, dtype=np.float64) / 255
    if alpha.max() < 0.1:
        alpha[height // 2, width // 2] = 1.0
    return alpha / max(float(alpha.max()), 0.5)


def _tone(rng: np.random.Generator, old_HWC: _Array, share: float) -> _Array:
    """The surface made darker (three times in four) or brighter; by more where the defect is small."""
    strength = rng.uniform(0.2, 0.5) + rng.uniform(0.1, 0.4) * max(0.0, 1.0 - share / LARGEST)
    if rng.random() < 0.75:
        return old_HWC * (1.0 - strength)
    return old_HWC * (1.0 + strength) + 20.0 * strength


def _blurred(old_HWC: _Array, sigma: float) -> _Array:
    """Each channel without its fine structure."""
    blur = ImageFilter.GaussianBlur(max(1.0, sigma))
    channels = [
        np.asarray(Image.fromarray(np.rint(c).astype(np.uint8)).filter(blur))
        for c in np.moveaxis(old_HWC, 2, 0)
    ]
    return np.stack(channels, axis=2).astype(np.float64)


_DRAW: dict[Kind, Callable[[np.random.Generator, _Pixels, _Pixels], _Patch]] = {
    "cutpaste": _cutpaste,
    "blend": _blend,
    "scratch": _scratch,
}

"""Objects that do not exist, photographed by an inspection camera: one part at any angle and place.

A part (:mod:`nfbmr.data.shapes`) is a height over the ground. Its normals and one lamp give light, gloss and
a soft shadow; grain, light, exposure, focus, tolerances and noise vary from picture to picture as on a line.
A flaw (:mod:`nfbmr.data.blemishes`) is a change of the part, so that its picture differs from that of the
good part exactly under the mask. Fields are float32 (S, S), grey values of about 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.blemishes import OUTLINE, Blemish
from nfbmr.data.noise import spectral_noise, value_noise
from nfbmr.data.shapes import Bolt, Bracket, Capsule, Gear, Link, Part, Plane, Washer
from nfbmr.data.textures import texture

_Mask = NDArray[np.bool_]
_Box = tuple[slice, slice]
SMALLEST, LARGEST = 0.001, 0.01
"""Share of the picture that a flaw covers."""
_VISIBLE = 3.0 / 255  # a change below this is lost in the noise, and is not made
_SHADOW = 24.0  # how far a shadow falls, in thousandths of the side
_WIDEST = {"nick": 0.004, "burr": 0.004, "pit": 0.004, "broken": 0.003, "crushed": 0.006}
_WIDEST |= dict.fromkeys(("bent", "dent", "stain", "scratch"), 0.008)  # largest share drawn, by kind


@dataclass(frozen=True)
class Kind:
    """A class of objects.

    Attributes:
        draw: Makes a part within tolerance.
        size: Side of its pictures in pixels, unless another is asked for.
        ground: Grey value of a plain ground, or the name of a texture.
        metal: Reflectance, gloss, and how often the gloss is squared (3: eighth power).
        grain: Depth of the surface's fine marks in pixels, and their length along the part.
        flaws: Kinds of flaw.
        tints: Colours of part and ground; None for greyscale.
    """

    draw: Callable[[np.random.Generator], Part]
    size: int
    ground: float | str
    metal: tuple[float, float, int]
    grain: tuple[float, float]
    flaws: tuple[str, ...]
    tints: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None


OBJECTS: dict[str, Kind] = {
    "bolt": Kind(
        Bolt.draw, 1024, 0.72, (0.42, 0.5, 4), (0.10, 6.0),
        ("nick", "bent", "crushed", "scratch", "stain", "pit"),
    ),
    "gear": Kind(
        Gear.draw, 1024, 0.16, (0.42, 0.35, 3), (0.08, 2.0),
        ("broken", "nick", "burr", "scratch", "stain", "dent", "pit"),
    ),
    "bracket": Kind(
        Bracket.draw, 1024, 0.36, (0.46, 0.35, 4), (0.07, 9.0),
        ("bent", "nick", "burr", "scratch", "stain", "dent"),
    ),
    "washer": Kind(
        Washer.draw, 512, "granite", (0.42, 0.4, 4), (0.04, 1.2),
        ("nick", "burr", "scratch", "stain", "dent", "pit"),
    ),
    "link": Kind(
        Link.draw, 768, "woven", (0.36, 0.7, 4), (0.08, 1.5),
        ("nick", "burr", "scratch", "stain", "dent", "pit"),
        ((1.06, 0.98, 0.80), (0.80, 0.95, 1.12)),
    ),
    "capsule": Kind(
        Capsule.draw, 512, 0.50, (0.50, 0.5, 5), (0.01, 1.5),
        ("nick", "burr", "scratch", "stain", "dent"),
        ((1.25, 0.92, 0.55), (0.98, 1.0, 1.03)),
    ),
}  # fmt: skip
"""Objects by name: three on plain ground, two on a texture, and one that covers few pixels of 512."""


@dataclass(frozen=True)
class Scene:
    """One part under one lamp, ready to be seen whole or in a window."""

    kind: Kind
    part: Part
    size: int
    centre: tuple[float, float]
    angle: float
    lamp: tuple[float, float, float]
    grain_SS: Plane
    clouds_SS: Plane
    ground_SS: Plane
    focus: float

    @property
    def unit(self) -> float:
        """Pixels in a thousandth of the side."""
        return self.size / 1000

    @property
    def step(self) -> int:
        """Every how many pixels a shadow is worked out; boxes start at multiples of it."""
        return max(1, self.size // 256)

    def frame(self, y: Plane, x: Plane) -> tuple[Plane, Plane]:
        """The part's coordinates (u, v) on the lattice of rows y and columns x."""
        unit, cos, sin = self.unit, float(np.cos(self.angle)), float(np.sin(self.angle))
        dy, dx = ((y - self.centre[0]) / unit)[:, None], ((x - self.centre[1]) / unit)[None]
        return dx * cos + dy * sin, dy * cos - dx * sin

    def box(self, y: float, x: float, half_y: float, half_x: float) -> _Box:
        """About this box round a pixel, within the picture."""

        def side(middle: float, half: float) -> slice:
            low, high = max(0, int(middle - half)), min(self.size, int(middle + half) + 2)
            return slice(low // self.step * self.step, min(self.size, -(-high // self.step) * self.step))

        return side(y, half_y), side(x, half_x)

    def occupied(self) -> _Box:
        """Where part and shadow lie."""
        half_y, half_x = _reach(self.part, self.angle)
        margin = _SHADOW + 30
        return self.box(*self.centre, (half_y + margin) * self.unit, (half_x + margin) * self.unit)


def _reach(part: Part, angle: float) -> tuple[float, float]:
    """Half the height and half the width of a turned part."""
    half_u, half_v = part.extent
    cos, sin = abs(float(np.cos(angle))), abs(float(np.sin(angle)))
    return half_u * sin + half_v * cos, half_u * cos + half_v * sin


def _ground(rng: np.random.Generator, ground: float | str, clouds_SS: Plane) -> Plane:
    """Plain, clouded and of fine grain; or a texture, of no great contrast."""
    size = len(clouds_SS)
    if isinstance(ground, str):
        return np.asarray(0.5 * texture(ground, rng, size) + 0.08, dtype=np.float32)
    grain = 0.02 * _tile(rng, size, 1.1, 1.1, 0.0)
    return np.asarray(ground * (1 + clouds_SS + grain), dtype=np.float32)


def _tile(rng: np.random.Generator, size: int, along: float, across: float, angle: float) -> Plane:
    """Grain of unit deviation: a periodic field of half the side at large sizes, repeated."""
    side = size if size <= 512 else -(-size // 2)
    field = spectral_noise(rng, side, along, across, angle).astype(np.float32)
    return np.tile(field, (-(-size // side),) * 2)[:size, :size]


def _scene(rng: np.random.Generator, kind: Kind, size: int) -> Scene:
    part = kind.draw(rng)
    angle = float(rng.uniform(0, 2 * np.pi))
    room = np.maximum(0, 470 - np.array(_reach(part, angle)))
    centre = (500 + room * rng.uniform(-1, 1, 2)) * size / 1000
    turn = -2.2 + rng.normal(0, 0.05)  # the lamp stands at the upper left, and is not moved on purpose
    tilt = 0.9 + rng.normal(0, 0.02)
    lamp = (float(np.cos(tilt) * np.sin(turn)), float(np.cos(tilt) * np.cos(turn)), float(np.sin(tilt)))
    grain = kind.grain[0] * _tile(rng, size, kind.grain[1] * size / 1024, 0.7, angle)
    clouds = 0.03 * value_noise(rng, (size, size), size / 4).astype(np.float32)
    return Scene(
        kind, part, size, (float(centre[0]), float(centre[1])), angle, lamp, grain, clouds,
        _ground(rng, kind.ground, clouds), float(rng.uniform(0.55, 0.9)) * max(0.8, size / 1024),
    )  # fmt: skip


def _outline(scene: Scene, u: Plane, v: Plane, flaw: Blemish | None) -> tuple[Plane, Plane, Plane]:
    """The part's coordinates before it was bent, and the signed distance to its outline."""
    if flaw is None:
        return u, v, scene.part.distance(u, v)
    bent_u, bent_v = flaw.bend(u, v)
    return bent_u, bent_v, flaw.outline(u, v, scene.part.distance(bent_u, bent_v))


def _seen(scene: Scene, box: _Box, flaw: Blemish | None = None) -> tuple[Plane, Plane]:
    """A box through the lens: light of the part, and the share of the ground's light that is left."""
    from scipy.ndimage import gaussian_filter

    y, x = (np.arange(s.start, s.stop, dtype=np.float32) for s in box)
    u, v = scene.frame(y, x)
    bent_u, bent_v, d = _outline(scene, u, v, flaw)
    height, tone = scene.part.relief(bent_u, bent_v, d)
    if flaw is not None:
        height, tone = flaw.surface(u, v, height, tone)
    cover = np.clip(d * np.float32(scene.unit) + 0.5, 0, 1)
    shade = cover * _shade(scene, box, height * np.float32(scene.unit), tone * (1 + scene.clouds_SS[box]))
    left = (1 - cover) * _light(scene, box, d, flaw)
    return gaussian_filter(shade, scene.focus, truncate=3.0), gaussian_filter(left, scene.focus, truncate=3.0)


def _joined(scene: Scene, box: _Box, shade: Plane, left: Plane) -> Plane:
    """Part and ground (h, w, C), in one channel or three."""
    tints = np.array(scene.kind.tints or [[1], [1]], dtype=np.float32)
    ground = scene.ground_SS[box] * left
    return np.asarray(shade[..., None] * tints[0] + ground[..., None] * tints[1], dtype=np.float32)


def _shade(scene: Scene, box: _Box, height_px: Plane, tone: Plane) -> Plane:
    """Light that reaches the camera: diffuse, and gloss about the direction half-way to the lamp."""
    reflectance, gloss, squarings = scene.kind.metal
    slope_y, slope_x = np.gradient(height_px + scene.grain_SS[box])
    norm = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    ly, lx, lz = scene.lamp
    diffuse = np.maximum((lz - ly * slope_y - lx * slope_x) * norm, 0)
    gain = 1 / float(np.sqrt(2 + 2 * lz))
    facing = np.maximum((gain * (lz + 1) - gain * ly * slope_y - gain * lx * slope_x) * norm, 0)
    for _ in range(squarings):
        facing *= facing
    light = reflectance * (0.3 + 0.4 * norm * norm + 0.75 * diffuse) + 0.6 * gloss * facing
    return np.asarray(tone * light, dtype=np.float32)


def _light(scene: Scene, box: _Box, d: Plane, flaw: Blemish | None) -> Plane:
    """Light left on the ground: a soft shadow away from the lamp, and a dark line at the contact."""
    ly, lx, _ = scene.lamp
    step, (rows, columns) = scene.step, box
    y, x = (np.arange(s.start + (step - 1) / 2, s.stop, step, dtype=np.float32) for s in (rows, columns))
    fall = _SHADOW * scene.unit
    u, v = scene.frame(y + np.float32(fall * ly), x + np.float32(fall * lx))
    umbra = np.clip(0.5 + _outline(scene, u, v, flaw)[2] / 30, 0, 1)
    soft = Image.fromarray(umbra * umbra * (3 - 2 * umbra)).resize(d.shape[::-1], Image.Resampling.BILINEAR)
    contact = np.exp(np.clip(d, -60, 0) / 9)
    return np.asarray((1 - 0.45 * np.asarray(soft)) * (1 - 0.35 * contact), dtype=np.float32)


def draw_object(
    name: str, rng: np.random.Generator, size: int, flaw: str | None = None
) -> tuple[NDArray[np.uint8], _Mask | None]:
    """Photograph a new object.

    Args:
        name: A key of :data:`OBJECTS`.
        rng: Source of randomness.
        size: Side S in pixels.
        flaw: One of the class's kinds of flaw; None for a good part.

    Returns:
        Pixels (S, S) or (S, S, 3), uint8, and the mask (S, S) of the flaw, None for a good part. Outside the
        mask the picture is that of the good part, to the bit; what would change by less than three
        grey levels, as the rim of a shadow does, is left as it was.
    """
    drawn, taken = rng.spawn(2)  # the camera's noise is that of the good part's picture
    scene = _scene(drawn, OBJECTS[name], size)
    everything, box = (slice(0, size), slice(0, size)), scene.occupied()
    shade, left = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    shade[box], left[box] = _seen(scene, box)
    image = _joined(scene, everything, shade, left)
    mask = _spoil(drawn, scene, image, flaw) if flaw is not None else None
    return _photograph(taken, image), mask


def _place(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[float, float, float]:
    """Where a flaw of this kind may lie, in the part's frame, and where it points."""
    if kind in ("broken", "bent"):
        return scene.part.tips(rng)
    half_u, half_v = scene.part.extent
    while True:
        u, v = (rng.uniform(-1, 1, (2, 4000)) * np.array([[half_u], [half_v]])).astype(np.float32)
        d = scene.part.distance(u, v)
        fits = np.abs(d) < 3 if kind in OUTLINE else d > 14
        if fits.any():
            i = int(np.argmax(fits))
            break
    if kind not in OUTLINE:
        return float(u[i]), float(v[i]), float(rng.uniform(0, 2 * np.pi))
    step = np.float32(2.0)
    du = scene.part.distance(u[i : i + 1] + step, v[i : i + 1]) - scene.part.distance(
        u[i : i + 1] - step, v[i : i + 1]
    )
    dv = scene.part.distance(u[i : i + 1], v[i : i + 1] + step) - scene.part.distance(
        u[i : i + 1], v[i : i + 1] - step
    )
    return float(u[i]), float(v[i]), float(np.arctan2(-dv[0], -du[0]))


def _spoil(rng: np.random.Generator, scene: Scene, image: Plane, kind: str) -> _Mask:
    """Draw flaws until one covers about the share of the picture that was drawn for it; it is put in `image`.

    Returns:
        The mask (S, S). Should no flaw fit, which large pictures do not know, the nearest one is taken.
    """
    best, box, spoilt, inside = np.inf, scene.occupied(), image[:0], np.zeros((0, 0), dtype=np.bool_)
    for _ in range(12):
        share = SMALLEST * 1.2 * float(_WIDEST[kind] / (SMALLEST * 1.2)) ** rng.beta(1.0, 1.6)
        flaw = Blemish.draw(rng, kind, _place(rng, scene, kind), 1000 * float(np.sqrt(share)))
        for _ in range(4):
            candidate = _flawed(scene, flaw)
            covered = candidate[2].sum() / scene.size**2
            error = abs(float(np.log(max(covered, 1e-9) / share)))
            if error < best:
                best, (box, spoilt, inside) = error, candidate
            if best < 0.3:
                break
            flaw = flaw.resized(float(np.clip(np.sqrt(share / max(covered, 1e-9)), 0.5, 1.8)))
        if best < 0.6 and inside.sum() >= SMALLEST * scene.size**2:
            break
    image[box][inside] = spoilt[inside]
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask[box] = inside
    return mask


def _flawed(scene: Scene, flaw: Blemish) -> tuple[_Box, Plane, _Mask]:
    """A box, what is seen there with the flaw, and where that differs from the good part."""
    from scipy.ndimage import binary_closing, binary_fill_holes, label

    cos, sin = float(np.cos(scene.angle)), float(np.sin(scene.angle))
    y = scene.centre[0] + (flaw.u * sin + flaw.v * cos) * scene.unit
    x = scene.centre[1] + (flaw.u * cos - flaw.v * sin) * scene.unit
    half = (flaw.reach + _SHADOW + 20) * scene.unit
    near, part = scene.box(y, x, half, half), scene.occupied()
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(near, part, strict=True)
    )
    box = (rows, columns)
    good, bad = (_joined(scene, box, *_seen(scene, box, f)) for f in (None, flaw))
    changed = np.abs(bad - good).max(axis=-1) > _VISIBLE
    changed[:4] = changed[-4:] = changed[:, :4] = changed[:, -4:] = False  # the blur is cut off there
    closed = binary_closing(changed, iterations=max(1, scene.size // 512))
    parts, count = label(binary_fill_holes(closed | changed))
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    areas[0] = 0
    return box, bad, (areas > 0.1 * areas.max())[parts] if count else closed


def _photograph(rng: np.random.Generator, image_SSC: Plane) -> NDArray[np.uint8]:
    """A camera's view: uneven light, exposure, noise of sensor and of light; grey has no axis of channels."""
    y, x = (np.linspace(-1, 1, len(image_SSC), dtype=np.float32)[i] for i in ((..., None), (None, ...)))
    slope, angle = rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi)
    tilt = x * (slope * float(np.cos(angle))) + y * (slope * float(np.sin(angle)))
    light = (1 + tilt - rng.uniform(0.01, 0.07) * (x * x + y * y)) * rng.uniform(0.95, 1.05)
    seen = image_SSC * light[..., None]
    seen += rng.standard_normal(seen.shape, dtype=np.float32) * np.sqrt(1.6e-5 + 5e-5 * seen)
    pixels = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

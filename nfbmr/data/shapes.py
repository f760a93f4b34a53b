"""Parts that do not exist, as signed distances and heights: bolt, gear, bracket, washer, link, capsule.

Lengths are thousandths of the picture's side. A part lies in a frame (u, v) of its own, its middle at the
origin. A signed distance is positive within the outline and about right near it, which is all that a smooth
edge, a bevel and a shadow need; a height is that of the surface above the ground. Every part that is drawn
has tolerances of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""A number at each position of a picture, (H, W), float32."""


class Part(Protocol):
    """One part: its outline, its surface and what it is made of."""

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width, in its own frame."""

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline, positive inside, for points of the part's frame."""

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """Height of the surface, and its reflectance relative to the part's material."""

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """A place that breaks off or bends: (u, v) and the direction, in radians, that points outwards."""


def circle(u: Plane, v: Plane, radius: float) -> Plane:
    """Signed distance to a circle round the origin, positive inside."""
    return np.asarray(radius - np.hypot(u, v), dtype=np.float32)


def box(u: Plane, v: Plane, half_u: float, half_v: float, corner: float = 0.0) -> Plane:
    """Signed distance to a rectangle round the origin with rounded corners, positive inside."""
    qu, qv = np.abs(u) - (half_u - corner), np.abs(v) - (half_v - corner)
    outside = np.hypot(np.maximum(qu, 0), np.maximum(qv, 0))
    return np.asarray(corner - outside - np.minimum(np.maximum(qu, qv), 0), dtype=np.float32)


def bevel(d: Plane, width: float) -> Plane:
    """Height lost towards an edge: 0 from `width` inwards, `width` / 2 at the outline, rounded."""
    t = 1 - np.clip(d / width, 0, 1)
    return np.asarray(-0.5 * width * t * t, dtype=np.float32)


def _tolerance(rng: np.random.Generator, nominal: float, share: float = 0.008) -> float:
    """A length within tolerance: at most three standard deviations of `share` from its nominal value."""
    return float(nominal * (1 + share * np.clip(rng.standard_normal(), -3, 3)))


@dataclass(frozen=True)
class Bolt:
    """A hexagon bolt on its side: head, shank and a thread whose helix is seen; rolled to any angle."""

    length: float
    head: float
    across: float
    radius: float
    pitch: float
    roll: float
    threaded: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Bolt:
        """A bolt within tolerance."""
        return cls(
            length=_tolerance(rng, 560, 0.004),
            head=_tolerance(rng, 62),
            across=_tolerance(rng, 76),
            radius=_tolerance(rng, 44),
            pitch=_tolerance(rng, 23, 0.003),
            roll=float(rng.uniform(0, 2 * np.pi)),
            threaded=_tolerance(rng, 360),
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.length / 2 + 4, self.across * 1.2

    def _radius(self, u: Plane, v: Plane) -> Plane:
        """Radius of shank and thread, which runs out towards the shank and at the chamfered end."""
        end = self.length / 2
        turn = np.arcsin(np.clip(v / self.radius, -1, 1)) / (2 * np.pi)
        phase = (u / self.pitch + turn + self.roll / (2 * np.pi)) % 1
        crest = np.minimum(1.25 * np.abs(2 * phase - 1), 0.9)  # flanks, flat crests
        inside = np.clip((u - (end - self.threaded)) / 14, 0, 1)
        chamfer = 0.85 * np.clip(u - (end - 16), 0, None)
        return np.asarray(self.radius - inside * 8 * (0.9 - crest) - chamfer, dtype=np.float32)

    def _facets(self) -> list[float]:
        return [self.roll + k * np.pi / 3 for k in range(6)]

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        end = self.length / 2
        shank = np.minimum(self._radius(u, v) - np.abs(v), end - u)
        corners = [abs(np.sin(a + np.pi / 6)) for a in self._facets()]
        width = float(self.across / np.cos(np.pi / 6) * max(corners))
        head = box(u + end - self.head / 2, v, self.head / 2, width, 5)
        return np.asarray(np.maximum(np.minimum(shank, u + end), head), dtype=np.float32)

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """Cylinder, helix and the facets of the head that face the camera."""
        end = self.length / 2
        radius = self._radius(u, v)
        round_ = np.sqrt(np.maximum(radius * radius - v * v, 0.02 * radius * radius))
        slopes = [(float(np.cos(a)), float(np.sin(a))) for a in self._facets()]
        flat = np.min([(self.across - v * sin) / cos for cos, sin in slopes if cos > 0.1], axis=0)
        across = u + end
        flat += bevel(np.minimum(across, self.head - across), 9)
        collar = across < self.head
        height = np.where(collar, flat, round_)
        return height.astype(np.float32), np.where(collar, 1.05, 1.0).astype(np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """The end of the thread, or a corner of the head."""
        side = float(rng.choice((-1.0, 1.0)))
        if rng.random() < 0.6:
            return self.length / 2, side * 0.5 * self.radius, 0.5 * side
        return -self.length / 2 + 0.4 * self.head, side * self.across, side * np.pi / 2


@dataclass(frozen=True)
class Gear:
    """A spur gear from above: teeth, a recessed web with holes, a hub with a keyway."""

    teeth: int
    tip: float
    root: float
    bore: float
    hub: float
    rim: float
    roll: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Gear:
        """A gear within tolerance."""
        tip = _tolerance(rng, 290, 0.004)
        return cls(
            teeth=22,
            tip=tip,
            root=tip - _tolerance(rng, 46),
            bore=_tolerance(rng, 48),
            hub=_tolerance(rng, 92),
            rim=_tolerance(rng, 200),
            roll=float(rng.normal(0, 0.01)),
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.tip + 4, self.tip + 4

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        rho, theta = np.hypot(u, v), np.arctan2(v, u)
        tooth = self._tooth(rho, theta)
        near = np.clip(0.5 + (tooth - (self.root - rho)) / 16, 0, 1)  # a fillet at the foot of each tooth
        body = near * tooth + (1 - near) * (self.root - rho) + 4 * near * (1 - near)
        keyway = np.minimum(14 - np.abs(v), np.minimum(u, self.bore + 16 - u))
        inner = np.maximum(np.maximum(self.bore - rho, keyway), self._holes(rho, theta))
        return np.asarray(np.minimum(body, -inner), dtype=np.float32)

    def _tooth(self, rho: Plane, theta: Plane) -> Plane:
        """Signed distance to the nearest tooth."""
        step = 2 * np.pi / self.teeth
        across = rho * np.abs(np.sin(theta - step * np.rint(theta / step)))
        along = (rho - self.root) / (self.tip - self.root)
        flank = 0.5 * step * self.root * (0.66 - 0.36 * along - 0.1 * along * along) - across
        return np.asarray(np.minimum(0.95 * flank, self.tip - rho), dtype=np.float32)

    def _holes(self, rho: Plane, theta: Plane) -> Plane:
        """Signed distance into the nearest of five round holes of the web, positive inside a hole."""
        middle, step = (self.hub + self.rim) / 2, 2 * np.pi / 5
        turned = theta - self.roll
        away = np.cos(turned - step * np.rint(turned / step))
        near = np.sqrt(np.maximum(rho * rho + middle * middle - 2 * middle * rho * away, 0))
        return np.asarray(34 - near, dtype=np.float32)

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """Bevelled edges, the web lower than rim and hub, marks of the lathe."""
        rho = np.hypot(u, v)
        web = np.clip(np.minimum(rho - self.hub, self.rim - rho) / 12 + 0.5, 0, 1)
        web = web * web * (3 - 2 * web)
        height = 40 - 14 * web + bevel(d, 7) + 0.06 * np.sin(rho * (2 * np.pi / 4.3))
        return height.astype(np.float32), (1 - 0.12 * web).astype(np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """The tip of a tooth."""
        angle = 2 * np.pi * int(rng.integers(self.teeth)) / self.teeth
        return self.tip * float(np.cos(angle)), self.tip * float(np.sin(angle)), angle


@dataclass(frozen=True)
class Washer:
    """A flat ring with chamfered edges and marks of the lathe."""

    outer: float
    inner: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Washer:
        """A washer within tolerance."""
        return cls(_tolerance(rng, 205, 0.006), _tolerance(rng, 104, 0.008))

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.outer + 4, self.outer + 4

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        rho = np.hypot(u, v)
        return np.asarray(np.minimum(self.outer - rho, rho - self.inner), dtype=np.float32)

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """A flat top between two chamfers."""
        rho = np.hypot(u, v)
        height = 22 + bevel(d, 14) + 0.08 * np.sin(rho * (2 * np.pi / 7.1))
        return height.astype(np.float32), np.ones_like(height, dtype=np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Any place of the outer edge."""
        angle = float(rng.uniform(0, 2 * np.pi))
        return self.outer * float(np.cos(angle)), self.outer * float(np.sin(angle)), angle


@dataclass(frozen=True)
class Bracket:
    """A stamped angle plate: two arms, round holes, a slot, and a bead pressed along the long arm."""

    long: float
    short: float
    width: float
    hole: float
    shift: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Bracket:
        """A bracket within tolerance."""
        return cls(
            long=_tolerance(rng, 250, 0.003),
            short=_tolerance(rng, 150, 0.004),
            width=_tolerance(rng, 62),
            hole=_tolerance(rng, 25, 0.015),
            shift=float(rng.normal(0, 1.0)),
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.long + 4, self.short + 4

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        low = self.short - self.width
        arm = box(u, v - low, self.long, self.width, 26)
        leg = box(u + self.long - self.width, v, self.width, self.short, 26)
        side, foot = u + self.long - 2 * self.width - 22, v - self.short + 2 * self.width + 22
        corner = box(side + 20, foot - 20, 20, 20)
        fillet = np.minimum(np.hypot(side, foot) - 22, corner)  # the inner corner is rounded
        plate = np.maximum(np.maximum(arm, leg), fillet)
        rows = [
            (0.62 * self.long, low),
            (-self.long + self.width, low),
            (-self.long + self.width, -0.55 * self.short),
        ]
        holes = [circle(u - x + self.shift, v - y, self.hole) for x, y in rows]
        slot = box(u - 0.2 * self.long + self.shift, v - low, 48, 14, 14)
        inner = np.maximum(np.max(holes, axis=0), slot)
        return np.asarray(np.minimum(plate, -inner), dtype=np.float32)

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """A flat sheet with rolled edges, and the bead."""
        bead = np.clip(box(u + 0.3 * self.long, v - self.short + self.width, 62, 20, 20) / 16, 0, 1)
        height = 18 + bevel(d, 8) + 7 * bead * bead * (3 - 2 * bead)
        return height.astype(np.float32), np.ones_like(height, dtype=np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """One of the outer corners."""
        corners = [
            (self.long - 8, self.short - 8, 0.25 * np.pi),
            (self.long - 8, self.short - 2 * self.width + 8, -0.25 * np.pi),
            (-self.long + 8, -self.short + 8, -0.75 * np.pi),
        ]
        return corners[int(rng.integers(len(corners)))]


@dataclass(frozen=True)
class Link:
    """A link of a chain: a round bar bent to an oval, with the bulge of its weld."""

    length: float
    radius: float
    bar: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Link:
        """A link within tolerance."""
        return cls(_tolerance(rng, 130), _tolerance(rng, 92), _tolerance(rng, 34))

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.length + self.radius + self.bar + 6, self.radius + self.bar + 10

    def _away(self, u: Plane, v: Plane) -> tuple[Plane, Plane]:
        """Distance to the middle of the bar, and the bar's radius there."""
        from_line = np.hypot(np.maximum(np.abs(u) - self.length, 0), v) - self.radius
        weld = 5 * np.exp(-((u / 13) ** 2)) * (v > 0)
        return np.abs(from_line).astype(np.float32), (self.bar + weld).astype(np.float32)

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        away, radius = self._away(u, v)
        return radius - away

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """The upper half of a round bar."""
        away, radius = self._away(u, v)
        height = np.sqrt(np.maximum(radius * radius - away * away, 0.02 * radius * radius))
        return height, np.ones_like(height, dtype=np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """One of the two ends."""
        side = float(rng.choice((-1.0, 1.0)))
        return side * (self.length + self.radius + self.bar), 0.0, 0.0 if side > 0 else float(np.pi)


@dataclass(frozen=True)
class Capsule:
    """A two-piece capsule: body and cap, whose edge is a step, one of them darker."""

    length: float
    radius: float
    seam: float
    shade: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Capsule:
        """A capsule within tolerance."""
        return cls(
            _tolerance(rng, 100, 0.01),
            _tolerance(rng, 44),
            float(rng.normal(8, 2)),
            _tolerance(rng, 0.62, 0.03),
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the length and half the width."""
        return self.length + 4, self.radius + 4

    def _radius(self, u: Plane) -> Plane:
        return np.asarray(self.radius - 2.5 * np.clip((u - self.seam) / 3 + 0.5, 0, 1), dtype=np.float32)

    def distance(self, u: Plane, v: Plane) -> Plane:
        """Signed distance to the outline."""
        axis = np.maximum(np.abs(u) - (self.length - self.radius), 0)
        return self._radius(u) - np.hypot(axis, v)

    def relief(self, u: Plane, v: Plane, d: Plane) -> tuple[Plane, Plane]:
        """A cylinder between two half balls; the cap is darker than the body."""
        radius = self._radius(u)
        away = radius - d
        height = np.sqrt(np.maximum(radius * radius - away * away, 0.04 * radius * radius))
        cap = np.clip((self.seam - u) / 3 + 0.5, 0, 1)
        return height, np.asarray(1 - (1 - self.shade) * cap, dtype=np.float32)

    def tips(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """One of the two ends."""
        side = float(rng.choice((-1.0, 1.0)))
        return side * self.length, 0.0, 0.0 if side > 0 else float(np.pi)

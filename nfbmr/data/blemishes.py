"""Flaws of synthetic objects: of the outline, of the surface, of the colour.

They are made otherwise than the defects that validation pastes (:mod:`nfbmr.data.pasting`): the part itself
is cut, bent, dented or soiled in its own frame, and then lit and photographed like a good one, with the
shadow and the gloss that follow. Nothing is laid over a picture. Lengths are thousandths of the picture's
side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nfbmr.data.shapes import Plane

_Spoil = Callable[["Blemish", Plane, Plane, Plane, Plane], tuple[Plane, Plane]]


@dataclass(frozen=True)
class Blemish:
    """One flaw on one part.

    Attributes:
        kind: What it is, one of :data:`OUTLINE` or :data:`SURFACE`.
        u: Where it lies in the part's frame.
        v: The same, across.
        angle: Where it points, in radians; away from the part for one of the outline.
        size: About the side of a square as large as it.
        strength: From 0.3, which an attentive inspector sees, to 1.
        waves: Shape (K, 2): amplitude and phase of the ripples that make its edge irregular.
        sign: Darker or raised: 1, or brighter or sunk: -1.
    """

    kind: str
    u: float
    v: float
    angle: float
    size: float
    strength: float
    waves: tuple[tuple[float, float], ...]
    sign: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, kind: str, place: tuple[float, float, float], size: float
    ) -> Blemish:
        """A flaw of random form at a place (u, v, angle)."""
        waves = tuple(
            (float(rng.normal(0, 0.16 / (k + 1) ** 0.7)), float(rng.uniform(0, 2 * np.pi))) for k in range(5)
        )
        return cls(kind, *place, size, float(rng.uniform(0.3, 1.0)), waves, float(rng.choice((-1.0, 1.0))))

    def resized(self, factor: float) -> Blemish:
        """The same flaw, larger or smaller."""
        return replace(self, size=self.size * factor)

    @property
    def reach(self) -> float:
        """Nothing further away than this changes, but for the shadow."""
        return self.size * (5.0 if self.kind == "scratch" else 3.0)

    def frame(self, u: Plane, v: Plane) -> tuple[Plane, Plane]:
        """Coordinates along and across the flaw's direction, from its middle."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        du, dv = u - np.float32(self.u), v - np.float32(self.v)
        return du * cos + dv * sin, dv * cos - du * sin

    def ripple(self, t: Plane, period: float) -> Plane:
        """Smooth irregularity along t: a few sines of falling wavelength, of about -0.4 to 0.4."""
        return np.asarray(
            sum(a * np.sin((k + 1) * 2 * np.pi / period * t + p) for k, (a, p) in enumerate(self.waves)),
            dtype=np.float32,
        )

    def spot(self, u: Plane, v: Plane, radius: float, squeeze: float = 1.0) -> Plane:
        """Distance from the middle in units of an irregular radius: 1 at the edge."""
        along, across = self.frame(u, v)
        across = across * np.float32(squeeze)
        ripple = self.ripple(np.arctan2(across, along), 2 * np.pi)
        return np.asarray(np.hypot(along, across) / (radius * (1 + 0.8 * ripple)), dtype=np.float32)

    def bend(self, u: Plane, v: Plane) -> tuple[Plane, Plane]:
        """Where a point of the bent part lay before it was bent; the same point for other kinds."""
        if self.kind != "bent":
            return u, v
        along, across = self.frame(u, v)
        hinge, turn = 1.1 * self.size, self.sign * (0.25 + 0.3 * self.strength)
        past = np.clip(along + hinge, 0, 2.5 * hinge) / hinge
        near = np.clip(1.8 - np.abs(across) / self.size, 0, 1)
        shift = 0.5 * turn * hinge * past * past * near * near * (3 - 2 * near)
        return u - np.float32(-np.sin(self.angle)) * shift, v - np.float32(np.cos(self.angle)) * shift

    def outline(self, u: Plane, v: Plane, d: Plane) -> Plane:
        """The signed distance once the outline is damaged."""
        if self.kind not in ("nick", "burr", "broken"):
            return d
        along, across = self.frame(u, v)
        if self.kind == "nick":  # a bite: an irregular disc about the edge is gone
            bite = 0.56 * self.size
            gone = bite * (1 - self.spot(u, v, bite, 0.8))
            return np.asarray(np.minimum(d, -gone), dtype=np.float32)
        if self.kind == "burr":  # a lip of material beyond the edge
            lip = 0.42 * self.size * (1 + self.ripple(across, 1.3 * self.size))
            lip = lip * np.clip(1.3 - np.abs(across) / (0.75 * self.size), 0, 1)
            grown = np.minimum(lip - along, along + 0.5 * self.size)
            return np.asarray(np.maximum(d, np.where(lip > 0.5, 0.8 * grown, -9e3)), dtype=np.float32)
        # broken off along a crooked line, no wider than a tip is
        depth = 0.8 * self.size + 8 * self.ripple(across, 60)
        gone = np.minimum(along + depth, 36 - np.abs(across))
        return np.asarray(np.minimum(d, -gone), dtype=np.float32)

    def surface(self, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
        """Height and reflectance once the surface is damaged."""
        spoil = SURFACE.get(self.kind)
        return spoil(self, u, v, height, tone) if spoil else (height, tone)


def _scratch(flaw: Blemish, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
    """A groove with raised lips along a slightly curved line, shallower towards its ends."""
    along, across = flaw.frame(u, v)
    half = 3.0 * flaw.size
    across = (
        across
        + flaw.waves[0][0] * 2 * (along * along / half - half / 3) * 0.4
        + 0.8 * flaw.ripple(along, half)
    )
    width = 0.022 * flaw.size + 1.0
    fade = np.clip(1 - (along / half) ** 2, 0, 1) ** 0.7
    t = across / width
    groove = np.exp(-t * t)
    lips = np.exp(-((np.abs(t) - 1.6) ** 2) * 2)
    deep = width * flaw.strength * fade
    return (
        np.asarray(height - deep * (0.9 * groove - 0.25 * lips), dtype=np.float32),
        np.asarray(tone * (1 + 0.3 * flaw.sign * flaw.strength * groove * fade), dtype=np.float32),
    )


def _pit(flaw: Blemish, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
    """A steep hole with a dark floor, as of a pore in a casting or of rust."""
    inside = np.clip((1 - flaw.spot(u, v, 0.55 * flaw.size)) * 2.5, 0, 1)
    inside = inside * inside * (3 - 2 * inside)
    return (
        np.asarray(height - 0.25 * flaw.strength * flaw.size * inside, dtype=np.float32),
        np.asarray(tone * (1 - 0.55 * flaw.strength * inside), dtype=np.float32),
    )


def _dent(flaw: Blemish, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
    """A smooth hollow: only the light tells of it."""
    r = flaw.spot(u, v, 0.75 * flaw.size, 1.25)
    hollow = np.exp(-1.4 * r * r)
    return np.asarray(height - 0.2 * flaw.strength * flaw.size * hollow, dtype=np.float32), tone


def _stain(flaw: Blemish, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
    """A dried drop, with a darker rim; the surface below is as it was."""
    r = flaw.spot(u, v, 0.62 * flaw.size)
    film = np.clip((1 - r) * 5, 0, 1)
    rim = np.exp(-(((r - 0.9) / 0.12) ** 2))
    return height, np.asarray(tone * (1 - flaw.strength * (0.28 * film + 0.2 * rim * film)), dtype=np.float32)


def _worn(flaw: Blemish, u: Plane, v: Plane, height: Plane, tone: Plane) -> tuple[Plane, Plane]:
    """Ridges struck flat: the thread is crushed, or an edge worn down."""
    inside = np.clip((1 - flaw.spot(u, v, 0.7 * flaw.size, 1.2)) * 4, 0, 1)
    return (
        np.asarray(
            height - 6 * flaw.strength * inside * np.clip(0.5 + flaw.ripple(u, flaw.size), 0, 1.2),
            dtype=np.float32,
        ),
        np.asarray(tone * (1 + 0.12 * flaw.sign * inside), dtype=np.float32),
    )


SURFACE: dict[str, _Spoil] = {
    "scratch": _scratch,
    "pit": _pit,
    "dent": _dent,
    "stain": _stain,
    "crushed": _worn,
}
"""Kinds that change the surface within the outline."""

OUTLINE: tuple[str, ...] = ("nick", "burr", "broken", "bent")
"""Kinds that change the outline: a bite, a lip of material, a tip broken off or bent."""

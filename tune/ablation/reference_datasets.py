"""The data sets that published numbers were measured on, whole, and groups of their categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Benchmark:
    """A data set that papers report on.

    Attributes:
        title: Its name.
        categories: All of them.
        groups: Categories that papers give means of.
    """

    title: str
    categories: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def among(self, categories: Sequence[str | None]) -> tuple[str, ...]:
        """Those of its categories that are given.

        Example:
            >>> BENCHMARKS["mvtec"].among(["bolts", "tile", "bottle"])
            ('bottle', 'tile')
        """
        return tuple(name for name in self.categories if name in categories)


_TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
_OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor",
    "zipper",
)  # fmt: skip

BENCHMARKS: dict[str, Benchmark] = {
    "mvtec": Benchmark(
        "MVTec AD", tuple(sorted(_TEXTURES + _OBJECTS)), {"textures": _TEXTURES, "objects": _OBJECTS}
    ),
    "dagm": Benchmark("DAGM 2007", tuple(f"Class{number}" for number in range(1, 11))),
}
"""Data sets that published tables are about, by name."""

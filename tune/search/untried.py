"""Points of a small space that no trial has had yet, and which of them are near to a good one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nfbmr.resolve import digest
from tune.search.space import Space


class UntriedPoints:
    """What is left of a small space.

    Args:
        points: All of its points in the sampler's terms, each with the settings that it comes to.

    Example:
        >>> untried = UntriedPoints([({"a": n}, {"a": n}) for n in range(3)])
        >>> untried.tried(digest({"a": 1}))
        >>> untried.agreeing({}), untried.agreeing({"a": 1})
        ([{'a': 0}, {'a': 2}], [])
    """

    def __init__(self, points: Sequence[tuple[dict[str, Any], Mapping[str, Any]]]) -> None:
        self._points = [point for point, _ in points]
        self._rows: defaultdict[str, list[int]] = defaultdict(list)  # of the points with the same settings
        for row, (_, settings) in enumerate(points):
            self._rows[digest(settings)].append(row)
        self._names = list(dict.fromkeys(name for point in self._points for name in point))
        # Of each dimension the number of every value; 0 where it does not apply.
        self._codes: dict[str, dict[Any, int]] = {name: {} for name in self._names}
        codes = [[self._code(name, point) for name in self._names] for point in self._points]
        self._codes_NK = np.array(codes, dtype=np.int16).reshape(len(self._points), len(self._names))
        self._left_N = np.ones(len(self._points), dtype=bool)

    @classmethod
    def of(cls, space: Space, at_most: int, tried: Iterable[str]) -> UntriedPoints | None:
        """Those of a space; None for one of more points, or too many to count.

        Args:
            space: Which.
            at_most: So many points are worth looking through.
            tried: Digests of settings.
        """
        points = space.points(at_most)
        if not points:  # even a space without dimensions has a point
            return None
        untried = cls(points)
        for key in tried:
            untried.tried(key)
        return untried

    def tried(self, key: str) -> None:
        """Some settings, by their digest, are not new any more."""
        self._left_N[self._rows.get(key, [])] = False

    def any(self, fixed: Mapping[str, Any]) -> bool:
        """Whether a point with these values is left."""
        return bool(self._agreeing_N(fixed).any())

    def agreeing(self, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The points with these values that are left; dimensions that do not apply in them do not count."""
        return [self._points[row] for row in np.flatnonzero(self._agreeing_N(fixed))]

    def near(self, point: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of those the nearest: which differ in the fewest dimensions.

        Args:
            point: To which.
            fixed: As of :meth:`agreeing`.
        """
        code_K = np.array([self._code(name, point, known=True) for name in self._names])
        apart_N = (self._codes_NK != code_K).sum(axis=1)
        among_N = self._agreeing_N(fixed)
        nearest_N = among_N & (apart_N == apart_N[among_N].min())
        return [self._points[row] for row in np.flatnonzero(nearest_N)]

    def _code(self, name: str, point: Mapping[str, Any], *, known: bool = False) -> int:
        """The number of a point's value; -1 where only known ones have one and it is not."""
        if name not in point:
            return 0
        codes = self._codes[name]
        return codes.get(point[name], -1) if known else codes.setdefault(point[name], len(codes) + 1)

    def _agreeing_N(self, fixed: Mapping[str, Any]) -> np.ndarray:
        left_N = self._left_N
        for k, name in enumerate(self._names):
            if name in fixed:
                code_N = self._codes_NK[:, k]
                left_N = left_N & ((code_N == self._code(name, fixed, known=True)) | (code_N == 0))
        return left_N

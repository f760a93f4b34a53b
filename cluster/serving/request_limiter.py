"""How many requests are under way, and how much memory they may take: the rest is turned away at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.serving.messages import HttpError


class RequestLimiter:
    """Places for requests, and bytes for their bodies.

    Args:
        places: Requests under way at most.
        memory: Bytes of all their bodies at most.

    Example:
        >>> limiter = RequestLimiter(places=1, memory=100)
        >>> with limiter.acquire(40):
        ...     limiter.inside
        1
    """

    def __init__(self, places: int, memory: int) -> None:
        self.places, self.memory = places, memory
        self.inside = 0
        self._taken = 0

    @contextmanager
    def acquire(self, length: int) -> Iterator[None]:
        """Room for a request whose body is at most so long.

        Raises:
            HttpError: There is none now.
        """
        if self.inside >= self.places or self._taken + length > self.memory:
            raise HttpError(
                503,
                f"{self.inside} requests are under way, which is all that there is room for",
                "ask again in a moment",
                {"retry-after": "1"},
            )
        self.inside += 1
        self._taken += length
        try:
            yield
        finally:
            self.inside -= 1
            self._taken -= length

"""Which of the requests that wait are answered together.

An image in a batch of eight takes about half the processor time of one alone, so no batch should begin a
moment before the rest of it arrives. Clients that ask again as soon as they are answered would otherwise meet
in the batches that chance began with, one and seven, or four and four, for as long as they ask.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.1
"""Where senders do not ask again, a tenth of the throughput is lost at most."""
LONGEST_WAIT = 0.05
"""In seconds: who asks again at once is there by then."""


class Batches(Generic[T]):
    """A queue that is emptied in batches.

    As many requests are expected as were under way when the last batch was answered: those in it, whose
    senders may ask again, and those that waited. A client that is alone does not wait, and under more load
    than a batch holds nothing is waited for.

    Args:
        limit: Requests in a batch at most.
        patience: How long a batch waits for requests that are expected, in times of what the last one took.
        longest: And in seconds at most.
    """

    def __init__(self, limit: int, patience: float = PATIENCE, longest: float = LONGEST_WAIT) -> None:
        self._limit, self._patience, self._longest = limit, patience, longest
        self._waiting: deque[T] = deque()
        self._expected = 1
        self._until = 0.0
        self._enough = asyncio.Event()

    def add(self, request: T) -> None:
        """A request that waits from now on."""
        self._waiting.append(request)
        if len(self._waiting) >= self._expected:
            self._enough.set()

    async def __aiter__(self) -> AsyncIterator[list[T]]:
        """Batches, until nothing waits; one counts as answered when the next is asked for."""
        while self._waiting:
            await self._gather()
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            began = time.monotonic()
            yield batch
            ended = time.monotonic()
            self._expected = min(self._limit, len(batch) + len(self._waiting))
            self._until = ended + min(self._longest, self._patience * (ended - began))

    async def _gather(self) -> None:
        """Wait for what is expected, while patience lasts."""
        left = self._until - time.monotonic()
        if left <= 0 or len(self._waiting) >= self._expected:
            return
        self._enough.clear()
        try:
            async with asyncio.timeout(left):
                await self._enough.wait()
        except TimeoutError:
            pass

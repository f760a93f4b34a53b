"""Which of the requests that wait are answered together, and by which lane.

An image in a batch of eight takes about half the processor time of one alone, so no batch should begin a
moment before the rest of it arrives. Clients that ask again as soon as they are answered would otherwise meet
in the batches that chance began with, one and seven, or four and four, for as long as they ask.

Several batches may be answered at once, each in a lane of its own: two threads that score two batches do not
wait for each other, as two threads do that share each operation of one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.1
"""Where senders do not ask again, a tenth of the throughput is lost at most."""
LONGEST_WAIT = 0.05
"""In seconds: who asks again at once is there by then."""


class Batches(Generic[T]):
    """A queue that is emptied in batches.

    As many requests are expected as were under way when the last batch was answered: those in it, whose
    senders may ask again, those that waited, and those in other lanes; each lane takes its share. A client
    that is alone does not wait, and under more load than the lanes can take nothing is waited for.

    Args:
        limit: Requests in a batch at most.
        answer: Answers a batch, and is told whether it is the only one.
        lanes: Batches that are answered at once at most.
        patience: How long a batch waits for requests that are expected, in times of what the last one took.
        longest: And in seconds at most.
    """

    def __init__(
        self,
        limit: int,
        answer: Callable[[list[T], bool], Awaitable[None]],
        lanes: int = 1,
        patience: float = PATIENCE,
        longest: float = LONGEST_WAIT,
    ) -> None:
        self._limit, self._answer, self._lanes = limit, answer, lanes
        self._patience, self._longest = patience, longest
        self._waiting: deque[T] = deque()
        self._gathering: asyncio.Task[None] | None = None
        self._answered: dict[asyncio.Task[None], int] = {}
        self._expected = 1
        self._until = 0.0
        self._complete = asyncio.Event()

    def add(self, request: T) -> None:
        """A request that waits from now on; to be called in an event loop."""
        self._waiting.append(request)
        self._go_on()

    @property
    def _under_way(self) -> int:
        return len(self._waiting) + sum(self._answered.values())

    @property
    def _share(self) -> int:
        """Requests that a lane's next batch has, where all come that are expected."""
        return min(self._limit, -(-max(self._expected, self._under_way) // self._lanes))

    def _go_on(self) -> None:
        """Let a batch begin that is complete, and gather one for a free lane."""
        if len(self._waiting) >= self._share or self._under_way >= self._expected:
            self._complete.set()
        else:
            self._complete.clear()
        if self._waiting and self._gathering is None and len(self._answered) < self._lanes:
            self._gathering = asyncio.create_task(self._next_batch())

    async def _next_batch(self) -> None:
        """Gather a batch and answer it; meanwhile the next is gathered for another lane."""
        await self._gathered()
        batch = [self._waiting.popleft() for _ in range(min(self._share, len(self._waiting)))]
        lane, self._gathering = self._gathering, None
        assert lane is not None
        self._answered[lane] = len(batch)
        self._go_on()
        began = time.monotonic()
        try:
            await self._answer(batch, len(self._answered) == 1)
        finally:
            ended = time.monotonic()
            self._expected = self._under_way
            self._until = ended + min(self._longest, self._patience * (ended - began))
            del self._answered[lane]
            self._go_on()

    async def _gathered(self) -> None:
        """Wait for what is expected, while patience lasts."""
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                await self._complete.wait()
        except TimeoutError:
            pass

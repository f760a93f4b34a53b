"""Messages between the process that asked for a run and the worker that carries it out.

An actor without a processor of its own. Both sides wait for it to answer, so neither polls: an epoch takes a
few milliseconds to be heard of, and a wish to stop no longer. Nothing heavy is imported here, for the actor's
sake.
"""

from __future__ import annotations

import asyncio
from typing import Any

Message = tuple[str, Any]
"""A kind and its content."""


class DriverChannel:
    """Between one driver and rank 0 of its workers; made an actor by :func:`open_channel`."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stop = asyncio.Event()
        self._failure: bytes | None = None

    async def send(self, kind: str, content: Any = None) -> None:
        """Send a message to the driver."""
        await self._messages.put((kind, content))

    async def ask(self, kind: str, content: Any) -> bytes | None:
        """Send a message, and wait for the driver's answer. One at a time."""
        while not self._answers.empty():  # for a worker that was killed while it waited
            self._answers.get_nowait()
        await self._messages.put((kind, content))
        return await self._answers.get()

    async def receive(self, patience: float) -> list[Message]:
        """All messages so far; where there is none, wait for one, but no longer than `patience` seconds."""
        messages = []
        if self._messages.empty():
            try:
                messages.append(await asyncio.wait_for(self._messages.get(), patience))
            except TimeoutError:
                return []
        while not self._messages.empty():
            messages.append(self._messages.get_nowait())
        return messages

    async def answer(self, answer: bytes | None) -> None:
        """Answer the worker that asks."""
        await self._answers.put(answer)

    async def stop(self) -> None:
        """Ask all workers to checkpoint and stop."""
        self._stop.set()

    async def stopped(self) -> None:
        """Return when a stop is asked for."""
        await self._stop.wait()

    async def fail(self, failure: bytes) -> None:
        """Keep an error that would come again: workers that are started anew find it."""
        self._failure = self._failure or failure

    async def failure(self) -> bytes | None:
        """What :meth:`fail` was told first."""
        return self._failure


def open_channel() -> Any:
    """A channel on this node, which goes when its last handle does."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote  # its own types do not know actors' options
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Every worker has a call waiting in it.
    return remote(num_cpus=0, max_concurrency=10_000, scheduling_strategy=here)(DriverChannel).remote()

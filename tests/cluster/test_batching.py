"""Which requests are answered together: what a batch waits for, and what it never does."""

from __future__ import annotations

import asyncio

import pytest

from cluster.serving.batching import Batches

ANSWER_SECONDS = 0.05
PATIENT = 20.0  # however busy the machine is


async def sizes_of(clients: int, questions: int, limit: int = 8) -> list[int]:
    """Sizes of the batches in which clients are answered that each ask again once they are.

    They begin as they do in life: one first, the others while that one is answered.
    """
    batches: Batches[asyncio.Future[None]] = Batches(limit, PATIENT, PATIENT)
    working: asyncio.Task[None] | None = None
    sizes: list[int] = []

    async def work() -> None:
        nonlocal working
        async for batch in batches:
            sizes.append(len(batch))
            await asyncio.sleep(ANSWER_SECONDS)
            for answer in batch:
                answer.set_result(None)
        working = None

    async def client(number: int) -> None:
        nonlocal working
        await asyncio.sleep(0.5 * ANSWER_SECONDS * min(number, 1))
        for _ in range(questions):
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            batches.add(answer)
            working = working or asyncio.create_task(work())
            await answer

    await asyncio.gather(*map(client, range(clients)))
    assert sum(sizes) == clients * questions
    return sizes


@pytest.mark.parametrize("clients", [2, 8])
def test_clients_that_ask_again_at_once_share_their_batches(clients: int) -> None:
    assert asyncio.run(sizes_of(clients, 4)) == [1, *[clients] * 3, clients - 1]


def test_no_batch_is_larger_than_its_limit() -> None:
    assert max(asyncio.run(sizes_of(12, 3, limit=4))) == 4


def test_nothing_is_waited_for_that_does_not_come() -> None:
    async def answered() -> list[list[int]]:
        batches: Batches[int] = Batches(8)
        for number in range(3):
            batches.add(number)
        seen = []
        async for batch in batches:
            seen.append(batch)
            if len(seen) == 1:
                batches.add(3)  # the senders of the other three have what they wanted
        return seen

    assert asyncio.run(answered()) == [[0, 1, 2], [3]]

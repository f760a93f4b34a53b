"""Which requests are answered together: what a batch waits for, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from cluster.serving.batching import Batches

ANSWER_SECONDS = 0.05
PATIENT = 20.0  # however busy the machine is
Answer = asyncio.Future[None]


class Lanes:
    """Answers batches, and remembers how large they were and how many were answered at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.alone: list[bool] = []
        self.busy = self.most_busy = 0

    async def answer(self, batch: list[Answer], alone: bool) -> None:
        self.sizes.append(len(batch))
        self.alone.append(alone)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(ANSWER_SECONDS)
        self.busy -= 1
        for answer in batch:
            answer.set_result(None)


async def asked(clients: int, questions: int, limit: int = 8, lanes: int = 1) -> Lanes:
    """How clients are answered that each ask again once they are.

    They begin as they do in life: one first, the others while that one is answered.
    """
    answering = Lanes()
    batches: Batches[Answer] = Batches(limit, answering.answer, lanes, PATIENT, PATIENT)

    async def client(number: int) -> None:
        await asyncio.sleep(0.5 * ANSWER_SECONDS * min(number, 1))
        for _ in range(questions):
            answer: Answer = asyncio.get_running_loop().create_future()
            batches.add(answer)
            await answer

    await asyncio.gather(*map(client, range(clients)))
    assert sum(answering.sizes) == clients * questions
    return answering


@pytest.mark.parametrize("clients", [2, 8])
def test_clients_that_ask_again_at_once_share_their_batches(clients: int) -> None:
    assert asyncio.run(asked(clients, 4)).sizes == [1, *[clients] * 3, clients - 1]


def test_two_lanes_share_the_clients() -> None:
    answering = asyncio.run(asked(8, 6, lanes=2))
    assert answering.most_busy == 2
    assert answering.sizes.count(4) >= 8  # of twelve batches, once the first ones are answered
    assert answering.alone[0]
    assert not all(answering.alone)


def test_one_client_has_one_lane_to_itself() -> None:
    answering = asyncio.run(asked(1, 4, lanes=2))
    assert answering.sizes == [1] * 4
    assert all(answering.alone)


@pytest.mark.parametrize("lanes", [1, 2])
def test_no_batch_is_larger_than_its_limit(lanes: int) -> None:
    answering = asyncio.run(asked(12, 3, limit=4, lanes=lanes))
    assert max(answering.sizes) == 4
    assert answering.most_busy == lanes


def test_a_batch_that_cannot_be_answered_costs_no_lane() -> None:
    async def answered() -> list[list[int]]:
        seen: list[list[int]] = []
        done = asyncio.Event()

        async def answer(batch: list[int], alone: bool) -> None:
            seen.append(batch)
            if 0 in batch:
                raise RuntimeError("the only lane ends so")
            done.set()

        batches: Batches[int] = Batches(1, answer)
        batches.add(0)
        batches.add(1)
        async with asyncio.timeout(PATIENT):
            await done.wait()
        return seen

    assert asyncio.run(answered()) == [[0], [1]]


def test_a_lane_does_not_wait_for_more_than_all_clients() -> None:
    """Two of three are answered together, and the third has nobody to wait for."""

    async def seconds() -> float:
        answering, asked_at = Lanes(), asyncio.get_running_loop().time
        batches: Batches[Answer] = Batches(8, answering.answer, 2, PATIENT, PATIENT)
        for _ in range(2):  # what is expected is known after the first time
            answers = [asyncio.get_running_loop().create_future() for _ in range(3)]
            began = asked_at()
            for answer in answers:
                batches.add(answer)
            await asyncio.gather(*answers)
        return asked_at() - began

    assert asyncio.run(seconds()) < PATIENT / 2


def test_nothing_is_waited_for_that_does_not_come() -> None:
    async def answered(numbers: Iterable[int], later: int) -> list[list[int]]:
        seen: list[list[int]] = []
        done = asyncio.Event()

        async def answer(batch: list[int], alone: bool) -> None:
            seen.append(batch)
            if later in batch:
                done.set()
            else:
                batches.add(later)  # the senders of the others have what they wanted

        batches: Batches[int] = Batches(8, answer)
        for number in numbers:
            batches.add(number)
        async with asyncio.timeout(PATIENT):
            await done.wait()
        return seen

    assert asyncio.run(answered(range(3), 3)) == [[0, 1, 2], [3]]

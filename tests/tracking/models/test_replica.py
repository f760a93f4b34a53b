"""A served copy of the model by itself."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cluster.serving import replica
from cluster.serving.messages import Job
from cluster.serving.replica import Replica
from nfbmr.paths import RunPaths


def new_replica(runs: Any) -> Replica:
    limits = {"batch": 4, "max_pixels": 10**7, "max_images": 8}
    return Replica(str(RunPaths(runs.first).model), device="cpu", threads=2, **limits)


def test_a_replaced_model_leaves_memory_with_its_last_answer(runs: Any, images: list[bytes]) -> None:
    """At once, and not when Python next looks for cycles: two large models may not have room."""
    served = new_replica(runs)

    async def answered(served: Replica) -> list[int]:
        replies = [served(Job("score", image)) for image in images[:3]]
        return [reply.status for reply in await asyncio.gather(*replies)]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(answered(served)) == [200] * 3
        left = weakref.ref(served)
        predictor = weakref.ref(served._lanes.answering.predictor)
        del served
        deadline = time.monotonic() + 60  # a thread that has answered may not have let go yet
        while (left() or predictor()) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left() is None
        assert predictor() is None
    finally:
        gc.enable()


def test_requests_that_come_together_are_answered_each_by_its_own_image(
    runs: Any, images: list[bytes]
) -> None:
    served, some = new_replica(runs), images[:6]

    async def bodies() -> tuple[list[bytes], list[bytes]]:
        together = await asyncio.gather(*(served(Job("score", image)) for image in some))
        alone = [await served(Job("score", image)) for image in some]
        return [reply.body for reply in together], [reply.body for reply in alone]

    together, alone = ([json.loads(body)["score"] for body in each] for each in asyncio.run(bodies()))
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(set(together)) == len(some)


class Timed:
    """Stands for a model whose answers take so many seconds with so many threads, by a clock of its own."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.asked = seconds, 0

    def rows(self, _images: list[Any], **_options: Any) -> None:
        self.asked += 1

    def clock(self, work: Callable[[], object]) -> float:
        work()
        return self.seconds[torch.get_num_threads()]


@pytest.mark.parametrize(
    ("seconds", "quickest", "asked"),
    [({2: 0.02, 1: 0.5}, 2, 6), ({2: 0.1, 1: 0.01}, 1, 8), ({2: 0.4, 1: 0.01}, 2, 2)],
)
def test_an_image_by_itself_has_the_threads_that_are_quickest(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], quickest: int, asked: int
) -> None:
    """Small maps are done sooner by one; of a slow model as few images are scored as possible."""
    model: Any = Timed(seconds)
    monkeypatch.setattr(replica, "_seconds", model.clock)
    lanes = replica._Lanes(model, 8, 2, 1, 2)
    assert lanes._threads_alone == quickest
    assert model.asked == asked

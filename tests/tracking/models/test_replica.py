"""A served copy of the model by itself."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import pytest

from cluster.serving.messages import Job
from cluster.serving.replica import Replica
from nfbmr.paths import RunPaths


def new_replica(runs: Any) -> Replica:
    limits = {"batch": 4, "max_pixels": 10**7, "max_images": 8}
    return Replica(str(RunPaths(runs.first).model), device="cpu", threads=2, **limits)


def test_a_replaced_model_leaves_memory_with_its_last_answer(runs: Any, images: list[bytes]) -> None:
    """At once, and not when Python next looks for cycles: two large models may not have room."""
    replica = new_replica(runs)

    async def answered(replica: Replica) -> list[int]:
        replies = [replica(Job("score", image)) for image in images[:3]]
        return [reply.status for reply in await asyncio.gather(*replies)]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(answered(replica)) == [200] * 3
        left = weakref.ref(replica)
        predictor = weakref.ref(replica._lanes.answering.predictor)
        del replica
        assert left() is None
        assert predictor() is None
    finally:
        gc.enable()


def test_requests_that_come_together_are_answered_each_by_its_own_image(
    runs: Any, images: list[bytes]
) -> None:
    replica, some = new_replica(runs), images[:6]

    async def bodies() -> tuple[list[bytes], list[bytes]]:
        together = await asyncio.gather(*(replica(Job("score", image)) for image in some))
        alone = [await replica(Job("score", image)) for image in some]
        return [reply.body for reply in together], [reply.body for reply in alone]

    together, alone = ([json.loads(body)["score"] for body in each] for each in asyncio.run(bodies()))
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(set(together)) == len(some)

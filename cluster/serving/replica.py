"""One copy of the model, in a process of its own: requests in, answers out, several at a time.

Ray Serve starts it, starts it again when it dies, and hands it requests; those that come in while it computes
are its next batches. (Ray Serve's own batches are closed when they are formed, not when somebody has time for
them: under load they hold one request each.) It imports what prediction needs, and nothing of tracking or of
registries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.serving.batching import Batches
from cluster.serving.messages import HttpError, Job, Reply, json_bytes
from nfbmr.errors import Interrupted
from nfbmr.stopping import StopRequest

if TYPE_CHECKING:
    from nfbmr.inference import Answering, ScoreRequest

_Asked = tuple[Job, "asyncio.Future[Reply]"]
log = logging.getLogger(__name__)

MOST_LANES = 4
"""Batches that are answered at once at most: each holds its own maps in memory."""
_LONG = 0.25
"""Seconds for an image, above which threads share it with profit."""


class Replica:
    """Answers requests about images.

    Args:
        folder: Of the model: its networks, its scorer, the backbone's weights if they are included.
        device: That it computes on.
        threads: That it computes with, shared by up to :data:`MOST_LANES` batches at once.
        batch: Requests that it takes together at most.
        max_pixels: Larger images are refused before they are decoded.
        max_images: In one request.
    """

    def __init__(
        self, folder: str, *, device: str, threads: int, batch: int, max_pixels: int, max_images: int
    ) -> None:
        import torch

        from nfbmr.devices import device_of
        from nfbmr.inference import Answering

        torch.set_num_threads(threads)
        answering = Answering.load(Path(folder), device=device, max_pixels=max_pixels)
        each = -(-threads // MOST_LANES) if device_of(device).type == "cpu" else threads
        # What answers knows nothing of what waits: a model that was replaced goes with its last request.
        self._lanes = _Lanes(answering, max_images, threads // each, each, threads)
        self._batches: Batches[_Asked] = Batches(batch, self._lanes.answer, threads // each)

    async def __call__(self, job: Job) -> Reply:
        """Answer one request, together with others."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._batches.add((job, answer))
        return await answer

    async def ready(self) -> dict[str, Any]:
        """What the model gives; asked once, before requests are."""
        return {"threshold": self.threshold}

    @property
    def threshold(self) -> float:
        """The model's own."""
        return self._lanes.answering.predictor.limit()

    def close(self) -> None:
        """Leave what is not answered yet, after the image that is looked at."""
        self._lanes.stop.ask()


class _Lanes:
    """Threads that answer batches, one each, while the event loop goes on collecting the next.

    Args:
        answering: The model.
        max_images: In one request.
        count: How many.
        each: Threads that a batch is computed with beside others.
        threads: In all.
    """

    def __init__(self, answering: Answering, max_images: int, count: int, each: int, threads: int) -> None:
        import torch

        self.answering, self.stop = answering, StopRequest()
        self._max_images = max_images
        # torch gives a thread a number of its own once it has asked for one.
        self._pool = ThreadPoolExecutor(count, "answers", torch.get_num_threads)
        self._threads_together = each
        self._threads_alone = self._pool.submit(self._quickest, {each, threads}).result()

    def _quickest(self, counts: Collection[int]) -> int:
        """Of these numbers of threads, the one in which an image by itself is scored soonest.

        Small maps are sooner done by one thread than divided; large ones gain by each. The first request is
        then no slower than others.
        """
        import numpy as np
        import torch

        image = np.full((64, 64), 128, dtype=np.uint8)
        seconds: dict[int, float] = {}
        for threads in sorted(counts, reverse=True):
            torch.set_num_threads(threads)
            self.answering.rows([image], heatmaps=True)
            if len(counts) == 1:
                return threads
            for _ in range(3):
                taken = _seconds(lambda: self.answering.rows([image]))
                seconds[threads] = min(taken, seconds.get(threads, taken))
                if taken > _LONG:  # what takes so long gains by each thread, and is not to be done six times
                    return min(seconds, key=lambda threads: seconds[threads])
        return min(seconds, key=lambda threads: seconds[threads])

    async def answer(self, asked: Sequence[_Asked], alone: bool) -> None:
        """Answer a batch; `alone`: beside no other."""
        asked = [(job, answer) for job, answer in asked if not answer.done()]  # some have gone away
        jobs = [job for job, _ in asked]
        threads = self._threads_alone if alone else self._threads_together
        try:
            replies = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._replies, jobs, threads
            )
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), reply in zip(asked, replies, strict=True):
            if not answer.done():
                answer.set_result(reply)

    def _replies(self, jobs: list[Job], threads: int) -> list[Reply]:
        import torch

        torch.set_num_threads(threads)  # of this lane: OpenMP keeps a number for each
        try:
            return self._answered(jobs)
        except Interrupted:
            raise
        except Exception:
            if len(jobs) == 1:
                log.exception("a request failed")
                raise
            log.exception("%d requests failed together; they are answered one by one", len(jobs))
            return [self._alone(job) for job in jobs]

    def _alone(self, job: Job) -> Reply:
        """One request may fail; those that came with it should not."""
        try:
            return self._answered([job])[0]
        except Exception as error:
            log.exception("a request failed")
            return HttpError(500, f"this request could not be answered ({type(error).__name__})").reply()

    def _answered(self, jobs: Sequence[Job]) -> list[Reply]:
        read = [self._read(job) for job in jobs]
        questions = [question for parsed in read if isinstance(parsed, list) for question in parsed]
        rows = iter(self.answering.answers(questions, paths=False, stop=self.stop))
        return [
            self._said(job, [next(rows) for _ in parsed]) if isinstance(parsed, list) else parsed.reply()
            for job, parsed in zip(jobs, read, strict=True)
        ]

    def _read(self, job: Job) -> list[ScoreRequest] | HttpError:
        """The questions of a request, or what is wrong with it."""
        from cluster.serving.invocations import questions_of
        from nfbmr.data.images import check_size
        from nfbmr.data.sources import Encoded
        from nfbmr.errors import ImageError, ImageSizeError
        from nfbmr.inference import ScoreRequest

        try:
            if job.kind == "invocations":
                return questions_of(job.body, self._max_images)
            check_size(Encoded(job.body), self.answering.max_pixels)
            return [ScoreRequest(job.body, job.threshold, job.heatmap)]
        except HttpError as refusal:
            return refusal
        except ImageError as error:
            return HttpError(413 if isinstance(error, ImageSizeError) else 422, error.what, error.fix or "")

    @staticmethod
    def _said(job: Job, rows: list[dict[str, Any]]) -> Reply:
        if job.kind == "invocations":
            return Reply(200, json_bytes({"predictions": rows}))
        if rows[0]["error"] is not None:
            return HttpError(422, rows[0]["error"], "export it again as PNG, JPEG or TIFF").reply()
        return Reply(200, json_bytes(rows[0]))


def _seconds(work: Callable[[], object]) -> float:
    """How long something takes by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

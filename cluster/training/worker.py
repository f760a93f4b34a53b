"""What each worker of a run does, and how rank 0 keeps the driver informed."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfbmr.errors import ConfigError, NfbmrError
from nfbmr.run import Run
from nfbmr.stopping import StopRequest
from nfbmr.tracking import Tracker
from nfbmr.workers import DistributedGroup, ProcessGroup

REPORT_EVERY = 5.0
"""Seconds of training between two reports to Ray, which takes one at a poll: reporting every epoch would make
short epochs as long as the poll."""

RELAYED = ("nfbmr", "mlflow_server")
"""Loggers whose messages in rank 0 are messages of the driver."""


@dataclass(frozen=True)
class WorkerJob:
    """What workers are told to do.

    Attributes:
        run: Which.
        tracking: Makes the run's tracker, in rank 0.
        do: What every worker calls, with run, tracker, stop request, ``on_epoch`` and ``workers``.
        asks: Whether the driver wants to hear of each epoch.
        folder: The driver's working directory: relative paths mean here what they mean there.
        level: The driver's level of logging.
        environment: Variables that workers take from the driver: the tracking server's address.
    """

    run: Run
    tracking: Callable[[Run], Tracker]
    do: Callable[..., Any]
    asks: bool
    folder: Path
    level: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords are among them


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Carry out a job, in every worker of a group that Ray Train has made.

    Args:
        config: ``job``, pickled, and the ``channel``.

    Returns:
        ``returned`` (what `do` returned), or the pickled ``error`` (for people) or ``failure`` (a bug) that
        ended the run. Ray starts all workers again after an exception, so what would come again is returned.
    """
    import ray

    job: WorkerJob = pickle.loads(config["job"])  # noqa: S301 -- the driver's bytes
    channel = config["channel"]
    os.environ.update(job.environment)
    if job.folder.is_dir():
        os.chdir(job.folder)
    workers = DistributedGroup()
    failure = workers.broadcast(lambda: ray.get(channel.failure.remote()))
    if failure is not None:
        return {"failure": failure}
    if workers.rank == 0:
        channel.send.remote("begun")
        for name in RELAYED:
            logging.getLogger(name).setLevel(job.level)
            logging.getLogger(name).addHandler(_Relay(channel))
    stop = StopRequest()
    threading.Thread(target=_wait_for_stop, args=(channel, stop), name="stop", daemon=True).start()
    try:
        with workers.propagate_errors():
            _check_visible(job.run, workers)
        returned = job.do(
            job.run,
            job.tracking,
            stop,
            on_epoch=_Epochs(channel if job.asks and workers.rank == 0 else None),
            workers=workers,
        )
    except NfbmrError as error:
        return {"error": pickle.dumps(error)}
    except Exception as error:
        if not peer_lost(error):
            # The others may wait for gradients, so only their end frees them. Started again, all find this.
            ray.get(channel.fail.remote(_pickled(error)))
        raise
    return {"returned": returned}


def own_address() -> str:
    """Of the node that this process is on."""
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def peer_lost(error: BaseException) -> bool:
    """Whether this is what a worker sees of another's death."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    words = ("gloo", "nccl", "connection closed", "connection reset")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


class _Epochs:
    """Tells Ray of epochs now and then, and the driver of each."""

    def __init__(self, channel: Any | None) -> None:
        self._channel = channel
        self._seconds = 0.0

    def __call__(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch ended: every worker is told, and of the same numbers."""
        import ray.train

        self._seconds += metrics.get("seconds", 0.0)
        if self._seconds >= REPORT_EVERY:
            self._seconds = 0.0
            ray.train.report({f"{stage}/{name}": value for name, value in metrics.items()})
        if self._channel is not None:
            answer = ray.get(self._channel.ask.remote("epoch", (stage, epoch, dict(metrics))))
            if answer is not None:
                raise pickle.loads(answer)  # noqa: S301 -- the driver's bytes


class _Relay(logging.Handler):
    """Sends messages to the driver, which logs them as its own."""

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self.channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        try:
            self.channel.send.remote("log", (record.name, record.levelno, record.getMessage()))
        except Exception:
            self.handleError(record)


def _check_visible(run: Run, workers: ProcessGroup) -> None:
    """Refuse to begin where some node has other files than the driver's."""
    data = run.config.data
    wanted = {
        "the run's folder": run.paths.config,
        "data.path": data.path,
        "data.known_defects": data.known_defects,
    }
    lacking = [what for what, path in wanted.items() if isinstance(path, Path) and not path.exists()]
    lacking_by_node = workers.all_gather((own_address(), lacking))
    blind = {node: f"{node} does not see {' and '.join(what)}" for node, what in lacking_by_node if what}
    if blind:
        raise ConfigError(
            f"not every worker sees the files ({'; '.join(blind.values())})",
            where=run.paths.root,
            fix="keep images, store and runs on storage that all nodes share, and give absolute paths",
        )


def _wait_for_stop(channel: Any, stop: StopRequest) -> None:
    import ray

    try:
        ray.get(channel.stopped.remote())
    except Exception:  # the driver is gone, and so will this worker be
        return
    stop.ask()


def _pickled(error: Exception) -> bytes:
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301 -- our own, just made
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled

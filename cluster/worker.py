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
from nfbmr.tracking import Tracker
from nfbmr.training.stopping import StopRequest
from nfbmr.training.workers import Group, Workers

REPORT_EVERY = 5.0
"""Seconds of training between two reports to Ray, which takes one at a poll: reporting every epoch would make
short epochs as long as the poll."""

TOLD = ("nfbmr", "mlflow_server")
"""Loggers whose messages in rank 0 are messages of the driver."""


@dataclass(frozen=True)
class Order:
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
    do: Callable[..., dict[str, Any]]
    asks: bool
    folder: Path
    level: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords are among them


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order, in every worker of a group that Ray Train has made.

    Args:
        config: ``order``, pickled, and the ``mailbox``.

    Returns:
        ``summary``, or the pickled ``error`` (for people) or ``failure`` (a bug) that ended the run. Ray
        starts all workers again after an exception, so what would come again is returned.
    """
    import ray

    order: Order = pickle.loads(config["order"])  # noqa: S301 -- the driver's bytes
    mailbox = config["mailbox"]
    os.environ.update(order.environment)
    if order.folder.is_dir():
        os.chdir(order.folder)
    workers = Group()
    failure = workers.from_first(lambda: ray.get(mailbox.failure.remote()))
    if failure is not None:
        return {"failure": failure}
    if workers.rank == 0:
        mailbox.post.remote("begun")
        _relay_log(mailbox, order.level)
    stop = StopRequest()
    threading.Thread(target=_wait_for_stop, args=(mailbox, stop), name="stop", daemon=True).start()
    try:
        with workers.together():
            _check_visible(order.run, workers)
        summary = order.do(
            order.run,
            order.tracking,
            stop,
            on_epoch=_Epochs(mailbox if order.asks and workers.rank == 0 else None),
            workers=workers,
        )
    except NfbmrError as error:
        return {"error": pickle.dumps(error)}
    except Exception as error:
        if not peer_lost(error):
            # The others may wait for gradients, so only their end frees them. Started again, all find this.
            ray.get(mailbox.fail.remote(_pickled(error)))
        raise
    return {"summary": summary}


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

    def __init__(self, mailbox: Any | None) -> None:
        self._mailbox = mailbox
        self._seconds = 0.0

    def __call__(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch ended: every worker is told, and of the same numbers."""
        import ray.train

        self._seconds += metrics.get("seconds", 0.0)
        if self._seconds >= REPORT_EVERY:
            self._seconds = 0.0
            ray.train.report({f"{stage}/{name}": value for name, value in metrics.items()})
        if self._mailbox is not None:
            answer = ray.get(self._mailbox.ask.remote("epoch", (stage, epoch, dict(metrics))))
            if answer is not None:
                raise pickle.loads(answer)  # noqa: S301 -- the driver's bytes


class _Relay(logging.Handler):
    """Sends messages to the driver, which logs them as its own."""

    def __init__(self, mailbox: Any) -> None:
        super().__init__()
        self.mailbox = mailbox

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        try:
            self.mailbox.post.remote("log", (record.name, record.levelno, record.getMessage()))
        except Exception:
            self.handleError(record)


def _relay_log(mailbox: Any, level: int) -> None:
    for name in TOLD:
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).addHandler(_Relay(mailbox))


def _check_visible(run: Run, workers: Workers) -> None:
    """Refuse to begin where some node has other files than the driver's."""
    wanted = {"the run's folder": run.paths.config, "data.path": run.config.data.path}
    lacking = [what for what, path in wanted.items() if path is not None and not path.exists()]
    told = workers.gather((own_address(), lacking))
    blind = {node: f"{node} does not see {' and '.join(what)}" for node, what in told if what}
    if blind:
        raise ConfigError(
            f"not every worker sees the files ({'; '.join(blind.values())})",
            where=run.paths.root,
            fix="keep images, store and runs on storage that all nodes share, and give absolute paths",
        )


def _wait_for_stop(mailbox: Any, stop: StopRequest) -> None:
    import ray

    try:
        ray.get(mailbox.stopped.remote())
    except Exception:  # the driver is gone, and so will this worker be
        return
    stop.ask()


def _pickled(error: Exception) -> bytes:
    try:
        found = pickle.dumps(error)
        pickle.loads(found)  # noqa: S301 -- our own, just made
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return found

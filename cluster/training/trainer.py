"""A run in the workers of a Ray Train ``TorchTrainer``: the same stages, spread over processes and machines.

The driver starts the workers, listens and waits. What has to survive lies in the run's folder, where rank 0
writes it: Ray restarts workers that died, and they go on from there. Nothing is stored with Ray.
"""

from __future__ import annotations

import logging
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from cluster.connection import Connection, connect
from cluster.ray_environment import passed_on
from cluster.training.driver_channel import open_channel
from cluster.training.worker import RELAYED, WorkerJob, own_address, peer_lost, work
from nfbmr import run as core
from nfbmr.config import Config, FeatureConfig
from nfbmr.devices import limit_threads
from nfbmr.errors import ConfigError, Interrupted, NfbmrError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.machine import usable_cores
from nfbmr.methods.fitting import OnEpoch
from nfbmr.prepare import extract_all
from nfbmr.run import Run
from nfbmr.stopping import StopRequest
from nfbmr.tracking import NoTracker, Tracker
from nfbmr.workers import PATIENCE, ProcessGroup

log = logging.getLogger(__name__)

RETRIES = 3
"""How often workers that died are started again. An error that would come again is not tried again."""

LISTEN = 0.5
"""Seconds after which the driver looks up from its messages."""


def execute_run(
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    *,
    workers: int,
    gpus_per_worker: float = 0.0,
    cpus_per_worker: float | None = None,
    test: bool = True,
    on_epoch: OnEpoch | None = None,
) -> RunSummary:
    """Do a run, or what is left of it, with several workers; see :func:`nfbmr.run.execute_run`.

    Joins the cluster that this process is connected to, or that ``RAY_ADDRESS`` names; else one is started
    here. The run's folder, the store and the images have to be visible wherever workers may run; relative
    paths mean what they mean here.

    Args:
        run: Which; a finished one is only read, without any worker.
        tracking: Makes the run's tracker, in rank 0; has to be picklable.
        stop: Asks the workers to checkpoint and stop.
        workers: How many processes.
        gpus_per_worker: A share of one, or several; NCCL then averages the gradients where each worker has
            whole GPUs, gloo otherwise.
        cpus_per_worker: By default one, or as many as there are where the cluster is started here.
        test: False ends before the test set is read.
        on_epoch: Called in this process, in the calling thread; training waits for it.

    Returns:
        The run's summary.

    Raises:
        NfbmrError: As in one process: what some worker met.
        Interrupted: A stop was asked for; a checkpoint is written.
    """
    finished = core.finished(run, test)
    if finished is not None:
        log.info("run %s is finished already", run.run_id)
        return finished
    if workers < 1:
        raise ConfigError("a run needs a worker", where=f"{workers} workers", fix="give one or more")
    with connect(cpus=max(workers, usable_cores())) as cluster:
        if cpus_per_worker is None:
            # A cluster of our own has nothing else to do.
            cpus_per_worker = max(1, usable_cores() // workers) if cluster.started else 1
        resources = {"CPU": cpus_per_worker} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
        driver = _Driver(
            run, tracking, stop, on_epoch, resume_command=f"nfbmr train --resume {run.paths.root}"
        )
        summary: RunSummary = driver.drive(cluster, workers, resources, partial(core.execute_run, test=test))
        return summary


def extract(
    config: Config,
    wanted: Sequence[FeatureConfig],
    stop: StopRequest,
    *,
    workers: int,
    folder: Path,
    resume_command: str,
    gpus_per_worker: float = 0.0,
) -> list[float]:
    """Extract with several workers, a processor each: they write their shards side by side.

    Args:
        config: Names images and store, which every worker has to see.
        wanted: Feature configurations, one after another.
        stop: Asks the workers to stop; what is extracted is stored.
        workers: How many processes.
        folder: For what Ray Train writes; on a path that every node sees, and removed afterwards.
        resume_command: How people go on after a stop.
        gpus_per_worker: A share of one.

    Returns:
        Seconds that each of `wanted` took.

    Raises:
        NfbmrError: As in one process: what some worker met.
        Interrupted: A stop was asked for.
    """
    run = core.new_run(config, run_id="extraction", folder=folder)
    resources = {"CPU": 1.0} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    try:
        with connect(cpus=workers) as cluster:
            driver = _Driver(run, _untracked, stop, None, resume_command=resume_command)
            seconds: list[float] = driver.drive(cluster, workers, resources, partial(_extract, tuple(wanted)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return seconds


def spare_workers(gpus_per_worker: float = 0.0) -> int:
    """Workers that the cluster has room for just now, where it has several machines; else 1.

    On one machine a process with all threads does as well, and is there already.
    """
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    if len({node["NodeManagerAddress"] for node in nodes if node["Alive"]}) < 2:
        return 1
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    room = free.get("CPU", 0.0)
    if gpus_per_worker:
        room = min(room, free.get("GPU", 0.0) // gpus_per_worker)
    return max(1, int(room))


def _extract(
    wanted: Sequence[FeatureConfig],
    run: Run,
    tracking: Callable[[Run], Tracker],
    stop: StopRequest,
    *,
    on_epoch: OnEpoch | None,
    workers: ProcessGroup,
) -> list[float]:
    """What each of several workers does to extract."""
    limit_threads()
    with workers.propagate_errors():
        return extract_all(run.config, wanted, stop, workers)


def _untracked(run: Run) -> Tracker:
    return NoTracker()


class _Driver:
    """The process that asked for the run: starts workers, listens to them, passes on what it is asked."""

    def __init__(
        self,
        run: Run,
        tracking: Callable[[Run], Tracker],
        stop: StopRequest,
        on_epoch: OnEpoch | None,
        *,
        resume_command: str,
    ) -> None:
        self.run, self.tracking, self.stop, self.on_epoch = run, tracking, stop, on_epoch
        self.resume_command = resume_command
        self.channel = open_channel()
        self._begun = self._asked = False
        self._own_error: BaseException | None = None
        self._result: Any = None

    def drive(
        self,
        cluster: Connection,
        workers: int,
        resources: Mapping[str, float],
        do: Callable[..., Any],
    ) -> Any:
        """From the first worker to what `do` returns."""
        import ray.cloudpickle

        job = WorkerJob(
            self.run,
            self.tracking,
            do,
            asks=self.on_epoch is not None,
            folder=Path.cwd(),
            level=logging.getLogger(RELAYED[0]).getEffectiveLevel(),
            environment=passed_on(),
        )
        loop_config = {
            "job": ray.cloudpickle.dumps(job),  # type: ignore[no-untyped-call]
            "channel": self.channel,
        }
        trainer = _trainer(self.run, workers, resources, loop_config)
        fitting = threading.Thread(target=self._fit, args=(trainer,), name="ray-train", daemon=True)
        fitting.start()
        try:
            self._listen(fitting, cluster)
            return self._returned()
        finally:
            shutil.rmtree(self.run.paths.ray, ignore_errors=True)

    def _fit(self, trainer: Any) -> None:
        import ray

        try:
            self._result = trainer.fit().return_value
        except BaseException as error:
            self._result = error
        finally:
            with suppress(Exception):  # this driver was stopped, and its channel is gone
                ray.get(self.channel.send.remote("end"))

    def _listen(self, fitting: threading.Thread, cluster: Connection) -> None:
        """Until the workers have ended."""
        import ray

        began = warned = time.monotonic()
        while fitting.is_alive():
            for kind, content in ray.get(self.channel.receive.remote(LISTEN)):
                self._read(kind, content)
                if kind == "end":
                    fitting.join()
            if self.stop.requested and not self._asked:
                self._asked = True
                ray.get(self.channel.stop.remote())
            if not self._begun and self.stop.requested:
                raise Interrupted(
                    "stopped before the workers had begun",
                    where=self.run.paths.root,
                    fix=f"go on with: {self.resume_command}",
                )
            if not self._begun and time.monotonic() - warned > 60:
                warned = time.monotonic()
                log.warning(
                    "no worker has begun after %.0f s; the cluster has %s in all",
                    warned - began,
                    {name: n for name, n in cluster.resources().items() if name in ("CPU", "GPU")},
                )

    def _read(self, kind: str, content: Any) -> None:
        import ray

        if kind == "begun":
            self._begun = True
        elif kind == "log":
            name, level, message = content
            logging.getLogger(name).log(level, "%s", message)
        elif kind == "epoch":
            ray.get(self.channel.answer.remote(self._heard(*content)))

    def _heard(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> bytes | None:
        """Pass an epoch on; the answer is an error that ends the run."""
        if self.on_epoch is None or self._own_error is not None:
            return None
        try:
            self.on_epoch(stage, epoch, metrics)
        except NfbmrError as error:
            return pickle.dumps(error)
        except Exception as error:
            self._own_error = error
            self.stop.ask()
        return None

    def _returned(self) -> Any:
        """What the workers returned, or the error that ended them."""
        if self._own_error is not None:
            raise self._own_error
        if isinstance(self._result, BaseException):
            self._record_failure()
            if not getattr(self._result, "worker_failures", None):
                raise self._result
            raise NfbmrError(
                f"the workers died {RETRIES + 1} times, the last time with: {_last_words(self._result)}",
                where=self.run.paths.root,
                fix="was memory short? Fewer workers on a node, or smaller batches, need less; go on with: "
                f"{self.resume_command}",
            ) from self._result
        if "error" in self._result:
            raise pickle.loads(self._result["error"])  # noqa: S301 -- our own worker's bytes
        if "failure" in self._result:
            self._record_failure()
            raise pickle.loads(self._result["failure"])  # noqa: S301
        return self._result["returned"]

    def _record_failure(self) -> None:
        """What rank 0 left open, since it could not know that nobody goes on."""
        try:
            self.tracking(self.run).finish("failed")
        except Exception as error:
            log.debug("the record stays open: %s", error)


def _trainer(run: Run, workers: int, resources: Mapping[str, float], loop_config: dict[str, Any]) -> Any:
    import ray.train
    import ray.train.torch

    api: Any = ray.train  # its types are those of its first version
    gpus = resources.get("GPU", 0)
    loopback = own_address() == "127.0.0.1"
    environment = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if loopback else {}
    return api.torch.TorchTrainer(
        work,
        train_loop_config=loop_config,
        scaling_config=api.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker=dict(resources),
        ),
        torch_config=api.torch.TorchConfig(
            # NCCL refuses two workers on one GPU.
            backend="cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo",
            timeout_s=int(PATIENCE.total_seconds()),
        ),
        run_config=api.RunConfig(
            name="train",
            storage_path=str(run.paths.ray.resolve()),
            failure_config=api.FailureConfig(max_failures=RETRIES),
            worker_runtime_env={"env_vars": environment},
        ),
    )


def _last_words(error: BaseException) -> str:
    """What the worker that died said, rather than the peers that missed it."""
    failures = list(getattr(error, "worker_failures", {}).values())
    first = next((failure for failure in failures if not peer_lost(failure)), failures[0])
    return f"{type(first).__name__}: {str(first).strip().splitlines()[0]}"

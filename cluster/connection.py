"""Joining a Ray cluster, or starting one here; every setting of Ray that this project relies on.

Inside the entrypoint of a submitted job Ray sets ``RAY_ADDRESS``, and that cluster is joined. Without an
address a cluster is started in this process, bound to loopback alone, and ended with the block.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from nfbmr.errors import ConfigError, MissingPackageError
from nfbmr.training.compute import usable_cores

log = logging.getLogger(__name__)

ENVIRONMENT = MappingProxyType(
    {
        # Nothing is sent to anybody.
        "RAY_USAGE_STATS_ENABLED": "0",
        # A killed node is found dead after 5 s, not 14; one that is merely slow still has 10 s an answer.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_initial_delay_ms": "1000",
        # Workers are started when there is work: those of a trial have an environment of their own anyway.
        "RAY_prestart_worker_first_driver": "0",
        # A task without a GPU keeps CUDA_VISIBLE_DEVICES as it is: Ray's coming default, without its warning.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray Train asks its workers for news this often; at its own 2 s every short epoch costs 2 s.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        # Workers that import torch on a busy machine, or wait for a node, need more than Ray Train's 60 s.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
        # Relative paths mean in a trial what they mean to whoever typed them.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Nothing that Tune writes is read again: no tables, no TensorBoard, no state of the experiment.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        # Ctrl-C is ours (StopRequest), and so is what people are told.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
)
"""What every process of ours that uses Ray, and every ``ray start``, has in its environment.

A value that is there already stays. The memory monitor keeps Ray's own settings: a worker is killed when 95 %
of the node's memory is in use.
"""

PASSED_ON = ("MLFLOW_", "AWS_", "HF_HUB_OFFLINE")
"""Environment variables, by their beginnings, that trials and workers take from the driver: a cluster that is
joined has an environment of its own. They travel inside Ray's messages and are listed nowhere. What differs
from machine to machine, such as ``NFBMR_CACHE``, stays a node's own."""

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0" Ray binds every port to 127.0.0.1 and keeps that address; its name tells why it was made.

Without it Ray takes ``--node-ip-address 127.0.0.1`` for the machine's own address and listens on all of them.
"""

OBJECT_STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here: features travel through files, and hardly anything through Ray."""

SOCKET_PATH_LIMIT = 107 - len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
PATIENCE = 5.0
"""Seconds in which an address has to answer at all."""
ATTEMPTS = 3
"""At starting a cluster."""


@dataclass(frozen=True)
class Connection:
    """A cluster that this process is a driver of.

    Attributes:
        address: Host and port of its head.
        started: Whether this process started it, and ends it.
    """

    address: str
    started: bool

    def resources(self) -> dict[str, float]:
        """What the living nodes have together, busy or not: ``CPU``, ``GPU``, ``memory``, ..."""
        import ray

        return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


@contextmanager
def connect(
    address: str | None = None, *, cpus: float | None = None, gpus: float | None = None
) -> Iterator[Connection]:
    """Join a cluster, or start one in this process, for as long as the block runs.

    A process that is connected already stays so, and keeps its connection afterwards.

    Args:
        address: Host and port of the head, or ``auto`` for the cluster started last on this machine; else
            ``RAY_ADDRESS``; else a cluster is started here, and ``local`` always starts one.
        cpus: Of a cluster that is started here; the usable cores by default.
        gpus: Likewise; those that are found by default.

    Raises:
        ConfigError: Nothing answers at the address, or it is not one of a cluster.
        MissingPackageError: Ray is not installed.

    Example:
        >>> with connect(cpus=4) as cluster:  # doctest: +SKIP
        ...     cluster.resources()["CPU"]
        4.0
    """
    connected: Any = sys.modules.get("ray")
    if connected is not None and connected.is_initialized():
        yield Connection(connected.get_runtime_context().gcs_address, started=False)
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare(loopback=address == "local" or _host(address) in ("localhost", "127.0.0.1", "::1"))
    ray = _import_ray()
    # Ray prints what happens to nodes on standard output, which is for results alone.
    with redirect_stdout(sys.stderr):
        if address == "local":
            with _started(ray, usable_cores() if cpus is None else cpus, gpus) as connection:
                yield connection
            return
        _check(address)
        _show_token()
        _init(ray, address)
        try:
            yield Connection(ray.get_runtime_context().gcs_address, started=False)
        finally:
            ray.shutdown()


def environment() -> dict[str, str]:
    """:data:`ENVIRONMENT` with the values that this process's own environment has."""
    return {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}


def passed_on() -> dict[str, str]:
    """What :data:`PASSED_ON` names, as this process has it."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


@contextmanager
def _started(ray: Any, cpus: float, gpus: float | None) -> Iterator[Connection]:
    folder = _temporary_folder()
    settings = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
    }
    try:
        for attempt in range(1, ATTEMPTS + 1):
            others = _children()
            try:
                _init(ray, "local", **settings)
                break
            except ConfigError:
                # Ray gives its processes half a minute, which a busy machine may not manage, and then leaves
                # them to themselves.
                ray.shutdown()
                _end(_children() - others)
                if attempt == ATTEMPTS:
                    raise
                log.warning("Ray did not start in time; trying once more")
        yield Connection(ray.get_runtime_context().gcs_address, started=True)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _init(ray: Any, address: str, **settings: Any) -> None:
    # Ray gives its workers our working directory as a place to import from; a checkout that is neither
    # installed nor the working directory is added. A submitted job brings its own copy.
    places = [] if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else [str(Path(__file__).parents[1])]
    try:
        with _signals_kept():
            ray.init(
                address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                job_config=ray.job_config.JobConfig(_py_driver_sys_path=places),
                **settings,
            )
    except Exception as error:
        what = f"({str(error).splitlines()[0]})"
        if address == "local":
            raise ConfigError(
                f"Ray cannot be started here {what}", fix="is there memory left? --local needs no Ray"
            ) from error
        raise ConfigError(
            f"the Ray cluster cannot be joined {what}",
            where=address,
            fix="is it Ray's address (port 6379 as a rule), of the same version, and is RAY_AUTH_TOKEN_PATH "
            "the cluster's token? Without --address and RAY_ADDRESS a cluster is started here",
        ) from error


def _children() -> set[Any]:
    import psutil

    return set(psutil.Process().children(recursive=True))


def _end(processes: set[Any]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=PATIENCE)


def _prepare(*, loopback: bool) -> None:
    """Set the environment, which Ray reads when it is imported and when it starts processes."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if loopback:
        os.environ[LOOPBACK_ONLY] = "0"
    constants: Any = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        # Imported before us: by a notebook, say.
        constants.ENABLE_RAY_CLUSTER = not loopback


def _show_token() -> None:
    """Use the token that there is: Ray looks for one by itself only where it starts a cluster or finds one.

    A cluster that wants none does not mind.
    """
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or path.is_file()):
        from ray import _raylet

        os.environ["RAY_AUTH_MODE"] = "token"
        cast(Any, _raylet).Config.initialize("")  # it was read when Ray was imported


def _import_ray() -> Any:
    try:
        import ray
        import ray.job_config
    except ImportError as error:
        raise MissingPackageError(
            "Ray is not installed", fix='pip install "ray[default,serve,tune,train]", or use --local'
        ) from error
    return ray


def _check(address: str) -> None:
    """Find out quickly whether anybody listens; Ray itself tries for a minute."""
    if address == "auto":
        return
    if address.startswith(("http://", "https://", "ray://")):
        raise ConfigError(
            "this is not the address of a cluster's head",
            where=address,
            fix="to send work to a cluster: nfbmr submit --address URL -- sweep ...; inside it, host:port",
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers ({error})",
            where=address,
            fix="check --address and RAY_ADDRESS, or leave both out: a cluster is then started here",
        ) from error


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _temporary_folder() -> Path:
    """A short one: the paths of sockets are limited to 107 bytes."""
    usual = Path(tempfile.mkdtemp(prefix="nfbmr-ray-"))
    if len(str(usual)) <= SOCKET_PATH_LIMIT:
        return usual
    usual.rmdir()
    return Path(tempfile.mkdtemp(prefix="nfbmr-ray-", dir="/tmp"))


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our own handlers: Ray replaces that of SIGTERM by one that exits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

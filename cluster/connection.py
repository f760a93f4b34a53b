"""Joining a Ray cluster, or starting one here.

Inside the entrypoint of a submitted job Ray sets ``RAY_ADDRESS``, and that cluster is joined. Without an
address a cluster is started in this process, bound to loopback alone, and ended with the block.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path
from typing import Any

from cluster.auth_token import make_token, may_show, read_token, use_tokens
from cluster.node import START_SECONDS, Node, NodeError, NodeSpec, node_environment, short_folder, start
from cluster.ray_environment import ENVIRONMENT, LOOPBACK_ONLY, as_driver_says
from nfbmr.errors import ConfigError, missing_package
from nfbmr.machine import usable_cores
from nfbmr.sockets import LOOPBACK
from nfbmr.stopping import signals_handled

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here: features travel through files, and hardly anything through Ray."""

PATIENCE = 5.0
"""Seconds in which an address has to answer at all."""


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
        gpus: Of a cluster that is started here; those that Ray finds by default.

    Raises:
        ConfigError: Nothing answers at the address, or it is not one of a cluster.
        MissingPackageError: Ray is not installed.
        TokenError: The file of the cluster's token cannot be read.

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
    for name, value in ENVIRONMENT.items():  # read when Ray is imported, and when it starts processes
        os.environ.setdefault(name, value)
    if address == "local" or _host(address) in ("localhost", "127.0.0.1", "::1"):
        os.environ[LOOPBACK_ONLY] = "0"
    if address != "local":
        _check(address)
        _show_token(address)
    elif "RAY_AUTH_MODE" not in os.environ:
        make_token()
        use_tokens()
    ray = _import_ray()
    # Ray prints what happens to nodes on standard output, which is for results alone.
    with redirect_stdout(sys.stderr):
        if address == "local":
            with _started(ray, usable_cores() if cpus is None else cpus, gpus) as connection:
                yield connection
            return
        _init(ray, address, _runtime_env())
        try:
            yield Connection(ray.get_runtime_context().gcs_address, started=False)
        finally:
            ray.shutdown()


@contextmanager
def _started(ray: Any, cpus: float, gpus: float | None) -> Iterator[Connection]:
    """A cluster of one node, which ends with the block, and with this process however it ends."""
    folder = short_folder()
    spec = NodeSpec(
        home=folder,
        number=0,
        cpus=math.ceil(cpus),
        gpus=None if gpus is None else math.ceil(gpus),
        object_store=OBJECT_STORE_BYTES,
        environment=node_environment(),
    )
    nodes: list[Node] = []
    try:
        nodes = start([spec], time.monotonic() + START_SECONDS)
        _init(ray, nodes[0].address, None)
        yield Connection(nodes[0].address, started=True)
    except NodeError as error:
        raise ConfigError(
            f"Ray cannot be started here: {error.what}", fix=f"{error.fix}; --local needs no Ray"
        ) from error
    finally:
        ray.shutdown()
        for node in nodes:
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _runtime_env() -> dict[str, Any] | None:
    """Where the workers of a cluster import this code from.

    Ray gives them our working directory; a checkout that is neither installed nor the working directory is
    added. A submitted job brings its own copy.
    """
    code = Path(__file__).parents[1]
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or code in (Path.cwd(), Path(get_path("purelib"))):
        return None
    return {"env_vars": {"PYTHONPATH": f"{code}{os.pathsep}${{PYTHONPATH}}"}}


def _init(ray: Any, address: str, runtime_env: dict[str, Any] | None) -> None:
    try:
        with signals_handled():  # Ray replaces that of SIGTERM by one that exits
            ray.init(
                address if address == "auto" else as_driver_says(address),
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env=runtime_env,
            )
    except Exception as error:
        raise ConfigError(
            f"the Ray cluster cannot be joined ({str(error).splitlines()[0]})",
            where=address,
            fix="is it Ray's address (port 6379 as a rule), of the same version, and is RAY_AUTH_TOKEN_PATH "
            "the cluster's token? Without --address and RAY_ADDRESS a cluster is started here",
        ) from error


def _show_token(address: str) -> None:
    """Use the token that there is: Ray looks for one by itself only where it finds a cluster by itself.

    A cluster that wants none does not mind. Where RAY_AUTH_MODE is set, it is Ray's to follow it: between
    the nodes of a cluster, say.
    """
    if "RAY_AUTH_MODE" in os.environ or read_token() is None:
        return
    host = LOOPBACK if address == "auto" else _host(address)
    if may_show(host, encrypted=os.environ.get("RAY_USE_TLS") == "1"):
        use_tokens()
        return
    log.warning(
        "%s: the token is not sent there, since it could be read on the way; export RAY_USE_TLS=1, or "
        "RAY_AUTH_MODE=token where the network is the cluster's alone",
        address,
    )


def _import_ray() -> Any:
    try:
        import ray
        import ray.job_config
    except ImportError as error:
        raise missing_package("ray", otherwise="use --local") from error
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

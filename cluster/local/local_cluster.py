"""A private Ray cluster on this machine: ``nfbmr cluster up``, ``status``, ``down``.

Every process of it listens on loopback alone and asks for a token, which lies in a file that only its owner
can read. Nodes are processes of their own (:mod:`cluster.node`), so that one can be killed, or added, as on a
real cluster. All are ended by process id, never by name: other clusters on the machine are left alone.

::

    <folder>/                 .nfbmr/cluster
       cluster.json           address, dashboard, nodes and their process ids
       env.sh                 what a shell sources to use it
       lock                   held while something is started or ended
    <home>/                   a folder of its own in the temporary folder, mode 0700
       token                  mode 0600
       node-0.log, ray/       what Ray writes
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cluster.node import (
    START_SECONDS,
    NodeError,
    NodeSpec,
    end,
    family,
    node_environment,
    short_folder,
    start,
)
from cluster.ray_environment import LOOPBACK_ONLY
from nfbmr.errors import NfbmrError, require_package
from nfbmr.locks import always, file_lock
from nfbmr.machine import usable_cores
from nfbmr.paths import write_json, write_text
from nfbmr.secret_files import new_secret

FOLDER = Path(".nfbmr/cluster")
"""Where a private cluster keeps its files, in the working directory."""
_OBJECT_STORE = 200 * 2**20
JOB_STOP_SECONDS = 120
"""Seconds that a job has to end by itself once it is stopped."""
_MARK = "NFBMR_CLUSTER_MARK"


class ClusterError(NfbmrError):
    """A cluster, or a job on it, that cannot be had as it was asked for."""


@dataclass(frozen=True)
class LocalNode:
    """A node of a private cluster.

    Attributes:
        number: From 0, the head.
        cpus: What tasks may ask of it.
        gpus: What tasks may ask of it.
        processes: Process ids by what they are: ``node``, which holds the others, ``raylet``, and for the
            head ``gcs_server``.
    """

    number: int
    cpus: int
    gpus: int
    processes: Mapping[str, int]


@dataclass(frozen=True)
class LocalCluster:
    """A private cluster.

    Attributes:
        home: Its temporary folder.
        mark: In the environment of each of its processes, and of no other.
        address: Of the head, ``127.0.0.1:port``, for drivers.
        dashboard: Of the dashboard and job server, ``http://127.0.0.1:port``.
        nodes: The head first.
    """

    home: Path
    mark: str
    address: str = ""
    dashboard: str = ""
    nodes: tuple[LocalNode, ...] = field(default=())

    @property
    def token(self) -> Path:
        """The file with the token that every request must show."""
        return self.home / "token"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use the cluster."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            LOOPBACK_ONLY: "0",
            "RAY_ADDRESS": self.address,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
        }

    @property
    def alive(self) -> bool:
        """Whether its head is there."""
        return bool(self.nodes) and self.running(self.nodes[0])

    def running(self, node: LocalNode) -> bool:
        """Whether a node is there: its raylet runs, and is this cluster's."""
        return has_mark(node.processes.get("raylet"), self.mark)


def up(
    nodes: int = 2,
    cpus: int | None = None,
    *,
    gpus: int = 0,
    folder: Path = FOLDER,
    object_store: int = _OBJECT_STORE,
    seconds: float = START_SECONDS,
) -> LocalCluster:
    """Start a private cluster, and return when all of its nodes are there.

    Args:
        nodes: How many, the head among them.
        cpus: Of each node; by default this machine's are shared out. More than there are is allowed.
        gpus: Of each node; each is given its own.
        folder: Remembers the cluster. There is one cluster in a folder.
        object_store: Bytes of shared memory of each node, for Ray's objects.
        seconds: In which all of them are there, or none.

    Raises:
        ClusterError: There is one already, or a node did not start; then nothing of it is left.
    """
    require_package("ray")
    if nodes < 1:
        raise ClusterError(f"a cluster of {nodes} nodes", fix="ask for at least one: the head")
    with _locked(folder):
        earlier = find(folder)
        if earlier is not None and earlier.alive:
            raise ClusterError(
                f"a cluster of {len(earlier.nodes)} nodes is up already, at {earlier.dashboard}",
                where=folder,
                fix="nfbmr cluster status shows it, add adds a node to it, down ends it",
            )
        if earlier is not None:
            _clear(earlier, folder)
        cluster = LocalCluster(short_folder(), secrets.token_hex(16))
        new_secret(cluster.token)
        try:
            cpus = cpus or max(1, usable_cores() // nodes)
            return _grow(cluster, nodes, cpus, gpus, folder, object_store, seconds)
        except BaseException:
            shutil.rmtree(cluster.home, ignore_errors=True)
            raise


def add(
    nodes: int = 1,
    cpus: int | None = None,
    *,
    gpus: int = 0,
    folder: Path = FOLDER,
    seconds: float = START_SECONDS,
) -> LocalCluster:
    """Add nodes to a private cluster that is up.

    Raises:
        ClusterError: There is none, or a node did not start.
    """
    with _locked(folder):
        cluster = require(folder)
        return _grow(cluster, nodes, cpus or cluster.nodes[0].cpus, gpus, folder, _OBJECT_STORE, seconds)


def down(folder: Path = FOLDER) -> list[int]:
    """End a private cluster: every process of it, and its temporary folder.

    Returns:
        Ids of the processes that were ended; none where there was no cluster.
    """
    with _locked(folder):
        cluster = find(folder)
        return [] if cluster is None else _clear(cluster, folder)


def find(folder: Path = FOLDER) -> LocalCluster | None:
    """The cluster that a folder remembers, up or not; None where it remembers none."""
    try:
        return TypeAdapter(LocalCluster).validate_json(_state(folder).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cannot be read ({error})", where=_state(folder), fix="remove it; it remembers a private cluster"
        ) from error


def require(folder: Path = FOLDER) -> LocalCluster:
    """The cluster that is up.

    Raises:
        ClusterError: There is none.
    """
    cluster = find(folder)
    if cluster is None or not cluster.alive:
        state = "no cluster is up" if cluster is None else "the cluster's head is no longer running"
        raise ClusterError(state, where=folder, fix="start one with: nfbmr cluster up")
    return cluster


def usage(cluster: LocalCluster) -> dict[str, tuple[float, float]]:
    """CPUs and GPUs, used and in all; empty where the head does not answer."""
    import requests

    try:
        token = cluster.token.read_text(encoding="utf-8").strip()
        url, headers = f"{cluster.dashboard}/api/cluster_status", {"Authorization": f"Bearer {token}"}
        status = requests.get(url, headers=headers, timeout=5).json()["data"]["clusterStatus"]
        used = status["loadMetricsReport"]["usage"]
    except (requests.RequestException, OSError, KeyError, TypeError, ValueError):
        return {}
    return {name: (used[name][0], used[name][1]) for name in ("CPU", "GPU") if name in used}


def has_mark(pid: int | None, mark: str) -> bool:
    """Whether a process is there and carries a cluster's mark in its environment."""
    import psutil

    if pid is None or pid == os.getpid():
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):
        return False


def marked(mark: str) -> list[Any]:
    """The processes of a cluster: those that carry its mark, and all below them.

    Ray's workers overwrite their environment with a title; they are found as children of their node.
    """
    import psutil

    pids = [pid for pid in psutil.pids() if has_mark(pid, mark)]
    return list({member.pid: member for pid in pids for member in family(pid)}.values())


def _grow(
    cluster: LocalCluster, nodes: int, cpus: int, gpus: int, folder: Path, object_store: int, seconds: float
) -> LocalCluster:
    """Start nodes, the head first where there is none, and write down what there is then."""
    import psutil

    first, deadline = len(cluster.nodes), time.monotonic() + seconds
    if cluster.nodes:
        first = max(node.number for node in cluster.nodes) + 1
    memory = int(psutil.virtual_memory().total * 0.7 / (first + nodes))
    specs = [
        NodeSpec(
            home=cluster.home,
            number=number,
            cpus=cpus,
            gpus=gpus,
            object_store=object_store,
            memory=memory,
            head=cluster.address or None,
            dashboard=number == 0,
            environment=_environment(cluster, number, gpus),
        )
        for number in range(first, first + nodes)
    ]
    try:
        started = start(specs, deadline)
    except NodeError as error:
        raise ClusterError(error.what, fix=error.fix) from error
    if not cluster.nodes:
        cluster = replace(cluster, address=started[0].address, dashboard=started[0].dashboard)
    new = [LocalNode(node.spec.number, cpus, gpus, node.processes) for node in started]
    cluster = replace(cluster, nodes=(*cluster.nodes, *new))
    _remember(cluster, folder)
    for node in started:
        node.keep()
    return cluster


def _environment(cluster: LocalCluster, number: int, gpus: int) -> dict[str, str]:
    """Of a node's processes: the cluster's token and mark, and GPUs that no other node has."""
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(cluster.token),
        _MARK: cluster.mark,
        # A job that is stopped has this long to write its checkpoints; Ray's own default is 3 s.
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_SECONDS),
    }
    if gpus:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = visible or [str(index) for index in range(gpus * (number + 1))]
        names_here = names[gpus * number : gpus * (number + 1)]
        if len(names_here) < gpus:
            raise ClusterError(
                f"node {number} needs {gpus} GPUs of its own, and {len(names)} are visible in all",
                where="CUDA_VISIBLE_DEVICES",
                fix="ask for fewer nodes or GPUs",
            )
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(names_here)
    whole = node_environment(**variables)
    whole.pop("RAY_AUTH_TOKEN", None)  # of another cluster
    return whole


def _remember(cluster: LocalCluster, folder: Path) -> None:
    lines = [f"export {name}={value}\n" for name, value in cluster.environment.items()]
    write_text(folder / "env.sh", "".join(lines))
    write_json(_state(folder), asdict(cluster))


def _clear(cluster: LocalCluster, folder: Path) -> list[int]:
    ended = end(marked(cluster.mark), first=[node.processes["node"] for node in cluster.nodes])
    shutil.rmtree(cluster.home, ignore_errors=True)
    for file in (_state(folder), folder / "env.sh"):
        file.unlink(missing_ok=True)
    return ended


def _state(folder: Path) -> Path:
    return folder / "cluster.json"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    def held() -> ClusterError:
        return ClusterError(
            "another command is starting or ending this cluster", where=folder, fix="wait until it is done"
        )

    with file_lock(folder / "lock", held=held, give_up=always):
        yield

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

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.connection import LOOPBACK_ONLY, environment
from cluster.node import KEEP, START_SECONDS, TRY_AGAIN, NodeSpec, free_ports
from cluster.processes import MARK, end, family, has_mark, marked
from nfbmr.errors import NfbmrError
from nfbmr.paths import write_json, write_text

log = logging.getLogger(__name__)

FOLDER = Path(".nfbmr/cluster")
OBJECT_STORE = 200 * 2**20
STOP_SECONDS = 20.0
JOB_STOP_SECONDS = 120
ATTEMPTS = 4


class ClusterError(NfbmrError):
    """A cluster, or a job on it, that cannot be had as it was asked for."""


@dataclass(frozen=True)
class LocalNode:
    """A node of a private cluster.

    Attributes:
        number: From 0, the head.
        node_id: Ray's name for it.
        cpus: What tasks may ask of it.
        gpus: Likewise.
        processes: Process ids by what they are: ``node`` (ours, which holds the others), ``raylet``, and for
            the head ``gcs_server`` and ``dashboard``.
    """

    number: int
    node_id: str
    cpus: float
    gpus: float
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
    address: str
    dashboard: str
    nodes: tuple[LocalNode, ...] = field(default=())

    @property
    def token(self) -> Path:
        """The file with the token that every request must show."""
        return self.home / "token"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use the cluster."""
        return {
            **_settings(self.token),
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

    def as_json(self) -> dict[str, Any]:
        """For the file, and for ``--json``; it holds no token."""
        return {**asdict(self), "home": str(self.home)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LocalCluster:
        """What :meth:`as_json` gave."""
        nodes = tuple(LocalNode(**node) for node in values["nodes"])
        return cls(**{**values, "home": Path(values["home"]), "nodes": nodes})


def up(
    nodes: int = 2,
    cpus: float | None = None,
    *,
    gpus: int = 0,
    folder: Path = FOLDER,
    object_store: int = OBJECT_STORE,
) -> LocalCluster:
    """Start a private cluster, and return when all of its nodes are there.

    Args:
        nodes: How many, the head among them.
        cpus: Of each node; by default this machine's are shared out. More than there are is allowed.
        gpus: Of each node; each is given its own.
        folder: Remembers the cluster. There is one cluster in a folder.
        object_store: Bytes of shared memory of each node, for Ray's objects.

    Raises:
        ClusterError: There is one already, or a node did not start; then nothing of it is left.
    """
    if nodes < 1:
        raise ClusterError(f"a cluster of {nodes} nodes", fix="ask for at least one: the head")
    cpus = cpus or max(1, _usable_cpus() // nodes)
    with _locked(folder):
        before = find(folder)
        if before is not None and before.alive:
            raise ClusterError(
                f"a cluster of {len(before.nodes)} nodes is up already, at {before.dashboard}",
                where=folder,
                fix="nfbmr cluster status shows it, add adds a node to it, down ends it",
            )
        if before is not None:
            _clear(before, folder)
        home = _new_home()
        mark = secrets.token_hex(16)
        starting = _Starting(home, mark, folder)
        with starting:
            spec = NodeSpec(
                home=str(home),
                number=0,
                cpus=cpus,
                gpus=gpus,
                memory=_memory_share(nodes),
                object_store=object_store,
                dashboard_port=free_ports(1)[0],
            )
            head = starting.node(spec)
            others = [replace(spec, number=number, address=head["address"]) for number in range(1, nodes)]
            cluster = LocalCluster(home, mark, head["address"], head["dashboard"])
            cluster = starting.finish(cluster, [spec, *others])
    return cluster


def add(nodes: int = 1, cpus: float | None = None, *, gpus: int = 0, folder: Path = FOLDER) -> LocalCluster:
    """Add nodes to a private cluster that is up.

    Raises:
        ClusterError: There is none, or a node did not start.
    """
    with _locked(folder):
        cluster = require(folder)
        first = max(node.number for node in cluster.nodes) + 1
        specs = [
            NodeSpec(
                home=str(cluster.home),
                number=number,
                cpus=cpus or cluster.nodes[0].cpus,
                gpus=gpus,
                memory=_memory_share(first + nodes),
                object_store=OBJECT_STORE,
                address=cluster.address,
            )
            for number in range(first, first + nodes)
        ]
        with _Starting(cluster.home, cluster.mark, folder, own_home=False) as starting:
            return starting.finish(cluster, specs)


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
        return LocalCluster.from_json(json.loads(_state(folder).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
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
        answer = requests.get(
            f"{cluster.dashboard}/api/cluster_status",
            headers={"Authorization": f"Bearer {token}"},
            timeout=5,
        ).json()
        found = answer["data"]["clusterStatus"]["loadMetricsReport"]["usage"]
    except (requests.RequestException, OSError, KeyError, TypeError, ValueError):
        return {}
    return {name: (found[name][0], found[name][1]) for name in ("CPU", "GPU") if name in found}


class _Starting:
    """Nodes that are being started; unless :meth:`finish` is reached, all of them are ended."""

    def __init__(self, home: Path, mark: str, folder: Path, *, own_home: bool = True) -> None:
        self.home, self.mark, self.folder, self.own_home = home, mark, folder, own_home
        self._processes: dict[NodeSpec, subprocess.Popen[bytes]] = {}
        self._finished = False

    def __enter__(self) -> _Starting:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # without the word, the node ends by itself
        if self._finished:
            return
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if self.own_home:
            end(marked(self.mark))
            shutil.rmtree(self.home, ignore_errors=True)
        else:
            end([member for process in self._processes.values() for member in family(process.pid)])

    def node(self, spec: NodeSpec) -> dict[str, Any]:
        """Start a node and wait for it."""
        self.launch(spec)
        return self.wait(spec)

    def launch(self, spec: NodeSpec) -> subprocess.Popen[bytes]:
        """Start a node."""
        with spec.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cluster.node", spec.as_argument()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_node_environment(self.home / "token", self.mark, spec),
                start_new_session=True,
            )
        self._processes[spec] = process
        return process

    def wait(self, spec: NodeSpec) -> dict[str, Any]:
        """What a node says when it is there."""
        process, attempts = self._processes[spec], 1
        deadline = time.monotonic() + START_SECONDS
        while not spec.told.exists():
            if process.poll() is not None and attempts < ATTEMPTS and _may_try_again(spec):
                log.info("node %d: this machine is busy; starting it once more", spec.number)
                process, attempts = self.launch(spec), attempts + 1
            elif process.poll() is not None or time.monotonic() > deadline:
                state = "ended" if process.poll() is not None else f"is not there after {START_SECONDS:g} s"
                last = spec.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
                raise ClusterError(
                    "\n".join([f"node {spec.number} {state}; the last it said:", *last]),
                    fix="check that memory, /dev/shm and processes suffice, or ask for fewer nodes",
                )
            time.sleep(0.05)
        told: dict[str, Any] = json.loads(spec.told.read_text(encoding="utf-8"))
        return told

    def finish(self, cluster: LocalCluster, specs: Sequence[NodeSpec]) -> LocalCluster:
        """Start what is not started, write the cluster down, and let the nodes stay."""
        for spec in specs:
            if spec not in self._processes:
                self.launch(spec)
        new = []
        for spec in self._processes:
            told = self.wait(spec)
            new.append(LocalNode(spec.number, told["node_id"], spec.cpus, spec.gpus, told["processes"]))
        cluster = replace(cluster, nodes=(*cluster.nodes, *new))
        _remember(cluster, self.folder)
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.write(KEEP + b"\n")
                process.stdin.flush()
            # It outlives this command; should it end before, nothing of it is to linger.
            threading.Thread(target=process.wait, daemon=True).start()
        self._finished = True
        return cluster


def _may_try_again(spec: NodeSpec) -> bool:
    return TRY_AGAIN in spec.log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _settings(token: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        LOOPBACK_ONLY: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _node_environment(token: Path, mark: str, spec: NodeSpec) -> dict[str, str]:
    elsewhere = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in elsewhere and not name.startswith("RAY_JOB_")
    }
    code = str(Path(__file__).resolve().parents[1])
    metrics = free_ports(2)
    ours = {
        **environment(),
        **_settings(token),
        MARK: mark,
        # Ray also writes down "the latest cluster" somewhere; not where others look for theirs.
        "RAY_TMPDIR": str(Path(spec.home) / "ray"),
        # A job that is stopped has this long to write its checkpoints; Ray's own default is 3 s.
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_SECONDS),
        "AUTOSCALER_METRIC_PORT": str(metrics[0]),
        "DASHBOARD_METRIC_PORT": str(metrics[1]),
        # Jobs say `python`, and mean this one.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")])),
    }
    if spec.gpus:
        ours["CUDA_VISIBLE_DEVICES"] = ",".join(_gpus_of(spec))
    return {**kept, **ours}


def _gpus_of(spec: NodeSpec) -> list[str]:
    """The GPUs of a node: each node has its own."""
    count, first = int(spec.gpus), int(spec.gpus) * spec.number
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(index) for index in range(first + count)]
    if len(names) < first + count:
        raise ClusterError(
            f"node {spec.number} needs {count} GPUs of its own, and {len(names)} are visible in all",
            where="CUDA_VISIBLE_DEVICES",
            fix="ask for fewer nodes or GPUs",
        )
    return names[first : first + count]


def _new_home() -> Path:
    # Ray makes its folders writable for all; the one around them is not. Unix sockets below it allow paths of
    # 107 bytes, of which Ray needs 75.
    base = tempfile.gettempdir()
    home = Path(tempfile.mkdtemp(prefix="nfbmr-", dir=base if len(base) <= 16 else "/tmp"))
    token = os.open(home / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(token, "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(32))
    return home


def _remember(cluster: LocalCluster, folder: Path) -> None:
    lines = [f"export {name}={value}" for name, value in cluster.environment.items()]
    write_text(folder / "env.sh", "\n".join(lines) + "\n")
    write_json(_state(folder), cluster.as_json())


def _clear(cluster: LocalCluster, folder: Path) -> list[int]:
    ended = end(marked(cluster.mark), first=[node.processes["node"] for node in cluster.nodes])
    shutil.rmtree(cluster.home, ignore_errors=True)
    for file in (_state(folder), folder / "env.sh"):
        file.unlink(missing_ok=True)
    return ended


def _state(folder: Path) -> Path:
    return folder / "cluster.json"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClusterError(
                "another command is starting or ending this cluster",
                where=folder,
                fix="wait until it is done",
            ) from error
        yield


def _usable_cpus() -> int:
    from nfbmr.training.compute import usable_cores

    return usable_cores()


def _memory_share(nodes: int) -> int:
    import psutil

    return int(psutil.virtual_memory().total * 0.7 / nodes)

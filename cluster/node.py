"""Nodes of a cluster on this machine: ``ray start``, with every port on loopback, and with patience.

A node lives as long as whoever started it, or until it is ended: it waits for a word on its standard input,
and the end of the input ends it. So a command that is killed half way leaves nothing behind.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from cluster.ray_environment import LOOPBACK_ONLY, as_driver_says, environment
from nfbmr.errors import NfbmrError
from nfbmr.machine import busy
from nfbmr.sockets import LOOPBACK, free_ports

log = logging.getLogger(__name__)

START_SECONDS = 55.0
"""In which nodes are there, or are given up with words, unless somebody has more patience."""
ATTEMPTS = 3
"""Times that a node is started before it is given up."""
_STOP_SECONDS = 20.0

_KEEP = b"keep\n"
_STARTED = "Ray runtime started"
_SLOW = ("timed out during startup", "exited unexpectedly")
_WATCHED = """
exec 3<&0
( { read -r word <&3 || { kill $$; sleep 5; rm -rf "$0"; }; } 2>/dev/null & )
exec "$@" 3<&- </dev/null
"""


class NodeError(NfbmrError):
    """A node that does not start."""


@dataclass(frozen=True)
class NodeSpec:
    """What a node is to be.

    Attributes:
        home: The cluster's temporary folder, whose path is short: Ray's sockets lie below it.
        number: Of the node, from 0.
        cpus: What tasks may ask of it.
        gpus: What tasks may ask of it; None: those that Ray finds.
        object_store: Bytes of shared memory for Ray's objects.
        memory: Bytes that tasks may ask of it; None leaves it to Ray.
        head: Address of the head, ``host:port``; None makes this the head.
        dashboard: Whether the head has a dashboard, which is the job server.
        environment: Of its processes.
    """

    home: Path
    number: int
    cpus: int
    gpus: int | None
    object_store: int
    memory: int | None = None
    head: str | None = None
    dashboard: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def log(self) -> Path:
        """What the node's processes print."""
        return self.home / f"node-{self.number}.log"

    @property
    def folder(self) -> Path:
        """Ray's own files: a node that comes later must not unpack a running job's files anew."""
        return self.home / (f"ray-{self.number}" if self.head else "ray")


class Node:
    """A node that is being started, or has been.

    Attributes:
        spec: What it is to be.
        address: Of the head, ``host:port``.
        dashboard: Of the head's dashboard; empty where it has none.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self._attempts = 0
        self._launch()

    def _launch(self) -> None:
        spec = self.spec
        port, dashboard, client = free_ports(3)
        self.address = spec.head or f"{LOOPBACK}:{port}"
        self.dashboard = f"http://{LOOPBACK}:{dashboard}" if spec.dashboard else ""
        options: dict[str, Any] = {
            "--num-cpus": spec.cpus,
            "--num-gpus": spec.gpus,
            "--object-store-memory": spec.object_store,
            "--memory": spec.memory,
            "--temp-dir": spec.folder,
            "--log-style": "record",
            "--log-color": "false",
            # The defaults are those of other clusters on this machine.
            **dict.fromkeys(("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port"), 0),
            **dict.fromkeys(("--runtime-env-agent-port", "--metrics-export-port"), 0),
        }
        if spec.head:
            options["--address"] = as_driver_says(spec.head)
        else:
            options |= {"--node-ip-address": LOOPBACK, "--port": port, "--ray-client-server-port": client}
            options |= {"--include-dashboard": spec.dashboard, "--dashboard-port": dashboard}
        words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *["--head"] * (not spec.head)]
        variables = {**spec.environment, "RAY_TMPDIR": str(spec.folder), LOOPBACK_ONLY: "0"}
        # Ended at once: what runs on it has been asked to stop, or is of no use to anybody.
        variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
        variables |= zip(
            ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), map(str, free_ports(2)), strict=True
        )
        if spec.head:
            del variables[LOOPBACK_ONLY]
        spec.log.unlink(missing_ok=True)
        with spec.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, str(spec.folder if spec.head else spec.home), *ray, *words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self._attempts += 1

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by what they are: ``node``, which holds the others, ``raylet``, ``gcs_server``."""
        members = {member.name(): member.pid for member in family(self.process.pid)[1:]}
        names = [name for name in ("raylet", "gcs_server") if name in members]
        return {"node": self.process.pid, **{name: members[name] for name in names}}

    def wait(self, deadline: float) -> None:
        """Return when it is there.

        Args:
            deadline: On the clock of :func:`time.monotonic`.

        Raises:
            NodeError: It is not.
        """
        while _STARTED not in self._said():
            gone, late = self.process.poll() is not None, time.monotonic() > deadline
            slow = gone and any(sign in self._said() for sign in _SLOW)
            if not late and self._attempts < ATTEMPTS and (self._is_broken() or slow):
                log.warning("Ray did not start in time; trying once more")
                self.stop(kill=True)
                self._launch()
            elif gone or late:
                raise self._error("ended" if gone else "is not there in time")
            time.sleep(0.5)
            self._end_client_server()

    def keep(self) -> None:
        """Let it live on when this process has ended."""
        self._release()
        # Should it end before this process does, nothing of it is to linger.
        threading.Thread(target=self.process.wait, daemon=True).start()

    def stop(self, *, kill: bool = False) -> None:
        """End it, and all below it; with `kill` at once."""
        members = family(self.process.pid)
        if kill:
            for member in members:
                _signal(member, signal.SIGKILL)
        end(members, first=[self.process.pid])
        self._release()
        self.process.wait()

    def _release(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(_KEEP)
            self.process.stdin.close()

    def _said(self) -> str:
        return self.spec.log.read_text(encoding="utf-8", errors="replace")

    def _is_broken(self) -> bool:
        """Whether a part is dead: a raylet ends itself if its agents take long, as on a busy machine.

        Ray itself would go on asking for it, for half a minute.
        """
        members = family(self.process.pid)[1:]
        with suppress(psutil.Error):
            return any(
                member.status() == psutil.STATUS_ZOMBIE and member.name() in ("raylet", "gcs_server")
                for member in members
            )
        return False

    def _end_client_server(self) -> None:
        """End what listens for ``ray://``: nobody here asks for it.

        Ray starts it unasked, and ends the whole head if it is late, as on a busy machine.
        """
        for member in family(self.process.pid)[1:]:
            with suppress(psutil.Error):
                if "ray.util.client.server" in member.cmdline():
                    _signal(member, signal.SIGTERM)

    def _error(self, state: str) -> NodeError:
        words, last = busy(), self._said().strip().splitlines()[-8:]
        return NodeError(
            "\n".join([f"{words and f'{words}; '}node {self.spec.number} {state}; the last it said:", *last]),
            fix="try again when the machine has less to do, or ask for less"
            if words
            else "check that memory, /dev/shm and processes suffice, or ask for fewer nodes",
        )


def start(specs: Sequence[NodeSpec], deadline: float) -> list[Node]:
    """Start nodes side by side, a head among them before the others; all are there, or none.

    Args:
        specs: Of the nodes; those after a head join it.
        deadline: On the clock of :func:`time.monotonic`.

    Raises:
        NodeError: One is not there by the deadline.
    """
    nodes: list[Node] = []
    try:
        if specs[0].head is None:
            nodes.append(Node(specs[0]))
            nodes[0].wait(deadline)
        nodes += [Node(replace(spec, head=spec.head or nodes[0].address)) for spec in specs[len(nodes) :]]
        for node in nodes:
            node.wait(deadline)
    except BaseException:
        for node in nodes:
            node.stop()
        raise
    return nodes


def node_environment(**variables: str) -> dict[str, str]:
    """This process's environment, without what it says of other clusters, and with some variables."""
    others = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_TMPDIR", LOOPBACK_ONLY)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in others and not name.startswith("RAY_JOB_")
    }
    code = str(Path(__file__).resolve().parents[1])
    return {
        **inherited,
        **environment(),
        # Workers import this code, wherever it lies; jobs say `python`, and mean this one.
        "PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        **variables,
    }


def short_folder() -> Path:
    """A temporary folder of our own; its path is short, for those of sockets are limited to 107 bytes.

    Ray makes its folders below it writable for all; this one is not.
    """
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="nfbmr-", dir=base if len(base) <= 16 else "/tmp"))


def family(pid: int) -> list[Any]:
    """A process and all below it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def end(processes: Sequence[Any], *, first: Sequence[int] = ()) -> list[int]:
    """Ask processes to end, those named `first` before the others, and insist after a while."""
    for process in processes:
        if process.pid in first:
            _signal(process, signal.SIGTERM)
    _wait([process for process in processes if process.pid in first], _STOP_SECONDS)
    for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        left = [process for process in processes if _lives(process)]
        for process in left:
            _signal(process, number)
        _wait(left, seconds)
    return sorted(process.pid for process in processes)


def _signal(process: Any, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


def _wait(processes: Sequence[Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _lives(process: Any) -> bool:
    """Whether a process runs; one that has ended stays in the table until its parent asks how."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False

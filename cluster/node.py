"""One node of a private cluster: the process that starts it, holds it and ends it.

:mod:`cluster.local` starts one of these for each node. It tells what it started in a file, and then waits for
a word on its standard input: ``keep``, and it goes on until it is sent SIGTERM; the end of the input, and it
ends at once. So a command that is killed half way leaves nothing behind.

``ray start`` is not used: it replaces 127.0.0.1 by the machine's own address, and then listens on every
interface. A node whose address is 127.0.0.1 from the beginning is bound to loopback in all its parts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
KEEP = b"keep"
START_SECONDS = 300.0
TRY_AGAIN = "a part of the node has died while it started"


class LateAgentsError(Exception):
    """A raylet dies if its agents take longer than 15 s to start, as they do on a very busy machine."""


@dataclass(frozen=True)
class NodeSpec:
    """What a node is to be.

    Attributes:
        home: The cluster's temporary folder.
        number: Of the node, from 0; node 0 is the head.
        cpus: What tasks may ask of it.
        gpus: Likewise.
        memory: Bytes, likewise.
        object_store: Bytes of shared memory for Ray's objects.
        address: Of the head, ``host:port``; None makes this the head.
        dashboard_port: Of the head's dashboard and job server.
    """

    home: str
    number: int
    cpus: float
    gpus: float
    memory: int
    object_store: int
    address: str | None = None
    dashboard_port: int | None = None

    @property
    def told(self) -> Path:
        """Where the node says that it is there."""
        return Path(self.home) / f"node-{self.number}.json"

    @property
    def log(self) -> Path:
        """What the node's processes print."""
        return Path(self.home) / f"node-{self.number}.log"

    def as_argument(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self))


def hold(spec: NodeSpec) -> None:
    """Start a node, and hold it until it is to end."""
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._private.utils import write_ray_address

    settings: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus}
    if spec.address is None:
        settings |= {
            "include_dashboard": True,
            "dashboard_host": LOOPBACK,
            "dashboard_port": spec.dashboard_port,
        }
    ports = free_ports(4)
    services.get_node = _patient(services.get_node)
    node = Node(
        RayParams(
            node_ip_address=LOOPBACK,
            gcs_address=spec.address,
            # The defaults are those of other clusters on this machine: every port is one that is free.
            dashboard_agent_listen_port=ports[0],
            metrics_agent_port=ports[1],
            metrics_export_port=ports[2],
            runtime_env_agent_port=ports[3],
            node_manager_port=0,
            object_manager_port=0,
            min_worker_port=0,
            max_worker_port=0,
            memory=spec.memory,
            object_store_memory=spec.object_store,
            # Its own: in a shared one a node that comes later unpacks a running job's files anew, and takes
            # them from under it.
            temp_dir=str(Path(spec.home) / (f"ray-{spec.number}" if spec.number else "ray")),
            **settings,
        ),
        head=spec.address is None,
        shutdown_at_exit=True,
        spawn_reaper=True,
    )
    # Where the drivers of jobs look first; they would else look for any head on this machine, by name.
    write_ray_address(node.gcs_address, str(Path(spec.home) / "ray"))
    ended, kept = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    _tell(spec, node)
    threading.Thread(target=_listen, args=(ended, kept), daemon=True).start()
    while not ended.wait(1.0) and not _lost(node):
        pass
    node.kill_all_processes(check_alive=False, allow_graceful=True)
    if spec.address is None and not kept.is_set():
        shutil.rmtree(spec.home, ignore_errors=True)


def _patient(get_node: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """Ray gives a new node 30 s to be known to the head, which is not enough on a busy machine."""

    def patient(address: str, node_id: str) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            if _has_dead_child():
                raise LateAgentsError(TRY_AGAIN)
            time.sleep(0.2)

    return patient


def _has_dead_child() -> bool:
    import psutil

    return any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children())


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _listen(ended: threading.Event, kept: threading.Event) -> None:
    """Wait for the word that whoever started this has come to its end, and wants it to stay."""
    if os.read(0, 64).strip() == KEEP:
        kept.set()
    else:
        ended.set()


def _lost(node: Any) -> bool:
    """Whether a process without which this is no node has died: what is left of it would only linger."""
    return any(name in ("raylet", "gcs_server") for name, _ in node.dead_processes())


def _tell(spec: NodeSpec, node: Any) -> None:
    processes = {name: one.process.pid for name, all_ in node.all_processes.items() for one in all_}
    text = json.dumps(
        {
            "node_id": node.node_id,
            "address": node.gcs_address,
            "dashboard": f"http://{node.webui_url}",
            "processes": {"node": os.getpid(), **processes},
        }
    )
    part = spec.told.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(spec.told)


if __name__ == "__main__":
    hold(NodeSpec(**json.loads(sys.argv[1])))

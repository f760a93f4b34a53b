"""Serving: requests a second and the 99th percentile, for 1, 8 and 64 clients, and memory over time.

Run ``python -m benchmarks.serving`` (``--quick`` for a look). One model, registered and promoted, is served
by ``mlflow models serve``, ``nfbmr serve`` and ``nfbmr serve --local``, one after the other in the same run.
Clients ask without a pause over a connection each, with the same JSON: one image as base64. Memory is that of
a server's whole family of processes, what they share counted once (PSS).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 300.0
MLFLOW, NFBMR, LOCAL = "mlflow models serve", "nfbmr serve", "nfbmr serve --local"


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        process: The one that was started.
        port: On loopback.
    """

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """Processor time of it and of all below it, so far."""
        root = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def memory_mb(self) -> float:
        """Of it and of all below it."""
        total = 0.0
        root = psutil.Process(self.process.pid)
        for one in (root, *root.children(recursive=True)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue  # it has just ended
        return total / 1e6


def measure(
    *, clients: Sequence[int], seconds: float, memory_minutes: float, replicas: int, size: int = 256
) -> dict[str, Any]:
    """The servers under load.

    Args:
        clients: That ask at once, one number after another.
        seconds: Of load for each number.
        memory_minutes: Under eight clients; of ``mlflow models serve`` one at most.
        replicas: Of ``nfbmr serve``.
        size: Pixels of the model's images.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-bench-") as name:
        folder = Path(name)
        uri, image = _champion(folder, size)
        body = json.dumps({"inputs": [base64.b64encode(image).decode()]}).encode()
        rows: list[dict[str, Any]] = []
        memory = {}
        for kind in (MLFLOW, NFBMR, LOCAL):
            with _served(kind, folder, uri, replicas) as server:
                _load(server.port, body, 2, 2.0)  # both have answered before
                for count in clients:
                    before = server.cpu_seconds()
                    row = {"server": kind, "clients": count, **_load(server.port, body, count, seconds)}
                    row["cpu_ms"] = 1e3 * (server.cpu_seconds() - before) / max(1, row["requests"])
                    rows.append(row)
                    print(_line(rows[-1]), file=sys.stderr)
                minutes = min(1.0, memory_minutes) if kind == MLFLOW else memory_minutes
                memory[kind] = _memory(server, body, minutes * 60)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "size": size,
        "replicas": replicas,
        "load": rows,
        "memory": memory,
    }


def _champion(folder: Path, size: int) -> tuple[str, bytes]:
    """A registered model with an alias; the address of its registry, and an image to ask about."""
    import nfbmr
    from mlflow_server.destination import Destination
    from mlflow_server.registry.promotion import alias_state, promote
    from mlflow_server.registry.registering import register
    from mlflow_server.registry.registry import Registry

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    config = nfbmr.configure(
        "demo",
        settings={
            "output": str(folder / "runs"),
            "store": str(folder / "work" / "store"),
            "features.size": size,
            "train.flow.epochs": 1,
            "train.mapping.epochs": 1,
            "evaluation.bootstrap": 0,
            "evaluation.heatmaps": 0,
        },
    )
    run = nfbmr.train(config)["run_dir"]
    register(str(run), "bench", uri=uri)
    registry = Registry(Destination.resolve(uri))
    promote(alias_state(registry, "bench", "champion"), registry.version("bench", "1"), ())
    image = min((folder / "work" / "synthetic").rglob("test/*/*.png"))
    return uri, image.read_bytes()


@contextmanager
def _served(kind: str, folder: Path, uri: str, replicas: int) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    programs = Path(sys.executable).parent
    if kind == MLFLOW:
        command = [str(programs / "mlflow"), "models", "serve", "-m", "models:/bench@champion"]
        command += ["--env-manager", "local", "--port", str(port)]
    else:
        command = [sys.executable, "-m", "nfbmr", "serve", "bench@champion", "--port", str(port)]
        command += ["--start-timeout", str(PATIENCE)]
        command += ["--local"] if kind == LOCAL else ["--replicas", str(replicas)]
    checkout = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "" if kind == MLFLOW else checkout,
    }
    log = folder / f"{kind.replace(' ', '-')}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        _wait(process, port, log)
        yield Server(process, port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"not ready: {log.read_text()}")


def _load(port: int, body: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, and how long they took."""
    ended = time.perf_counter() + seconds
    taken: list[float] = []
    failed: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while time.perf_counter() < ended:
            started = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                taken.append(time.perf_counter() - started)
            else:
                failed.append(answer.status)
        connection.close()

    started = time.perf_counter()
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    milliseconds = sorted(1e3 * one for one in taken) or [0.0]
    return {
        "requests_a_second": len(taken) / wall,
        "median_ms": statistics.median(milliseconds),
        "p99_ms": milliseconds[min(len(milliseconds) - 1, int(0.99 * len(milliseconds)))],
        "requests": len(taken),
        "failed": len(failed),
    }


def _memory(server: Server, body: bytes, seconds: float) -> dict[str, Any]:
    """Under eight clients: megabytes now and then, and how the last third differs from the second."""
    samples: list[tuple[float, float]] = []
    loading = threading.Thread(target=_load, args=(server.port, body, 8, seconds))
    started = time.monotonic()
    loading.start()
    while loading.is_alive():
        samples.append((time.monotonic() - started, server.memory_mb()))
        loading.join(max(0.5, seconds / 120))
    third = max(1, len(samples) // 3)
    middle, last = (
        statistics.median(megabytes for _, megabytes in part) if part else samples[-1][1]
        for part in (samples[third : 2 * third], samples[2 * third :])
    )
    return {"growth_mb": last - middle, "samples": samples}


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['server']}, {row['clients']} clients: {row['requests_a_second']:.1f} a second, "
        f"99 % within {row['p99_ms']:.0f} ms, {row['failed']} failed"
    )


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    head = f"{result['size']} px, {result['cores']} cores, {result['replicas']} replicas"
    lines = [
        f"| {head} | clients | requests a second | median ms | 99th percentile ms | processor ms | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['server']} | {row['clients']} | {row['requests_a_second']:.1f} | {row['median_ms']:.0f} "
        f"| {row['p99_ms']:.0f} | {row['cpu_ms']:.0f} | {row['failed']} |"
        for row in result["load"]
    ]
    for kind, found in result["memory"].items():
        (_, first), (minutes, last) = found["samples"][0], found["samples"][-1]
        lines.append(
            f"\n{kind}: {first:.0f} MB at first, {last:.0f} MB after {minutes / 60:.1f} minutes under 8 "
            f"clients, {found['growth_mb']:+.0f} MB from the second third to the last"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--replicas", type=int, default=1, help="of nfbmr serve")
    parser.add_argument("--seconds", type=float, default=30, help="of load for each number of clients")
    parser.add_argument("--memory-minutes", type=float, default=10, help="under 8 clients")
    given = parser.parse_args()
    result = (
        measure(clients=(1, 8), seconds=3, memory_minutes=0.1, replicas=given.replicas, size=64)
        if given.quick
        else measure(
            clients=(1, 8, 64),
            seconds=given.seconds,
            memory_minutes=given.memory_minutes,
            replicas=given.replicas,
        )
    )
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

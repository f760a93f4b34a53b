"""A running ``nfbmr serve``: the real command, on loopback, with the real Ray Serve or without."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from mlflow_server.destination import Destination
from mlflow_server.registry.promotion import alias_state, promote
from mlflow_server.registry.registering import register
from mlflow_server.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 420.0
TOKEN = "a-token-of-some-length"


@dataclass
class Served:
    """A running ``nfbmr serve``."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", 120)
        return requests.request(method, f"{self.address}{path}", **options)

    def score(self, image: bytes, query: str = "", **options: Any) -> requests.Response:
        return self.ask("POST", f"/score{query}", files={"image": ("part.png", image)}, **options)

    def invoke(self, body: Any, **options: Any) -> requests.Response:
        return self.ask("POST", "/invocations", json=body, **options)

    def children(self, title: str) -> list[psutil.Process]:
        """Processes below it by what they are."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if title in title_of(process)]

    def until(self, true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if found := true():
                    return found
            except requests.RequestException:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{what}\n{self.log.read_text()}")

    def version(self) -> str | None:
        return self.ask("GET", "/ready").json().get("version")


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "nfbmr", "serve", *words]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "NFBMR"))}
    return {**kept, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **more}


def servers(folders: Callable[[], Path]) -> Iterator[Callable[..., Served]]:
    """Starts ``nfbmr serve``, waits until it answers, and ends it with all its processes."""
    running: list[Served] = []

    def begin(*words: str, **more: str) -> Served:
        folder = folders()
        log = folder / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command("--json", "--port", "0", "--start-timeout", "400", *words),
                cwd=folder,
                env=environment(**more),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        begun = Served(process, "", log)
        running.append(begun)
        reader = threading.Timer(PATIENCE, process.kill)
        reader.start()
        lines = list(itertools.takewhile(lambda line: line.rstrip() != "}", process.stdout))
        reader.cancel()
        assert lines, log.read_text()
        begun.address = json.loads("".join([*lines, "}"]))["address"]
        return begun

    yield begin
    for each in running:
        family = psutil.Process(each.process.pid).children(recursive=True) if alive(each) else []
        each.process.terminate()
        try:
            each.process.wait(90)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()
        each.process.stdout.close()
        for process in psutil.wait_procs(family, 20)[1]:
            process.kill()


def alive(served: Served) -> bool:
    return served.process.poll() is None


def move(address: str, number: str) -> None:
    registry = Registry(Destination.resolve(address))
    promote(alias_state(registry, "parts", "champion"), registry.version("parts", number), ())


def damaged_version(address: str, tiny: Callable[..., Any]) -> str:
    """The number of a new version of ``parts`` whose weights are damaged."""
    import nfbmr

    run = nfbmr.train(tiny(seed=5))["run_dir"]
    number: str = register(str(run), "parts", uri=address).version.number
    source = Registry(Destination.resolve(address)).version("parts", number).source
    (weights,) = Path(source.removeprefix("file://")).glob("artifacts/model/flow.safetensors")
    weights.write_bytes(b"\0" * 100)
    return number


@contextmanager
def clients(served: Served, image: bytes, count: int) -> Iterator[list[list[tuple[int, str]]]]:
    """Clients that ask without a pause; what each is answered: status and version, in order."""
    ended = threading.Event()
    said: list[list[tuple[int, str]]] = [[] for _ in range(count)]

    def ask(mine: list[tuple[int, str]]) -> None:
        with requests.Session() as session:
            while not ended.is_set():
                answer = session.post(f"{served.address}/score", files={"image": image}, timeout=120)
                mine.append((answer.status_code, answer.headers.get("x-nfbmr-model", answer.text)))

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in said]
    for thread in threads:
        thread.start()
    try:
        yield said
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def versions_seen(said: list[list[tuple[int, str]]]) -> list[list[str]]:
    """The versions that answered each client, in order; every answer was one."""
    assert {status for mine in said for status, _ in mine} == {200}
    return [[version for version, _ in itertools.groupby(version for _, version in mine)] for mine in said]


def is_served(served: Served, number: str) -> bool:
    return served.version() == number

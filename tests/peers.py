"""Processes in a gloo group that do what they are sent: torch.distributed without Ray around it.

Run as a script, this file is one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import ModuleType
from typing import Any

from nfbmr.errors import NfbmrError

PATIENCE = 240.0


class Peers:
    """Runs a function in every process; its first argument is a :class:`nfbmr.workers.DistributedGroup`."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines: list[Connection] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What each returned, by rank; raises the first error."""
        answers = self.answers(function, *args, **kwargs)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def answers(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What each returned or raised, by rank."""
        import cloudpickle  # type: ignore[import-untyped]

        modules = [one for one in list(sys.modules.values()) if _of_tests(one)]
        for module in modules:  # they cannot be imported by their names
            cloudpickle.register_pickle_by_value(module)
        try:
            job = cloudpickle.dumps((function, args, kwargs))
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)
        if not self._lines:
            self._start()
        for line in self._lines:
            line.send_bytes(job)
        answers = []
        for line in self._lines:
            if not line.poll(PATIENCE):
                self.end()
                raise TimeoutError("a worker does not answer")
            answers.append(cloudpickle.loads(line.recv_bytes()))
        if any(isinstance(one, BaseException) and not isinstance(one, NfbmrError) for one in answers):
            self.end()
        return answers

    def end(self) -> None:
        """End all processes."""
        for line in self._lines:
            line.close()
        for process in self._processes:
            process.kill()
            process.wait()
        if self._processes:
            self._folder.cleanup()
        self._processes, self._lines = [], []

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="peers-")
        folder = self._folder.name
        with Listener(str(Path(folder) / "line")) as listener:
            for rank in range(self.count):
                command = [sys.executable, __file__, str(rank), str(self.count), folder]
                self._processes.append(subprocess.Popen(command))
            lines = [listener.accept() for _ in range(self.count)]
        ranks = {line.recv(): line for line in lines}
        self._lines = [ranks[rank] for rank in range(self.count)]


def _of_tests(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(Path(__file__).parent)


def serve(rank: int, count: int, folder: str) -> None:
    """Be one of them, until the line is closed."""
    import cloudpickle
    import torch.distributed as dist

    from nfbmr.workers import DistributedGroup

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    with Client(f"{folder}/line") as line:
        line.send(rank)
        while True:
            try:
                function, args, kwargs = cloudpickle.loads(line.recv_bytes())
            except (EOFError, ConnectionError):
                return
            try:
                answer = function(DistributedGroup(), *args, **kwargs)
            except NfbmrError as error:
                answer = error
            except Exception as error:
                # As Ray does: the process ends, and its peers are left to notice.
                traceback.print_exc()
                line.send_bytes(cloudpickle.dumps(error))
                return
            line.send_bytes(cloudpickle.dumps(answer))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

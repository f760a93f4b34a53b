"""A promotion whose process is killed at any of its requests leaves the old champion or the new one."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlflow_server.destination import Destination
from mlflow_server.registry.promotion import alias_state, promote
from mlflow_server.registry.registry import Registry

PROMOTE = """
import sys
from mlflow_server.destination import Destination
from mlflow_server.registry.promotion import alias_state, promote
from mlflow_server.registry.registry import Registry

registry = Registry(Destination.resolve(sys.argv[1]))
seen = alias_state(registry, "parts", "champion")
version = registry.version("parts", sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
promote(seen, version, ())
"""


class Ambush:
    """A proxy before a tracking server that kills a client at one of its changes.

    Attributes:
        victim: Process that is to be killed.
        at: At its how manieth change, from 0.
        answered: Whether the server has carried that change out before.
        changes: Paths of the changes that came by.
    """

    def __init__(self, server: str) -> None:
        self.victim, self.at, self.answered = 0, -1, False
        self.changes: list[str] = []
        ambush = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                doomed = False
                if ambush.victim and self.command != "GET" and "search" not in self.path:
                    doomed = len(ambush.changes) == ambush.at
                    ambush.changes.append(self.path)
                if doomed and not ambush.answered:
                    ambush.kill()
                    self.close_connection = True
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                place = server.removeprefix("http://")
                with closing(http.client.HTTPConnection(place, timeout=60)) as upstream:
                    upstream.request(self.command, self.path, body, headers)
                    answer = upstream.getresponse()
                    content = answer.read()
                if doomed:
                    ambush.kill()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = handle_one

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        os.kill(self.victim, signal.SIGKILL)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ambush(stock: str, serve: Callable[[str, int], str], free_port: int) -> Iterator[Ambush]:
    proxy = Ambush(serve(stock, free_port))
    yield proxy
    proxy.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_promotion_killed_at_any_request(stock: str, ambush: Ambush, tmp_path: Path) -> None:
    registry = Registry(Destination.resolve(stock))
    promote(alias_state(registry, "parts", "champion"), registry.version("parts", "1"), ())
    moved = 0
    for at in range(20):
        for answered in (False, True):
            seen = alias_state(registry, "parts", "champion")
            old = seen.current.number
            new = "2" if old == "1" else "1"
            ambush.victim, ambush.at, ambush.answered, ambush.changes = 0, at, answered, []
            process = subprocess.Popen(
                [sys.executable, "-c", PROMOTE, ambush.address, new],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[3],
            )
            assert process.stdout.readline() == b"ready\n"
            ambush.victim = process.pid
            process.communicate(b"\n", timeout=120)
            now = registry.model("parts").aliases.get("champion")
            assert now in (old, new), f"killed at {ambush.changes[-1]}: the alias points to {now}"
            if process.returncode == 0:  # it had no such request any more
                assert len(ambush.changes) == at
                assert at >= 5
                assert moved > 0
                return
            assert process.returncode == -signal.SIGKILL
            moved += now == new
            # Whoever comes next sees one champion, and can go on.
            after = alias_state(registry, "parts", "champion")
            assert after.current.number == registry.model("parts").aliases["champion"]
            assert after.entries[-1].after == after.current.number
            assert [entry.number for entry in after.entries] == list(range(1, len(after.entries) + 1))
            assert alias_state(registry, "parts", "champion").notes == ()
    raise AssertionError("it never ends")

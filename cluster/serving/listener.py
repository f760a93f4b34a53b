"""The HTTP server: it holds the port, and hands each request to the model that answers now."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from cluster.serving.http_app import ActiveModel, HttpApp
from cluster.serving.settings import ServingSettings

_BACKLOG = 512
GRACE = 10
"""Seconds that answers under way have when the server is ended."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The quickest that is installed."""
    from uvicorn import Config

    factory = Config(HttpApp, loop="auto", log_config=None, access_log=False).get_loop_factory()
    return asyncio.new_event_loop() if factory is None else factory()


class Listener:
    """Holds the port; all of it runs in one event loop.

    Args:
        settings: How the model is served.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._app = HttpApp(settings)
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def listen(self, port: int) -> None:
        """Open the port; nothing happens where it is open."""
        if self.listening:
            return
        from uvicorn import Config, Server

        host = self._app.settings.host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sends small packets at once where the socket says that it is TCP; else a client waits 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        self._server = Server(
            Config(
                self._app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        if self._serving.done():
            self._serving.result()

    @property
    def listening(self) -> bool:
        """Whether the port is open."""
        return self._serving is not None and not self._serving.done()

    async def activate(self, model: ActiveModel) -> None:
        """Let a model answer from now on; returns when the one before owes nobody an answer."""
        before, self._app.active_model = self._app.active_model, model
        self._app.replicas = max(self._app.replicas, 1)
        if before is not None:
            await before.drained()

    def problems(self) -> list[str]:
        """What went wrong since the last look."""
        problems, self._app.problems = self._app.problems, []
        return problems

    async def close(self) -> None:
        """Take no more requests, and answer those under way."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving

"""The process that listens: an actor of Ray's with the HTTP server and a handle to the replicas.

It is a process apart from the one that people started, which looks after models and registries, so that what
those need is never in the way of a request. It loads no model. If it dies, Ray starts it again, and the next
look of :mod:`cluster.serving.service` gives it port and model back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.serving.http_app import ActiveModel, HttpApp, ModelInfo, UnavailableError
from cluster.serving.messages import HttpError, Job, Reply
from cluster.serving.settings import ServingSettings

_BACKLOG = 512
GRACE = 10
"""Seconds that answers under way have when the server is ended."""

log = logging.getLogger(__name__)


class Listener:
    """Holds the port.

    Args:
        settings: How the model is served.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._app = HttpApp(settings)
        self._application = ""
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def listen(self, port: int) -> None:
        """Open the port; nothing happens where it is open."""
        if self._serving is not None:
            return
        from uvicorn import Config, Server

        host = self._app.settings.host.strip("[]")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
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

    async def switch(self, application: str, handle: DeploymentHandle[Any], info: ModelInfo) -> None:
        """Let a model answer from now on; returns when the one before owes nobody an answer.

        Args:
            application: Its name on Ray Serve.
            handle: To its replicas.
            info: What is said of it.
        """
        about = await handle.ready.remote()  # finds its replicas, before a request has to wait for it
        before = self._app.active_model
        self._app.active_model = ActiveModel(
            replace(info, threshold=about["threshold"]), lambda job: _ask(handle, job)
        )
        self._app.replicas = max(self._app.replicas, 1)
        self._application = application
        if before is not None:
            await before.drained()

    async def look(self, replicas: int) -> tuple[str, bool, list[str]]:
        """Hear how many replicas live; tell which model answers, whether the port is open, and problems."""
        self._app.replicas = replicas
        problems, self._app.problems = self._app.problems, []
        return self._application, self._serving is not None and not self._serving.done(), problems

    async def close(self) -> None:
        """Take no more requests, and answer those under way."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving


async def _ask(handle: DeploymentHandle[Any], job: Job) -> Reply:
    """Hand a request to a replica.

    Raises:
        UnavailableError: It died, or there is none.
    """
    try:
        reply: Reply = await handle.remote(job)
    except BackPressureError as error:
        raise HttpError(503, "the model is busy", "ask again in a moment") from error
    except RayTaskError:
        raise  # the model's own mistake, which another replica would repeat
    except (RayActorError, DeploymentUnavailableError, RayServeException) as error:
        raise UnavailableError(type(error).__name__) from error
    return reply

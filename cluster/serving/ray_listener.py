"""The process that listens where replicas run on Ray: an actor with the HTTP server and a handle to them.

It is a process apart from the one that people started, which looks after models and registries, so that what
those need is never in the way of a request. It loads no model. If it dies, Ray starts it again, and the next
look of :mod:`cluster.serving.ray_service` gives it port and model back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.serving.http_app import ActiveModel, ModelInfo, UnavailableError
from cluster.serving.listener import Listener
from cluster.serving.messages import HttpError, Job, Reply
from cluster.serving.settings import ServingSettings


class RayListener(Listener):
    """Holds the port, and a handle to the replicas of the model that answers.

    Args:
        settings: How the model is served.
    """

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(settings)
        self._application = ""

    async def switch(self, application: str, handle: DeploymentHandle[Any], info: ModelInfo) -> None:
        """Let an application answer from now on; returns when the one before owes nobody an answer.

        Args:
            application: Its name on Ray Serve.
            handle: To its replicas.
            info: What is said of its model.
        """
        about = await handle.ready.remote()  # finds its replicas, before a request has to wait for it
        self._application = application
        info = replace(info, threshold=about["threshold"])
        await self.activate(ActiveModel(info, lambda job: _ask(handle, job)))

    async def look(self, replicas: int) -> tuple[str, bool, list[str]]:
        """Hear how many replicas live; tell which application answers, if the port is open, and problems."""
        self._app.replicas = replicas
        return self._application, self.listening, self.problems()


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

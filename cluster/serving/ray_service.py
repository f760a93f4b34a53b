"""Replicas on Ray Serve, and the process in front of them that listens.

A version is an application of its own on Ray Serve. A new one is started beside the old one; when all its
replicas have loaded it, the listener hands the next request to it, waits until the old one has answered all
of its own, and only then is the old one ended. A version that does not load changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

from cluster.connection import connect
from cluster.serving.settings import ServingSettings
from nfbmr.errors import ServingError
from nfbmr.model_source import ServedModel

ANSWER_SECONDS = 60.0
"""In which the listener has to say how it is."""
ENVIRONMENT = MappingProxyType(
    {
        # Ray gives way to everything else on a machine, which is right for trials; answers are waited for.
        "RAY_worker_niceness": "0",
        # Neither replica nor listener blocks its event loop, so that a request need not change threads.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Bytes: an image travels inside the request to a replica, not through the object store.
        "RAY_max_direct_call_object_size": "1000000",
    }
)
"""Of all processes that serve. A value that is there already stays."""
_REPLICAS = "model"

log = logging.getLogger(__name__)


@contextmanager
def ray_for_serving(settings: ServingSettings) -> Iterator[None]:
    """A Ray on this machine with room for two versions, since a new one starts beside the old one.

    Raises:
        MissingPackageError: Ray is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with connect("local", cpus=2 * settings.replicas * settings.threads_each + 2):
        yield


class RayService:
    """Applications on Ray Serve, one a version, and the listener in front of them.

    Args:
        settings: How models are served.
        port: To listen on.
        model: The first one.

    Raises:
        ServingError: It does not load.
    """

    def __init__(self, settings: ServingSettings, port: int, model: ServedModel) -> None:
        import ray

        from cluster.serving.ray_listener import RayListener

        self._serve, self._settings, self._port = _ray_serve(), settings, port
        self._numbers = itertools.count(1)
        self._model, self._complained = model, False
        remote: Any = ray.remote(RayListener)
        self._listener = remote.options(num_cpus=0, max_restarts=-1, max_concurrency=10_000).remote(settings)
        self._application, self._handle = self._deployed(model)
        self._connect_listener()

    def replace(self, model: ServedModel) -> None:
        """Serve another model from now on."""
        application, handle = self._deployed(model)
        before = self._application
        self._application, self._handle, self._model = application, handle, model
        self._connect_listener()
        self._serve.delete(before)

    def look(self) -> None:
        """See that the listener is as it should be, and pass on what it has to say."""
        import ray
        from ray.exceptions import RayError

        try:
            status = self._serve.status().applications.get(self._application)
            deployments = [] if status is None else status.deployments.values()
            alive = sum(deployment.replica_states.get("RUNNING", 0) for deployment in deployments)
            state = self._listener.look.remote(alive)
            application, listening, problems = ray.get(state, timeout=ANSWER_SECONDS)
            for problem in problems:
                log.warning("%s", problem)
            if application != self._application or not listening:
                log.warning("what listens was started again")
                self._connect_listener()
            self._complained = False
        except RayError as error:
            if not self._complained:
                log.warning("what listens does not answer (%s); Ray starts it again", type(error).__name__)
            self._complained = True

    def close(self) -> None:
        """Answer what is under way, and end."""
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):
            ray.get(self._listener.close.remote(), timeout=ANSWER_SECONDS)
        ray.kill(self._listener)
        self._serve.delete(self._application)  # the rest ends with the cluster

    def _connect_listener(self) -> None:
        import ray

        from cluster.serving.http_app import ModelInfo

        info = ModelInfo(self._model.name, self._model.version)
        ray.get(self._listener.switch.remote(self._application, self._handle, info))
        ray.get(self._listener.listen.remote(self._port))

    def _deployed(self, model: ServedModel) -> tuple[str, Any]:
        """Start the replicas of a model, and wait until all have loaded it.

        Raises:
            ServingError: They cannot.
        """
        from cluster.serving.replica import Replica

        name = f"{_REPLICAS}-{next(self._numbers)}"
        s = self._settings
        deployment = self._serve.deployment(Replica).options(
            name=_REPLICAS,
            num_replicas=s.replicas,
            ray_actor_options={"num_cpus": s.threads_each},
            # The listener lets in what there is room for: a router that holds requests back would look for a
            # free replica in ever longer intervals.
            max_ongoing_requests=s.queue,
            max_queued_requests=-1,
            max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=0.2,
            health_check_period_s=2.0,
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        application = deployment.bind(str(model.folder.resolve()), **s.of_replica)
        try:
            return name, self._serve.run(application, name=name, route_prefix=None)
        except RuntimeError as error:
            status = self._serve.status().applications.get(name)
            messages = [] if status is None else [each.message for each in status.deployments.values()]
            self._serve.delete(name)
            reason = _last_line("\n".join(messages)) or str(error)
            raise ServingError(
                f"the model does not load ({reason})", where=str(model), fix="does nfbmr predict load it?"
            ) from error


def _ray_serve() -> Any:
    """Ray Serve without its own HTTP server, which keeps requests of any size and any number in memory."""
    from ray import serve as ray_serve
    from ray.serve.config import ProxyLocation

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ray_serve.start(proxy_location=ProxyLocation.Disabled, logging_config={"log_level": "WARNING"})
    return ray_serve


def _last_line(text: str) -> str:
    """Of a traceback: what was raised."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line.partition(":")[0]]
    return (raised or lines or [""])[-1][:300]

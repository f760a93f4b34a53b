"""A model served until somebody says stop, and replaced while it answers: what ``nfbmr serve`` does.

A version is an application of its own on Ray Serve. A new one is started beside the old one; when all its
replicas have loaded it, the listener hands the next request to it, waits until the old one has answered all
of its own, and only then is the old one ended. A version that does not load changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Protocol

from cluster.connection import connect
from cluster.serving.settings import ServingSettings
from nfbmr.errors import MissingPackageError, NfbmrError, ServingError
from nfbmr.training.compute import usable_cores

LOOK_EVERY = 0.5
"""Seconds between two looks at replicas and listener."""
START_SECONDS = 60.0
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
LISTENER = "nfbmr-listener"
REPLICAS = "model"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model on this machine.

    Attributes:
        name: Of the registered model, or of the run.
        version: Of the registered model.
        folder: Of networks and scorer.
        key: What tells it from any other.
    """

    name: str
    version: str | None
    folder: Path
    key: str

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"


class Source(Protocol):
    """Where models come from; called in a thread of its own."""

    def newest(self, known: str | None) -> ServedModel | None:
        """The model that is to be served, fetched; None where it is the one with that key.

        Raises:
            NfbmrError: It cannot be had now.
        """

    def forget(self, model: ServedModel) -> None:
        """Its files are not needed any more."""


def serve(
    source: Source,
    settings: ServingSettings,
    *,
    on_ready: Callable[[str, ServedModel], None] = lambda address, model: None,
) -> None:
    """Serve a model until SIGINT or SIGTERM.

    Args:
        source: Of the model.
        settings: How.
        on_ready: Called once it answers, with its address.

    Raises:
        ServingError: The port is taken, or the model does not load.
        MissingPackageError: Ray Serve is not installed.
    """
    port = _free_port(settings)
    model = source.newest(None)
    assert model is not None
    output = sys.stdout  # Ray's words go elsewhere while connected
    threads = settings.threads or _threads(settings.replicas)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Twice, since a new version starts beside the old one.
    cpus = 2 * settings.replicas * threads + 2
    answering = threading.Event()
    with _stopping(answering) as stop, connect("local", cpus=cpus):
        service = _Service(_ray_serve(), source, settings, port, threads)
        service.start(model)
        answering.set()
        with redirect_stdout(output):
            on_ready(settings.address(port), model)
        try:
            with _watching(source, settings.watch, model.key) as found:
                while not stop.is_set():
                    service.look()
                    with suppress(queue.Empty):
                        service.replace(found.get(timeout=LOOK_EVERY))
        finally:
            service.close()


class _Service:
    """The applications on Ray Serve and the listener in front of them."""

    def __init__(
        self, ray_serve: Any, source: Source, settings: ServingSettings, port: int, threads: int
    ) -> None:
        import ray

        from cluster.serving.listener import Listener

        self._serve, self._source, self._settings = ray_serve, source, settings
        self._port, self._threads = port, threads
        self._numbers = itertools.count(1)
        self._model: ServedModel | None = None
        self._application = ""
        self._handle: Any = None
        self._complained = False
        remote: Any = ray.remote(Listener)
        self._listener = remote.options(num_cpus=0, max_restarts=-1, max_concurrency=10_000).remote(settings)

    def start(self, model: ServedModel) -> None:
        """Serve a first model."""
        self._application, self._handle = self._deployed(model)
        self._model = model
        self._connect_listener()

    def replace(self, model: ServedModel) -> None:
        """Serve another model from now on; if it does not load, the old one stays."""
        log.info("loading %s", model)
        try:
            application, handle = self._deployed(model)
        except ServingError as error:
            log.error("%s; %s goes on answering", error, self._model)
            self._source.forget(model)
            return
        before, old = self._application, self._model
        self._application, self._handle, self._model = application, handle, model
        self._connect_listener()
        log.info("%s answers now", model)
        self._serve.delete(before, _blocking=True)
        if old is not None:
            self._source.forget(old)

    def look(self) -> None:
        """See that the listener is as it should be, and pass on what it has to say."""
        import ray
        from ray.exceptions import RayError

        try:
            found = self._listener.look.remote(self._alive())
            application, listening, problems = ray.get(found, timeout=START_SECONDS)
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
            ray.get(self._listener.close.remote(), timeout=START_SECONDS)
        ray.kill(self._listener)
        self._serve.delete(self._application, _blocking=True)  # the rest ends with the cluster

    def _connect_listener(self) -> None:
        import ray

        from cluster.serving.front import Shown

        assert self._model is not None
        shown = Shown(self._model.name, self._model.version)
        ray.get(self._listener.switch.remote(self._application, self._handle, shown))
        ray.get(self._listener.listen.remote(self._port))

    def _deployed(self, model: ServedModel) -> tuple[str, Any]:
        """Start the replicas of a model, and wait until all have loaded it.

        Raises:
            ServingError: They cannot.
        """
        from cluster.serving.replica import Replica

        name = f"{REPLICAS}-{next(self._numbers)}"
        s = self._settings
        deployment = self._serve.deployment(Replica).options(
            name=REPLICAS,
            num_replicas=s.replicas,
            ray_actor_options={"num_cpus": self._threads},
            # The listener lets in what there is room for: a router that holds requests back would look for a
            # free replica in ever longer intervals.
            max_ongoing_requests=s.queue,
            max_queued_requests=-1,
            max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=0.2,
            health_check_period_s=2.0,
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        application = deployment.bind(
            str(model.folder.resolve()),
            device=s.device,
            threads=self._threads,
            batch=s.batch,
            max_pixels=s.max_pixels,
            max_images=s.max_images,
        )
        try:
            return name, self._serve.run(application, name=name, route_prefix=None)
        except RuntimeError as error:
            status = self._serve.status().applications.get(name)
            found = [] if status is None else [one.message for one in status.deployments.values()]
            self._serve.delete(name, _blocking=True)
            reason = _last_line("\n".join(found)) or str(error)
            raise ServingError(
                f"the model does not load ({reason})", where=str(model), fix="does nfbmr predict load it?"
            ) from error

    def _alive(self) -> int:
        status = self._serve.status().applications.get(self._application)
        states = [] if status is None else [one.replica_states for one in status.deployments.values()]
        return sum(count for found in states for state, count in found.items() if state == "RUNNING")


def _ray_serve() -> Any:
    """Ray Serve without its own HTTP server, which keeps requests of any size and any number in memory."""
    try:
        from ray import serve as ray_serve
        from ray.serve.config import ProxyLocation
    except ImportError as error:
        raise MissingPackageError("Ray Serve is not installed", fix='pip install "ray[serve]"') from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ray_serve.start(proxy_location=ProxyLocation.Disabled, logging_config={"log_level": "WARNING"})
    return ray_serve


@contextmanager
def _stopping(answering: threading.Event) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event; who has nothing to answer yet, or is told twice, ends at once."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() or not answering.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.info("ending: what is under way is answered")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watching(source: Source, every: float, key: str) -> Iterator[queue.Queue[ServedModel]]:
    """Look for another model now and then, in a thread: a registry that is down may be slow to say so."""
    found: queue.Queue[ServedModel] = queue.Queue()
    ended = threading.Event()

    def watch() -> None:
        known, complained = key, False
        while not ended.wait(every):
            try:
                model = source.newest(known)
                complained = False
            except NfbmrError as error:
                if not complained:
                    log.warning("cannot look for another version now: %s", error)
                complained = True
                continue
            except Exception:
                log.exception("looking for another version failed")
                continue
            if model is not None:
                known = model.key
                found.put(model)

    threading.Thread(target=watch, name="watch", daemon=True).start()
    try:
        yield found
    finally:
        ended.set()


def _free_port(settings: ServingSettings) -> int:
    """The port, seen to be free before anything that takes time.

    Raises:
        ServingError: Something listens there.
    """
    host = settings.host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, settings.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ServingError(
                f"cannot listen there ({reason.lower()})",
                where=f"{settings.host}:{settings.port}",
                fix="end what listens there, or choose another --port (0 takes a free one)",
            ) from error
        return int(probe.getsockname()[1])


def _threads(replicas: int) -> int:
    """Of each replica; a core is left to the listener, for which spinning threads would leave nothing."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, (usable_cores() - 1) // replicas)


def _last_line(text: str) -> str:
    """Of a traceback: what was raised."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line.partition(":")[0]]
    return (raised or lines or [""])[-1][:300]

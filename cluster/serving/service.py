"""A model served until somebody says stop, and replaced while it answers: what ``nfbmr serve`` does.

Where it is computed is a :class:`Service`'s: on Ray Serve (:mod:`cluster.serving.ray_service`), or in this
process (:mod:`cluster.serving.local_service`).
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Protocol, TypeVar

from cluster.serving.settings import ServingSettings
from nfbmr.addresses import url_here
from nfbmr.errors import NfbmrError, ServingError
from nfbmr.machine import busy
from nfbmr.model_source import ModelSource, ServedModel
from nfbmr.sockets import bound_socket
from nfbmr.stopping import signals_handled

LOOK_EVERY = 0.5
"""Seconds between two looks at replicas and listener."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Service(Protocol):
    """A model that answers over HTTP."""

    def replace(self, model: ServedModel) -> None:
        """Serve another model from now on; requests to the old one are answered.

        Raises:
            ServingError: It does not load; the old one stays.
        """
        ...

    def look(self) -> None:
        """See that all is as it should be, and pass on what went wrong since the last look."""
        ...

    def close(self) -> None:
        """Answer what is under way, and end."""
        ...


def serve(
    source: ModelSource,
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
        MissingPackageError: A package for it is not installed.
    """
    with bound_socket(settings.host, settings.port, ServingError) as probe:
        port = int(probe.getsockname()[1])
    model = source.poll(None)
    assert model is not None
    output = sys.stdout  # Ray's words go elsewhere while connected
    answering, deadline = threading.Event(), time.monotonic() + settings.start_seconds
    with _stopping(answering) as stop, _kind_of(settings) as start:
        service = _in_time(lambda: start(settings, port, model), deadline, str(model))
        answering.set()
        with redirect_stdout(output):
            on_ready(url_here(settings.host, port), model)
        try:
            with _watching(source, settings.watch, model.key) as models:
                while not stop.is_set():
                    service.look()
                    with suppress(queue.Empty):
                        model = _replaced(service, source, model, models.get(timeout=LOOK_EVERY))
        finally:
            service.close()


def _replaced(service: Service, source: ModelSource, old: ServedModel, new: ServedModel) -> ServedModel:
    """Replace a model by another, let go of what is not served any more, and give what answers now."""
    log.info("loading %s", new)
    try:
        service.replace(new)
    except ServingError as error:
        log.error("%s: %s; %s goes on answering", new, error.what, old)
        source.release(new)
        return old
    log.info("%s answers now", new)
    source.release(old)
    return new


@contextmanager
def _kind_of(settings: ServingSettings) -> Iterator[Callable[..., Service]]:
    """What starts a service: in this process, or on a Ray that is started for it."""
    if settings.local:
        from cluster.serving.local_service import LocalService

        yield LocalService
        return
    from cluster.serving.ray_service import RayService, ray_for_serving

    with ray_for_serving(settings):
        yield RayService


def _in_time(start: Callable[[], T], deadline: float, model: str) -> T:
    """What a start gives: whenever that is, but on a busy machine by a deadline.

    A large model may take its time; on a machine that has other things to do there is no telling whether it
    will ever be loaded.

    Raises:
        ServingError: It is late, and the machine is busy.
    """
    started: Future[T] = Future()

    def run() -> None:
        try:
            started.set_result(start())
        except BaseException as error:
            started.set_exception(error)

    threading.Thread(target=run, name="start", daemon=True).start()
    while not wait([started], timeout=1.0).done:
        words = busy() if time.monotonic() > deadline else ""
        if words:
            raise ServingError(
                f"{words}; the model is not loaded yet",
                where=model,
                fix="try again when the machine has less to do, or give it longer: --start-timeout SECONDS",
            )
    return started.result()


@contextmanager
def _stopping(answering: threading.Event) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event; who has nothing to answer yet, or is told twice, ends at once."""
    stop = threading.Event()

    def ask(number: int) -> None:
        if stop.is_set() or not answering.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.info("ending: what is under way is answered")

    with signals_handled(ask):
        yield stop


@contextmanager
def _watching(source: ModelSource, every: float, key: str) -> Iterator[queue.Queue[ServedModel]]:
    """Look for another model now and then, in a thread: a registry that is down may be slow to say so."""
    models: queue.Queue[ServedModel] = queue.Queue()
    ended = threading.Event()

    def watch() -> None:
        known, complained = key, False
        while not ended.wait(every):
            try:
                model = source.poll(known)
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
                models.put(model)

    threading.Thread(target=watch, name="watch", daemon=True).start()
    try:
        yield models
    finally:
        ended.set()

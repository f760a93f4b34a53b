"""Starting a server, and ending it with all of its processes.

With one worker, the default, the process that was started is the server. With more, it hands its socket to
them and looks after them; they end with it, however it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_server.hosting.application import Application
from mlflow_server.hosting.artifacts import Artifacts
from mlflow_server.hosting.database import Database
from mlflow_server.hosting.secret_files import ADMIN, ADMIN_VARIABLE, secret_key
from mlflow_server.hosting.settings import ServerSettings
from mlflow_server.tracking.statistics import kept_fresh
from nfbmr.errors import ServerError
from nfbmr.sockets import bound_socket
from nfbmr.stopping import signals_handled

if TYPE_CHECKING:
    from uvicorn import Config

    from mlflow_server.hosting.guard import App

log = logging.getLogger(__name__)

_BACKLOG = 512
PATIENCE = 5
"""Seconds that answers under way have when the server is ended."""

START_SECONDS = 55.0
"""Within which a server is ready, if it is not told otherwise; it takes 25 s at a load of 15 on two cores."""


def serve(
    settings: ServerSettings,
    *,
    admin_password: str | None = None,
    on_ready: Callable[[ServerSettings], None] = lambda settings: None,
    start_seconds: float = START_SECONDS,
    begun: float | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; in the main thread, where signals arrive.

    Args:
        settings: Of the server.
        admin_password: Of the first user, ``admin``; wanted where there are no users yet.
        on_ready: Called once it answers, with the port that it took.
        start_seconds: After which a server that is not ready is given up.
        begun: When the start began, in seconds since 1970; now, where it is not given.

    Raises:
        ServerError: It cannot be had like this.
    """
    stop = threading.Event()
    with (
        bound_socket(settings.host, settings.port, ServerError) as listener,
        # A server's own handlers come and go on top of these.
        signals_handled(lambda _: stop.set()),
        _given_up_after(start_seconds, begun or time.time()) as ready,
        Database(settings.backend) as database,
    ):
        listener.set_inheritable(True)
        settings = replace(settings, port=listener.getsockname()[1])

        def announce(settings: ServerSettings) -> None:
            ready()
            on_ready(settings)

        with database.lock("serving", shared=True):
            application = _prepared(settings, database, admin_password)
            if stop.is_set():
                return
            with kept_fresh(settings.backend.file):
                if settings.workers == 1:
                    database.engine.dispose(close=False)
                    _serve_here(application, listener, stop, announce)
                else:
                    _serve_with_workers(application, listener, stop, announce)


@contextmanager
def _given_up_after(seconds: float, begun: float) -> Iterator[Callable[[], None]]:
    """Raise in the main thread so many seconds after the beginning, unless what is given was called before.

    Importing MLflow is most of a start: a signal interrupts it, as nothing else in this process could.
    """
    from nfbmr.machine import busy  # a signal may arrive in the middle of any import

    def late(*_: object) -> None:
        words = busy()
        raise ServerError(
            f"the server is not ready after {seconds:g} s" + (f": {words}" if words else ""),
            fix="try again when this machine has less to do, or give it longer: --start-timeout 300",
        )

    def ready() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    before = signal.signal(signal.SIGALRM, late)
    # Once more after a while: a library that tries an import may take any error for a missing package.
    signal.setitimer(signal.ITIMER_REAL, max(0.01, begun + seconds - time.time()), 5.0)
    try:
        yield ready
    finally:
        ready()
        signal.signal(signal.SIGALRM, before)


def _prepared(settings: ServerSettings, database: Database, admin_password: str | None) -> Application:
    """Tables, users and key are there, or what is missing is said."""
    Artifacts(settings.artifacts).check()
    application = Application(settings, secret_key(settings.secret_key) if settings.authentication else "")
    application.load()
    database.create(settings.artifact_root)
    if settings.authentication:
        _see_to_an_administrator(settings, database, admin_password)
    return application


def _see_to_an_administrator(
    settings: ServerSettings, database: Database, admin_password: str | None
) -> None:
    from mlflow_server.hosting.users import Users

    users = Users(database)
    if users.has_administrator():
        return
    if admin_password is None:
        raise ServerError(
            f"there is no administrator yet, and no password for the first one, {ADMIN!r}",
            where=str(settings.backend),
            fix=f"--admin-password-file FILE (mode 0600), or the variable {ADMIN_VARIABLE}",
        )
    users.add(ADMIN, admin_password, "admin")


def _configuration(application: Callable[[], App], settings: ServerSettings) -> Config:
    from uvicorn import Config

    return Config(
        application,
        factory=True,
        workers=settings.workers,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # A proxy on this machine says whom it speaks for; nobody else is believed.
        forwarded_allow_ips="127.0.0.1,::1",
        timeout_graceful_shutdown=PATIENCE,
        timeout_worker_healthcheck=60,
        backlog=_BACKLOG,
    )


def _serve_here(
    application: Application,
    listener: socket.socket,
    stop: threading.Event,
    on_ready: Callable[[ServerSettings], None],
) -> None:
    from uvicorn import Server

    settings = application.settings

    class Announcing(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready(settings)

    config = _configuration(application, settings)
    config.load()
    if not stop.is_set():
        Announcing(config).run([listener])


def _serve_with_workers(
    application: Application,
    listener: socket.socket,
    stop: threading.Event,
    on_ready: Callable[[ServerSettings], None],
) -> None:
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    settings = application.settings
    listener.listen(_BACKLOG)
    supervisor = Multiprocess(_configuration(_Worker(application), settings), [listener])
    waiting = threading.Thread(
        target=_announce, args=(settings, supervisor.should_exit, on_ready), daemon=True
    )
    waiting.start()
    if stop.is_set():
        return
    try:
        supervisor.run()
    except BaseException:
        for process in supervisor.processes:
            process.kill()
        supervisor.join_all()
        raise
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise ServerError(
            "the workers of the server did not start", fix="their messages are above; --workers 1 says more"
        )


def _announce(
    settings: ServerSettings, ending: threading.Event, on_ready: Callable[[ServerSettings], None]
) -> None:
    while not ending.wait(0.2):
        with suppress(OSError), urllib.request.urlopen(f"{settings.address}/health", timeout=2):
            on_ready(settings)
            return


class _Worker:
    """The application in a worker: it ends with the process that started it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self) -> App:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            return self._application()
        except Exception:
            from uvicorn.config import STARTUP_FAILURE

            log.exception("a worker could not make the application")
            sys.exit(STARTUP_FAILURE)  # any other end, and it would be started again, and again


def _end_with_parent() -> None:
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def summary(settings: ServerSettings) -> dict[str, Any]:
    """What ``--json`` prints of a server that is ready."""
    return {
        "address": settings.address,
        "pid": os.getpid(),
        "backend": str(settings.backend),
        "artifacts": str(settings.artifacts),
        "embedded": settings.embedded,
        "authentication": settings.authentication,
        "allowed_hosts": list(settings.allowed_hosts),
        "workers": settings.workers,
    }


def line(settings: ServerSettings) -> str:
    """What people are told of a server that is ready."""
    who = "users by name and password" if settings.authentication else "this machine alone"
    return (
        f"serving {settings.address} to {who} (runs {settings.backend}, artifacts {settings.artifacts}); "
        "Ctrl-C ends it"
    )

"""Jobs: a command of ours that runs on a cluster, through Ray's job server and HTTP alone.

The entrypoint runs on the cluster's head, with the uploaded code as its working directory. A job that is
stopped is sent SIGTERM and then has :data:`cluster.local.JOB_STOP_SECONDS` to write its checkpoints, where
Ray's own default is 3 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.local import FOLDER, JOB_STOP_SECONDS, ClusterError, find
from cluster.upload import Upload

log = logging.getLogger(__name__)

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_COMMAND = "nfbmr.command"
_QUIET = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_PATIENCE = 60.0
_ANSWER = 5.0


@dataclass(frozen=True)
class Job:
    """A job, as the cluster knows it.

    Attributes:
        job_id: What it is called in every command.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        command: What was submitted, for people.
        started: Seconds since 1970; None where it has not.
        ended: Likewise.
        exit_code: Of the entrypoint, where it ended by itself.
        message: Ray's, where it did not go well.
    """

    job_id: str
    state: str
    command: str
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    message: str | None = None

    @property
    def code(self) -> int:
        """The exit code of whoever waited for the job: its own; 130 where it was stopped."""
        if self.state == "SUCCEEDED":
            return 0
        return 130 if self.state == "STOPPED" else self.exit_code or 1

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "job": self.job_id,
            "state": self.state,
            "command": self.command,
            "started": self.started,
            "ended": self.ended,
            "exit_code": self.exit_code,
        }

    def line(self) -> str:
        """For people."""
        began = "" if self.started is None else f"{datetime.fromtimestamp(self.started):%Y-%m-%d %H:%M:%S}"
        return f"{self.job_id:<34} {self.state:<10} {began:<20} {self.command}"


class Jobs:
    """The jobs of a cluster.

    Args:
        address: Of the job server, ``http://host:8265``; by default see :meth:`JobServer.choose`.

    Raises:
        ClusterError: Nothing answers, or it wants another token.
    """

    def __init__(self, address: str | None = None) -> None:
        server = JobServer.choose(address)
        self.address = server.address
        self._client = _client(server)

    def submit(self, entrypoint: str, upload: Upload, *, name: str, environment: Mapping[str, str]) -> str:
        """Start a job.

        Args:
            entrypoint: For the shell of the cluster's head.
            upload: Its working directory.
            name: Begins its id.
            environment: Of the job and its workers; no secrets, for whoever may list jobs can read it.

        Returns:
            The job's id.
        """
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_SECONDS), **environment}
        job_id = f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        with upload.staged() as folder, _explained(self.address):
            submitted: str = self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"working_dir": str(folder), "env_vars": variables},
                metadata={_COMMAND: _readable(entrypoint)},
            )
        return submitted

    def all(self) -> list[Job]:
        """Every job that was submitted, the newest first."""
        with _explained(self.address):
            details = [each for each in self._client.list_jobs() if each.submission_id]
        return sorted(map(_job, details), key=lambda job: job.started or 0.0, reverse=True)

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            ClusterError: There is none of that name.
        """
        with _explained(self.address, job_id):
            return _job(self._client.get_job_info(job_id))

    def logs(self, job_id: str) -> str:
        """All that a job has printed."""
        with _explained(self.address, job_id):
            text: str = self._client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Show what a job prints until it ends.

        A connection that is lost is taken up again where it broke off.

        Args:
            job_id: Which.
            show: Called with each new piece of text.

        Returns:
            The job, which has ended.

        Raises:
            ClusterError: There is none of that name, or the server has not answered for a minute.
        """
        self.get(job_id)  # an unknown one is told at once, and not taken for a server that is away
        return asyncio.run(self._follow(job_id, show))

    def stop(self, job_id: str, *, wait: float = JOB_STOP_SECONDS + 10.0) -> Job:
        """Ask a job to stop, and wait until it has.

        Its command is sent SIGTERM: it writes its checkpoints, and can be gone on with.
        """
        with _explained(self.address, job_id):
            self._client.stop_job(job_id)
        deadline = time.monotonic() + wait
        while (job := self.get(job_id)).state not in ENDED and time.monotonic() < deadline:
            time.sleep(0.5)
        return job

    async def _follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        shown, last = 0, time.monotonic()
        while True:
            position = 0
            with contextlib.suppress(OSError, RuntimeError, ConnectionError):
                async for text in self._tail(job_id):
                    if position + len(text) > shown:
                        show(text[max(0, shown - position) :])
                        shown = position + len(text)
                    position += len(text)
                    last = time.monotonic()
            try:
                job = self.get(job_id)
            except ClusterError:
                if time.monotonic() - last > _PATIENCE:
                    raise
            else:
                if job.state in ENDED:
                    return job
                last = time.monotonic()
            await asyncio.sleep(1.0)

    async def _tail(self, job_id: str) -> AsyncIterator[str]:
        import aiohttp

        try:
            async for text in self._client.tail_job_logs(job_id):
                yield text
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error


@dataclass(frozen=True)
class JobServer:
    """Where jobs are sent.

    Attributes:
        address: Of the cluster's dashboard, which is its job server.
        token: What every request must show; None where the cluster asks for none.
    """

    address: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def choose(cls, address: str | None = None, *, folder: Path = FOLDER) -> JobServer:
        """The job server to use.

        Args:
            address: Where it is given, that one; else ``RAY_API_SERVER_ADDRESS``; else ``RAY_ADDRESS``, if it
                begins with http; else the private cluster that `folder` remembers.
            folder: Of a private cluster.

        Raises:
            ClusterError: None of these, or it is not an address.
        """
        named = [address, os.environ.get("RAY_API_SERVER_ADDRESS"), os.environ.get("RAY_ADDRESS")]
        given = next((each for each in named[:2] if each), None)
        if given is None and (named[2] or "").startswith("http"):
            given = named[2]
        local = find(folder)
        if local is not None and local.alive and given in (None, local.dashboard):
            return cls(local.dashboard, local.token.read_text(encoding="utf-8").strip())
        if given is None:
            raise ClusterError(
                "no cluster to send this to",
                fix="start one here with nfbmr cluster up, or say --address http://HOST:8265",
            )
        return cls(_checked(given), _token())


def _checked(address: str) -> str:
    address = address if "://" in address else f"http://{address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            "not the address of a job server",
            where=address,
            fix="it is the address of the cluster's dashboard: http://HOST:8265",
        )
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning(
            "%s: the token and all that is sent can be read on the way; use a tunnel, or https", address
        )
    return address.rstrip("/")


def _token() -> str | None:
    """The token, from where Ray looks for it too."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not named and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(
            f"the cluster's token cannot be read ({error.strerror})",
            where=file,
            fix="name the file that holds it: export RAY_AUTH_TOKEN_PATH=FILE",
        ) from error


def _client(server: JobServer) -> Any:
    from ray.job_submission import JobSubmissionClient

    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    headers = {} if server.token is None else {"Authorization": f"Bearer {server.token}"}
    parts = urlsplit(server.address)
    with _explained(server.address):
        # Ray itself would wait for ever.
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((str(parts.hostname), port), timeout=_ANSWER).close()
        return JobSubmissionClient(server.address, headers=headers)


@contextlib.contextmanager
def _explained(address: str, job_id: str | None = None) -> Iterator[None]:
    """Ray's errors, in the terms of whoever typed the command."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            "the cluster wants another token",
            where=address,
            fix="name the file that holds the cluster's token: export RAY_AUTH_MODE=token "
            "RAY_AUTH_TOKEN_PATH=FILE",
        ) from error
    except (OSError, RequestException) as error:
        raise ClusterError(
            "no job server answers",
            where=address,
            fix="is the cluster up, and is this the address of its dashboard (port 8265 as a rule)?",
        ) from error
    except RuntimeError as error:
        text = str(error)
        if job_id is not None and ("does not exist" in text or "404" in text):
            raise ClusterError("no such job", where=job_id, fix="see them with: nfbmr jobs list") from error
        raise ClusterError(
            f"the job server refuses ({text.strip().splitlines()[-1][:300]})",
            where=address,
            fix="see the cluster's own log, or its dashboard",
        ) from error


def _job(details: Any) -> Job:
    metadata = details.metadata or {}
    return Job(
        job_id=details.submission_id,
        state=str(getattr(details.status, "value", details.status)),
        command=metadata.get(_COMMAND, details.entrypoint),
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
        exit_code=details.driver_exit_code,
        message=details.message,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000.0


def _readable(entrypoint: str) -> str:
    """The command as a person would type it."""
    words = shlex.split(entrypoint)
    if words[:4] == ["exec", "python", "-m", "nfbmr.cli.main"]:
        words = ["nfbmr", *words[4:]]
    elif words[:4] == ["exec", "python", "-m", "cluster.probe"]:
        words = ["preflight"]
    return shlex.join(words)

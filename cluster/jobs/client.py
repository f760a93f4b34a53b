"""Jobs: a command of ours that runs on a cluster, through Ray's ``JobSubmissionClient``.

The entrypoint runs on the cluster's head, with the uploaded code as its working directory. A job that is
stopped is sent SIGTERM and then has :data:`cluster.local.local_cluster.JOB_STOP_SECONDS` to write its
checkpoints, where Ray's own default is 3 s.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cluster.jobs.job_server import JobServer
from cluster.jobs.upload import Upload
from cluster.local.local_cluster import JOB_STOP_SECONDS, ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

PATIENCE = 60.0
"""Seconds without a word from the server after which following a job is given up."""
_COMMAND = "nfbmr.command"


def as_json(job: JobDetails) -> dict[str, Any]:
    """A job for ``--json``: times in seconds since 1970, the exit code of a command that ended by itself."""
    started, ended = (ms and ms / 1000 for ms in (job.start_time, job.end_time))
    return {
        "job": job.submission_id,
        "state": job.status.value,
        "command": (job.metadata or {}).get(_COMMAND, job.entrypoint),
        "started": started,
        "ended": ended,
        "exit_code": job.driver_exit_code,
    }


def line(job: JobDetails) -> str:
    """A job for people."""
    fields = as_json(job)
    began = fields["started"] and f"{datetime.fromtimestamp(fields['started']):%Y-%m-%d %H:%M:%S}"
    return f"{fields['job']:<34} {fields['state']:<10} {began or '':<20} {fields['command']}"


def exit_code(job: JobDetails) -> int:
    """Of whoever waited for the job: its own; 130 where it was stopped."""
    if job.status == "SUCCEEDED":
        return 0
    return 130 if job.status == "STOPPED" else job.driver_exit_code or 1


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
        logging.getLogger("ray").setLevel(logging.WARNING)
        with _explained(self.address):
            self._client = server.client()

    def submit(
        self,
        entrypoint: str,
        upload: Upload,
        *,
        name: str,
        environment: Mapping[str, str],
        command: str | None = None,
    ) -> str:
        """Start a job.

        Args:
            entrypoint: For the shell of the cluster's head.
            upload: Its working directory.
            name: Begins its id.
            environment: Of the job and its workers; no secrets, for whoever may list jobs can read it.
            command: As a person would type it, for lists.

        Returns:
            The job's id.
        """
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_SECONDS), **environment}
        job_id = f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        with upload.staged() as folder, _explained(self.address):
            return self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"working_dir": str(folder), "env_vars": variables},
                metadata={_COMMAND: command or entrypoint},
            )

    def all(self) -> list[JobDetails]:
        """Every job that was submitted, the newest first."""
        with _explained(self.address):
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)

    def get(self, job_id: str) -> JobDetails:
        """One job.

        Raises:
            ClusterError: There is none of that name.
        """
        with _explained(self.address, job_id):
            return self._client.get_job_info(job_id)

    def logs(self, job_id: str) -> str:
        """All that a job has printed."""
        with _explained(self.address, job_id):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, show: Callable[[str], None]) -> JobDetails:
        """Show what a job prints until it ends; a connection that is lost is taken up again.

        Args:
            job_id: Which.
            show: Called with each new piece of text.

        Returns:
            The job, which has ended.

        Raises:
            ClusterError: There is none of that name, or the server has not answered for a minute.
        """
        self.get(job_id)  # an unknown one is told at once, and not taken for a server that is away
        shown, heard = 0, time.monotonic()
        while True:
            shown = asyncio.run(self._tail(job_id, shown, show))
            try:
                job = self.get(job_id)
            except ClusterError:
                if time.monotonic() - heard > PATIENCE:
                    raise
            else:
                if job.status.is_terminal():
                    return job
                heard = time.monotonic()
            time.sleep(1.0)

    def stop(self, job_id: str, *, wait: float = JOB_STOP_SECONDS + 10.0) -> JobDetails:
        """Ask a job to stop, and wait until it has.

        Its command is sent SIGTERM: it writes its checkpoints, and can be gone on with.
        """
        with _explained(self.address, job_id):
            self._client.stop_job(job_id)
        deadline = time.monotonic() + wait
        while not (job := self.get(job_id)).status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
        return job

    async def _tail(self, job_id: str, shown: int, show: Callable[[str], None]) -> int:
        """Show a job's log from a place on, as long as the connection holds; the place where it ended."""
        import aiohttp

        position = 0
        with suppress(OSError, RuntimeError, aiohttp.ClientError):
            async for text in self._client.tail_job_logs(job_id):
                if position + len(text) > shown:
                    show(text[max(0, shown - position) :])
                    shown = position + len(text)
                position += len(text)
        return shown


@contextmanager
def _explained(address: str, job_id: str | None = None) -> Iterator[None]:
    """Ray's errors, in the terms of whoever typed the command."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError as error:
        fix = (
            "name the file that holds the cluster's token: export RAY_AUTH_TOKEN_PATH=FILE; it is sent "
            "within this machine or over https alone, so reach others by a tunnel"
        )
        raise ClusterError("the cluster wants another token", where=address, fix=fix) from error
    except (OSError, RequestException) as error:
        fix = "is the cluster up, and is this the address of its dashboard (port 8265 as a rule)?"
        raise ClusterError("no job server answers", where=address, fix=fix) from error
    except RuntimeError as error:
        text = str(error)
        if job_id is not None and ("does not exist" in text or "404" in text):
            raise ClusterError("no such job", where=job_id, fix="see them with: nfbmr jobs list") from error
        raise ClusterError(
            f"the job server refuses ({text.strip().splitlines()[-1][:300]})",
            where=address,
            fix="see the cluster's own log, or its dashboard",
        ) from error

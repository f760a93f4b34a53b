"""``nfbmr jobs``: what was submitted to a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import emit, json_option

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from cluster.jobs.client import Jobs

_JOB = click.argument("job")


def address_option(function: Any) -> Any:
    """Give a command ``--address``."""
    return click.option(
        "--address",
        metavar="URL",
        help="Of the cluster's job server; else RAY_API_SERVER_ADDRESS, else that of nfbmr cluster up.",
    )(function)


@click.group()
def jobs() -> None:
    """List, follow or stop the jobs of a cluster."""


@jobs.command("list")
@address_option
@json_option
def list_(address: str | None, as_json: bool) -> None:
    """List jobs, the newest first."""
    from cluster.jobs import client

    listed = client.Jobs(address).all()
    text = "\n".join(map(client.line, listed)) or "no jobs yet"
    emit({"jobs": [client.as_json(job) for job in listed]}, as_json=as_json, text=text)


@jobs.command()
@_JOB
@click.option(
    "--follow/--no-follow", default=False, help="Go on until the job ends; Ctrl-C does not stop it."
)
@address_option
@json_option
def logs(job: str, follow: bool, address: str | None, as_json: bool) -> int:
    """Print what a JOB has printed.

    With --follow, exits as the job does.
    """
    from cluster.jobs.client import Jobs

    there = Jobs(address)
    if follow:
        return tell_end(follow_to_end(there, job), as_json=as_json)
    text = there.logs(job)
    emit({"job": job, "log": text}, as_json=as_json, text=text)
    return 0


@jobs.command()
@_JOB
@address_option
@json_option
def stop(job: str, address: str | None, as_json: bool) -> None:
    """Stop a JOB: it writes its checkpoints first, and can be gone on with."""
    from cluster.jobs.client import Jobs

    tell_end(Jobs(address).stop(job), as_json=as_json)


def follow_to_end(there: Jobs, job_id: str) -> JobDetails:
    """Show a job's log on standard error until it ends; Ctrl-C stops the showing, not the job."""
    from nfbmr.errors import Interrupted

    try:
        return there.follow(job_id, lambda text: click.echo(text, nl=False, err=True))
    except KeyboardInterrupt as error:
        raise Interrupted(
            "no longer following; the job goes on",
            where=job_id,
            fix=f"nfbmr jobs logs --follow {job_id}, or stop it: nfbmr jobs stop {job_id}",
        ) from error


def tell_end(job: JobDetails, *, as_json: bool) -> int:
    """Print how a job ended; its exit code."""
    from cluster.jobs import client

    text = f"{job.submission_id} {job.status.value.lower()}"
    emit(client.as_json(job), as_json=as_json, text=text)
    return client.exit_code(job)

"""``nfbmr submit``: a command of ours, on a cluster."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.jobs import address_option, follow_to_end, tell_end
from nfbmr.cli.options import emit, json_option


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@address_option
@click.option(
    "--follow/--no-follow", default=True, help="Show the job's log until it ends, and exit as it does."
)
@click.option("--preflight/--no-preflight", default=True, help="Check first whether it would work there.")
@click.option("--dry-run", is_flag=True, help="Check, and submit nothing.")
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set in the job's environment. No secrets: whoever may list jobs reads them. Repeatable.",
)
@json_option
@click.argument("words", nargs=-1, required=True, metavar="COMMAND ...", type=click.UNPROCESSED)
def submit(
    address: str | None,
    follow: bool,
    preflight: bool,
    dry_run: bool,
    variables: tuple[str, ...],
    as_json: bool,
    words: tuple[str, ...],
) -> int:
    """Run train, sweep, ablate or compare on a cluster, as a job.

    For example: nfbmr submit -- sweep --data /shared/parts --trials 50. Everything that would not work there
    is said first, all at once. The code travels with the job; data, store and output must lie where every
    node sees them.
    """
    from cluster.jobs import preflight as checking
    from cluster.jobs.client import Jobs
    from cluster.jobs.request import rewrite_command
    from cluster.jobs.upload import gather

    environment = dict(map(_assignment, variables))
    request = rewrite_command(words)
    upload = gather(request.files)
    there = Jobs(address)
    tracking = _tracking(request.config.tracking)
    uri: str | None = tracking.given or tracking.default
    if preflight or dry_run:
        click.echo(f"asking {there.address} ...", err=True)
        report = checking.check(request, upload, there, tracking)
        click.echo(report.render(), err=True)
        try:
            report.refuse()
        except checking.PreflightError as error:
            if not as_json:
                raise
            from nfbmr.cli.ending import emit_despite

            return emit_despite(error, {"preflight": report.as_json()}, as_json=True, text="")
        uri = report.tracking
        if dry_run:
            emit({"preflight": report.as_json()}, as_json=as_json, text=f"would run  {request.entrypoint}")
            return 0
    if uri is not None:
        environment.setdefault("MLFLOW_TRACKING_URI", uri)
    job_id = there.submit(
        request.entrypoint, upload, name=request.command, environment=environment, command=request.shown
    )
    click.echo(f"job {job_id}; stop it with: nfbmr jobs stop {job_id}", err=True)
    if not follow:
        emit({"job": job_id, "state": "PENDING"}, as_json=as_json, text=job_id)
        return 0
    return tell_end(follow_to_end(there, job_id), as_json=as_json)


def _tracking(config: Any) -> Any:
    """Where the job is to track: what is said here, without a password, else a database in this folder."""
    from cluster.jobs.preflight import Tracking
    from nfbmr.trackers import tracking_address

    address = tracking_address(config)
    if address is None:
        return Tracking()
    if address.has_password:
        click.echo(
            "the tracking server's password is not sent: set MLFLOW_TRACKING_PASSWORD in the cluster",
            err=True,
        )
    return Tracking(given=address.uri) if address.given else Tracking(default=address.uri)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} should read NAME=VALUE", param_hint="--env")
    return name, value

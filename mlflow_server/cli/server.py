"""``nfbmr server``: the tracking server, its users, and what keeps its records safe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfbmr.cli.options import Size, emit, json_option

if TYPE_CHECKING:
    from mlflow_server.hosting.artifacts import Artifacts
    from mlflow_server.hosting.database import Database
    from mlflow_server.hosting.settings import Backend, ServerSettings
    from mlflow_server.hosting.users import User, Users

_ROLES = ("reader", "writer", "admin")


def _backend_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--backend",
        metavar="ADDRESS",
        envvar="NFBMR_SERVER_BACKEND",
        callback=_backend,
        help="sqlite:///FILE.db or postgresql://USER@HOST/DATABASE; default: mlflow.db here, where runs go.",
    )(function)


def _artifacts_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--artifacts",
        metavar="PLACE",
        envvar="NFBMR_SERVER_ARTIFACTS",
        callback=_artifacts,
        help="A folder or s3://BUCKET/PREFIX; default: the folder mlartifacts beside the database.",
    )(function)


def _password_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--password-file",
        metavar="FILE",
        type=click.Path(path_type=Path, allow_dash=True),
        help="Holds the password; - reads it from standard input. Else NFBMR_USER_PASSWORD, else a question.",
    )(function)


def _backend(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Backend:
    from mlflow_server.hosting.settings import Backend, refuse_shown_password

    if _is_given(ctx, "backend"):
        refuse_shown_password([str(value)])
        return Backend.of(value)
    before = _given_before(ctx, "backend")
    return before if before is not None else Backend.of(value)


def _artifacts(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    before = None if _is_given(ctx, "artifacts") else _given_before(ctx, "artifacts")
    return value if before is None else before


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _given_before(ctx: click.Context, name: str) -> Any:
    """What was given before the name of a subcommand: `nfbmr server --backend ADDRESS backup`."""
    above = ctx.parent
    while above is not None:
        if _is_given(above, name):
            return above.params[name]
        above = above.parent
    return None


@click.group(invoke_without_command=True)
@_backend_option
@_artifacts_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0 takes a free one."
)
@click.option(
    "--allowed-hosts",
    metavar="NAME",
    multiple=True,
    help="A name by which it is reached from elsewhere. Repeatable. Turns users on.",
)
@click.option("--auth", is_flag=True, help="Ask for user and password on this machine too.")
@click.option(
    "--admin-password-file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Password of the first user, admin; else NFBMR_ADMIN_PASSWORD.",
)
@click.option(
    "--secret-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path(".nfbmr/server/secret_key"),
    show_default=True,
    help="Signs sessions of users; made, for its owner alone, where it is missing.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that answer."
)
@click.option(
    "--max-upload",
    type=Size(),
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Of the largest artifact.",
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    envvar="NFBMR_SERVER_START_TIMEOUT",
    default=55.0,
    show_default=True,
    help="Give up a start that takes longer.",
)
@json_option
@click.pass_context
def server(
    context: click.Context,
    backend: Backend,
    artifacts: str | None,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    auth: bool,
    admin_password_file: Path | None,
    secret_key: Path,
    workers: int,
    max_upload: int,
    start_timeout: float,
    as_json: bool,
) -> None:
    """Serve the records of runs, and the pages that show them, until Ctrl-C.

    Without options it serves this machine alone, from the database and the folder that runs in this folder
    write to. Beyond this machine (--host, --allowed-hosts) it asks for users and passwords.
    """
    if context.invoked_subcommand is not None:
        for name in context.params:
            if name not in ("backend", "artifacts", "as_json") and _is_given(context, name):
                option = f"--{name.replace('_', '-')}"
                raise click.UsageError(
                    f"{option} is for the server itself, not for {context.invoked_subcommand}"
                )
        return
    import psutil

    from mlflow_server.hosting.processes import line, serve, summary
    from mlflow_server.hosting.secret_files import ADMIN_VARIABLE
    from mlflow_server.hosting.settings import ServerSettings, artifacts_of
    from nfbmr.secret_files import password_from

    settings = ServerSettings(
        backend,
        artifacts_of(artifacts, backend),
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        authentication=auth,
        workers=workers,
        secret_key=secret_key,
        max_upload=max_upload,
    )

    def ready(settings: ServerSettings) -> None:
        emit(summary(settings), as_json=as_json, text=line(settings))

    password = password_from(admin_password_file, ADMIN_VARIABLE)
    serve(
        settings,
        admin_password=password,
        on_ready=ready,
        start_seconds=start_timeout,
        begun=psutil.Process().create_time(),
    )


@server.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@_backend_option
@_artifacts_option
@json_option
def backup(folder: Path | None, backend: Backend, artifacts: str | None, as_json: bool) -> None:
    """Copy database and artifacts into FOLDER (default: backups/TIME), while the server goes on."""
    from mlflow_server.hosting.backup import default_folder, make_backup

    with _places(backend, artifacts) as (database, place):
        made = make_backup(database, place, folder or default_folder())
    emit(made.as_json(), as_json=as_json, text=made.line())


@server.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_backend_option
@_artifacts_option
@json_option
def restore(folder: Path, backend: Backend, artifacts: str | None, as_json: bool) -> None:
    """Fill an empty database and an empty place for artifacts from the backup in FOLDER."""
    from mlflow_server.hosting.backup import Backup
    from mlflow_server.hosting.backup import restore as put_back

    saved = Backup.read(folder)
    with _places(backend, artifacts) as (database, kept):
        rows = put_back(saved, database, kept)
        summary = {"backend": str(backend), "artifacts": str(kept.root), "rows": rows, "files": saved.files}
        text = f"{backend}: {rows['runs']} runs, {rows['metrics']} metric points; {kept.root}"
    emit(summary, as_json=as_json, text=f"{text}: {saved.files} artifacts")


@server.command()
@click.option(
    "--backup",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Made for a backup of what the database holds before; default: backups/TIME.",
)
@_backend_option
@_artifacts_option
@json_option
def upgrade(folder: Path | None, backend: Backend, artifacts: str | None, as_json: bool) -> None:
    """Back up a server that is down, and bring its tables to the installed version of MLflow."""
    from mlflow_server.hosting.backup import default_folder
    from mlflow_server.hosting.upgrade import upgrade as bring_up_to_date

    with _places(backend, artifacts) as (database, place):
        done = bring_up_to_date(database, place, folder or default_folder())
    saved = None if done.backup is None else str(done.backup.folder)
    text = f"{backend}: upgraded from {done.before.records} to {done.after.records}; backup in {saved}"
    emit(
        {"upgraded": done.needed, "before": done.before, "after": done.after, "backup": saved},
        as_json=as_json,
        text=text if done.needed else f"{backend}: up to date",
    )


@server.command()
@click.option(
    "--older-than", metavar="TIME", default="0d", help="Only what was removed so long ago: 30d, 12h."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_backend_option
@_artifacts_option
@json_option
def gc(older_than: str, dry_run: bool, backend: Backend, artifacts: str | None, as_json: bool) -> None:
    """Remove removed runs and their artifacts for good; not those that registered models come from."""
    from mlflow_server.hosting.collection import age_of, collect

    with _places(backend, artifacts) as (database, place):
        garbage = collect(database, place, older_than=age_of(older_than), dry_run=dry_run)
    emit({"dry_run": dry_run, **vars(garbage)}, as_json=as_json, text=garbage.line(dry_run=dry_run))


@server.group()
def users() -> None:
    """Who may use a server: readers look, writers record, admins manage. At once, while it runs."""


@users.command("list")
@_backend_option
@json_option
def list_users(backend: Backend, as_json: bool) -> None:
    """List all users and their roles."""
    with _users(backend) as registered:
        everybody = registered.list()
    _tell(everybody, as_json)


@users.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default="reader", show_default=True)
@_password_option
@_backend_option
@json_option
def add_user(name: str, role: Any, password_file: Path | None, backend: Backend, as_json: bool) -> None:
    """Make a user called NAME."""
    password = _password(password_file)
    with _users(backend) as registered:
        registered.add(name, password, role)
        _tell([user for user in registered.list() if user.name == name], as_json)


@users.command("passwd")
@click.argument("name")
@_password_option
@_backend_option
@json_option
def change_password(name: str, password_file: Path | None, backend: Backend, as_json: bool) -> None:
    """Give the user NAME another password."""
    password = _password(password_file)
    with _users(backend) as registered:
        registered.change_password(name, password)
    emit({"changed": name}, as_json=as_json, text=f"{name} has another password")


@users.command("grant")
@click.argument("name")
@click.argument("role", type=click.Choice(_ROLES))
@click.option(
    "--experiment", metavar="EXPERIMENT", help="For this experiment alone: writer, or reader to take it back."
)
@_backend_option
@json_option
def grant(name: str, role: Any, experiment: str | None, backend: Backend, as_json: bool) -> None:
    """Give the user NAME the role ROLE instead of the one they have."""
    with _users(backend) as registered:
        registered.grant(name, role, experiment)
        _tell([user for user in registered.list() if user.name == name], as_json)


@users.command("remove")
@click.argument("name")
@_backend_option
@json_option
def remove_user(name: str, backend: Backend, as_json: bool) -> None:
    """Remove the user NAME; what they recorded stays."""
    with _users(backend) as registered:
        registered.remove(name)
    emit({"removed": name}, as_json=as_json, text=f"{name} is no user any more")


@contextmanager
def _places(backend: Backend, artifacts: str | None) -> Iterator[tuple[Database, Artifacts]]:
    from mlflow_server.hosting.artifacts import Artifacts
    from mlflow_server.hosting.database import Database
    from mlflow_server.hosting.settings import artifacts_of

    with Database(backend) as database:
        yield database, Artifacts(artifacts_of(artifacts, backend))


@contextmanager
def _users(backend: Backend) -> Iterator[Users]:
    from mlflow_server.hosting.database import Database
    from mlflow_server.hosting.users import Users

    with Database(backend) as database:
        database.create("mlflow-artifacts:/")
        yield Users(database)


def _tell(everybody: list[User], as_json: bool) -> None:
    width = max((len(user.name) for user in everybody), default=0)
    lines = [
        f"{user.name:{width}}  {user.role or 'no role'}"
        + (f", writes to {', '.join(user.experiments)}" if user.experiments and user.role == "reader" else "")
        for user in everybody
    ]
    emit({"users": everybody}, as_json=as_json, text="\n".join(lines) or "there are no users")


def _password(file: Path | None) -> str:
    from mlflow_server.hosting.secret_files import USER_VARIABLE
    from nfbmr.secret_files import checked_password, password_from

    given = password_from(file, USER_VARIABLE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise click.UsageError(f"no password: give --password-file FILE, or set {USER_VARIABLE}")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return checked_password(asked, "as it was typed")

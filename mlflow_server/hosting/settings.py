"""What a tracking server is: where its records and artifacts are, who may reach it, and how.

A server is *embedded* as long as it serves this machine alone from a SQLite file and a folder. Then it
needs no users, and runs may write to its files with or without it. As soon as anybody else can reach it, it
insists on users, on the host names it answers to, and on a secret key.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from mlflow_server.destination import VARIABLE, Destination, without_password
from nfbmr.addresses import ObjectPath, is_loopback, store_address, url_here
from nfbmr.errors import ServerError

HOST, PORT = "127.0.0.1", 5000
"""Where the server listens by default."""
_SECRET_KEY = Path(".nfbmr/server/secret_key")
_MAX_UPLOAD = 2 * 10**9
BACKEND_VARIABLE = "NFBMR_SERVER_BACKEND"
"""Environment variable with the database's address."""

_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", re.IGNORECASE)


@dataclass(frozen=True)
class Backend:
    """The database of a server.

    Attributes:
        uri: As SQLAlchemy takes it, the password included where one was given.
    """

    uri: str

    @classmethod
    def of(cls, given: str | None) -> Backend:
        """The address that was given, else the database that runs in this folder write to.

        Raises:
            ServerError: It is no database that a server can use, or shows a password.

        Example:
            >>> Backend.of("postgresql://mlflow@db.example.com/mlflow").kind
            'postgresql'
        """
        if not given:
            default = os.environ.get(VARIABLE, "")
            given = default if urlsplit(default).scheme.startswith(("sqlite", "postgresql")) else None
        if not given:
            return cls(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
        scheme = urlsplit(given).scheme
        if scheme.startswith("sqlite"):
            if not given.partition("///")[2]:
                raise ServerError(
                    "a database in memory would be gone with the server",
                    where=given,
                    fix="name a file: sqlite:///mlflow.db",
                )
            return cls(Destination.resolve(given).uri)
        if scheme not in ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
            raise ServerError(
                "not a database that the server can use",
                where=without_password(given),
                fix="give sqlite:///FILE.db or postgresql://USER@HOST/DATABASE",
            )
        if not urlsplit(given).path.strip("/"):
            raise ServerError(
                "names no database",
                where=without_password(given),
                fix="postgresql://USER@HOST/DATABASE; make one with: createdb DATABASE",
            )
        if "password" in dict(parse_qsl(urlsplit(given).query)):
            raise ServerError(
                "the password is among the options of the address",
                fix="put it in ~/.pgpass (mode 0600) or in PGPASSWORD",
            )
        if "+" in scheme:
            return cls(given)
        installed = [name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)]
        driver = installed[0] if installed else "psycopg"
        return cls(f"postgresql+{driver}{given.removeprefix(scheme)}")

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return "sqlite" if self.uri.startswith("sqlite") else "postgresql"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.uri.partition("///")[2]) if self.kind == "sqlite" else None

    @property
    def password(self) -> str | None:
        """The one in the address."""
        return urlsplit(self.uri).password

    @property
    def driver(self) -> str | None:
        """The package that speaks to PostgreSQL."""
        return urlsplit(self.uri).scheme.partition("+")[2] or None

    def __str__(self) -> str:
        return re.sub(r"^postgresql\+\w+", "postgresql", without_password(self.uri))

    def __repr__(self) -> str:
        return f"Backend({str(self)!r})"


def artifacts_of(given: str | None, backend: Backend) -> Path:
    """Where artifacts are kept: the folder or ``s3://bucket/prefix`` given, else beside the database.

    Raises:
        ServerError: An address of a kind that is not supported.

    Example:
        >>> str(artifacts_of("s3://parts/mlflow", Backend("sqlite:////tmp/mlflow.db")))
        's3://parts/mlflow'
        >>> str(artifacts_of(None, Backend("sqlite:////tmp/mlflow.db")))
        '/tmp/mlartifacts'
    """
    if not given:
        return (Path.cwd() if backend.file is None else backend.file.parent) / "mlartifacts"
    try:
        return store_address(given.removeprefix("file://")).absolute()
    except ValueError as error:
        raise ServerError(
            str(error), where=given, fix="artifacts go to a folder or to s3://bucket/prefix"
        ) from error


@dataclass(frozen=True)
class ServerSettings:
    """A tracking server.

    Attributes:
        backend: Its database.
        artifacts: A folder, or an :class:`~nfbmr.addresses.ObjectPath`.
        host: Address that it listens on.
        port: Likewise; 0 takes a free one.
        allowed_hosts: Names, without ports, under which browsers and runs reach it beyond this machine.
        authentication: Whether it asks who is there.
        workers: Processes that answer requests.
        secret_key: The file of the key that signs sessions; made where it is missing.
        max_upload: Bytes of the largest artifact that it takes.

    Raises:
        ServerError: They do not go together.

    Example:
        >>> settings = ServerSettings(Backend("sqlite:////tmp/mlflow.db"), Path("/tmp/mlartifacts"))
        >>> settings.embedded, settings.authentication
        (True, False)
    """

    backend: Backend
    artifacts: Path
    host: str = HOST
    port: int = PORT
    allowed_hosts: tuple[str, ...] = ()
    authentication: bool = False
    workers: int = 1
    secret_key: Path = _SECRET_KEY
    max_upload: int = _MAX_UPLOAD

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            _check_host_name(name)
        if not self.exposed:
            return
        object.__setattr__(self, "authentication", True)
        if not self.allowed_hosts:
            raise ServerError(
                "a server that others can reach must know its own names, or any page could lead a "
                "browser to it under a name of its choice",
                where=f"--host {self.host}",
                fix="name them: --allowed-hosts tracking.example.com (repeatable); or stay on this machine: "
                f"--host {HOST}",
            )

    @property
    def exposed(self) -> bool:
        """Whether it can be reached from beyond this machine, directly or through a proxy in front."""
        return not is_loopback(self.host) or any(not is_loopback(name) for name in self.allowed_hosts)

    @property
    def embedded(self) -> bool:
        """Whether only this machine uses it, and its files may be written without it."""
        local = self.backend.kind == "sqlite" and not isinstance(self.artifacts, ObjectPath)
        return local and not self.authentication

    @property
    def artifact_root(self) -> str:
        """Where MLflow puts the artifacts of a new experiment.

        Runs on this machine write an embedded server's artifacts themselves, so that they find them again
        without it; in all other cases artifacts pass through the server.
        """
        return self.artifacts.as_uri() if self.embedded else "mlflow-artifacts:/"

    @property
    def artifacts_destination(self) -> str:
        """Where the server puts the artifacts that pass through it."""
        return str(self.artifacts) if isinstance(self.artifacts, ObjectPath) else self.artifacts.as_uri()

    @property
    def address(self) -> str:
        """Its address as seen from this machine."""
        return url_here(self.host, self.port)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Values of the header ``Host`` that it answers to, as MLflow's patterns."""
        names = ("localhost", "127.0.0.1", "[[]::1]", *self.allowed_hosts)
        exact = ("localhost", "127.0.0.1", "[::1]", *self.allowed_hosts)
        return (*exact, *(f"{name}:*" for name in names))

    @property
    def origins(self) -> tuple[str, ...]:
        """Values of the header ``Origin`` that may change something, besides the server's own."""
        return tuple(
            f"{scheme}://{name}{port}"
            for name in self.allowed_hosts
            for scheme in ("https", "http")
            for port in ("", f":{self.port}")
        )


def refuse_shown_password(arguments: Sequence[str]) -> None:
    """Refuse a password in an address on the command line: everybody on the machine can read it there.

    Raises:
        ServerError: There is one.
    """
    for argument in arguments:
        address = argument.partition("=")[2] if argument.startswith("--") else argument
        if "://" in address and urlsplit(address).password:
            raise ServerError(
                "a password on the command line can be read by everybody on this machine",
                where=without_password(address),
                fix="leave it out of the address and put it in ~/.pgpass (mode 0600) or in PGPASSWORD, or "
                f"give the whole address in the variable {BACKEND_VARIABLE}",
            )


def _check_host_name(name: str) -> None:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise ServerError(
                "not a host name",
                where=f"--allowed-hosts {name}",
                fix="give names as browsers show them, without https://, without a port and without *",
            ) from None

"""Passwords from private files; none is ever put into words."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

from nfbmr.errors import ServerError

_SHORTEST_PASSWORD = 12


def password_from(file: Path | None, variable: str) -> str | None:
    """A password from a file (``-`` for standard input), else from a variable; None where neither has one.

    Raises:
        ServerError: Others may read the file, or the password is too short.
    """
    if file is not None and str(file) == "-":
        given: str | None = sys.stdin.readline().rstrip("\r\n")
        where = "standard input"
    elif file is not None:
        given, where = private_line(file, "the password", f"write one line into {file}"), str(file)
    else:
        given, where = os.environ.get(variable), variable
    return None if given is None else checked_password(given, where)


def checked_password(password: str, where: str) -> str:
    """A password that is long enough.

    Raises:
        ServerError: It is not.

    Example:
        >>> checked_password("short", "here")
        Traceback (most recent call last):
            ...
        nfbmr.errors.ServerError: the password is too short: here
          -> choose one of 12 characters or more
    """
    if len(password) < _SHORTEST_PASSWORD:
        raise ServerError(
            "the password is too short",
            where=where,
            fix=f"choose one of {_SHORTEST_PASSWORD} characters or more",
        )
    # What Basic authentication cannot carry from every client.
    if not (password.isascii() and password.isprintable()):
        raise ServerError(
            "the password has characters that not every program can send",
            where=where,
            fix="use letters, digits and signs of ASCII",
        )
    return password


def new_secret(path: Path) -> str:
    """Write a random secret to a new file that only its owner may read.

    Raises:
        FileExistsError: There is a file already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_hex(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    return secret


def private_line(path: Path, what: str, fix: str) -> str:
    """The one line of a file that only its owner may read.

    Args:
        path: Path of the file.
        what: It holds, for messages.
        fix: What to do where there is none.

    Raises:
        ServerError: Others may read it, or it is empty.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ServerError(f"{what} cannot be read ({reason.lower()})", where=path, fix=fix) from error
    # Secrets that an orchestrator mounts belong to root and are readable by a group: others are what matters.
    if stat.S_IMODE(mode) & stat.S_IRWXO:
        raise ServerError(f"everybody can read {what}", where=path, fix=f"chmod 600 {path}")
    if not text:
        raise ServerError(f"{what} is empty", where=path, fix=fix)
    return text

"""The token of a Ray cluster: where it is read, and where it may go. One rule for drivers and for jobs.

`ray.init()` of a new cluster writes ``~/.ray/auth_token``, as :func:`make_token` does, and from then on
``ray start --head`` asks for it.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from nfbmr.addresses import is_loopback
from nfbmr.errors import NfbmrError
from nfbmr.secret_files import new_secret


class TokenError(NfbmrError):
    """The token that is asked for cannot be had."""


def read_token() -> str | None:
    """The token, from where Ray itself looks for it.

    ``RAY_AUTH_TOKEN``; else the file that ``RAY_AUTH_TOKEN_PATH`` names; else ``~/.ray/auth_token``, if it is
    there. With ``RAY_AUTH_MODE=disabled`` none.

    Raises:
        TokenError: The file that is named, or with ``RAY_AUTH_MODE=token`` the usual one, cannot be read, or
            is empty.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if not named and mode != "token" and not file.exists():
        return None
    fix = "name the file that holds it: export RAY_AUTH_TOKEN_PATH=FILE"
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise TokenError(f"the cluster's token cannot be read ({reason})", where=file, fix=fix) from error
    if not token:
        raise TokenError("the file of the cluster's token is empty", where=file, fix=fix)
    return token


def make_token() -> None:
    """Write ``~/.ray/auth_token``, readable by its owner alone, unless there is a token somewhere."""
    if read_token() is not None:
        return
    file = Path.home() / ".ray" / "auth_token"
    try:
        new_secret(file)
    except FileExistsError:
        pass  # somebody else was quicker
    except OSError as error:
        raise TokenError(
            f"the token of a new cluster cannot be written ({error.strerror})",
            where=file,
            fix="name a file that holds one: export RAY_AUTH_TOKEN_PATH=FILE",
        ) from error


def use_tokens() -> None:
    """Show the token to clusters that are joined, as ``RAY_AUTH_MODE=token`` says.

    Ray reads that when it is imported, and then only where its own ``ray.init()`` changes it.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:
        from ray import _raylet

        config: Any = _raylet
        config.Config.initialize("")


def may_show(host: str, *, encrypted: bool) -> bool:
    """Whether a token may be sent to a host: over TLS, or where it never leaves this machine.

    Example:
        >>> may_show("127.0.0.1", encrypted=False), may_show("192.0.2.1", encrypted=False)
        (True, False)
    """
    return encrypted or is_loopback(host) or _is_this_machine(host)


def _is_this_machine(host: str) -> bool:
    """Whether every address of a name is one of this machine's: only those can be bound."""
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except OSError:
            return False
    return bool(addresses)

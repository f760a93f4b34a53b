"""The key that signs a server's sessions, and the names of its passwords."""

from __future__ import annotations

from pathlib import Path

from nfbmr.secret_files import new_secret, private_line

ADMIN = "admin"
"""Name of the user who may do everything."""
ADMIN_VARIABLE = "NFBMR_ADMIN_PASSWORD"
"""Environment variable with the administrator's password."""
USER_VARIABLE = "NFBMR_USER_PASSWORD"
"""Environment variable with a user's password."""


def secret_key(path: Path) -> str:
    """The key that signs sessions, made the first time.

    Args:
        path: Its file; mode 0600.

    Raises:
        ServerError: Others may read it, or it is empty.
    """
    try:
        return new_secret(path)
    except FileExistsError:
        return private_line(path, "the secret key", f"rm {path}; the server makes another one")

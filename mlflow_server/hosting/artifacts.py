"""Where a server keeps artifacts: a folder, or a place in an object store, worked on alike."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_server.hosting.errors import ServerError
from nfbmr.addresses import ObjectPath
from nfbmr.errors import MissingPackageError


def check_artifacts(place: Path) -> None:
    """See that artifacts can be kept there.

    Raises:
        ServerError: They cannot.
        MissingPackageError: What object stores need is not installed.
    """
    if isinstance(place, ObjectPath):
        import importlib.util

        if importlib.util.find_spec("boto3") is None:
            raise MissingPackageError("a package is not installed", where="boto3", fix="pip install boto3")
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ServerError(
            f"artifacts cannot be kept there ({reason})",
            where=place,
            fix="choose another folder: --artifacts",
        ) from error
    if not os.access(place, os.W_OK | os.X_OK):
        raise ServerError(
            "artifacts cannot be kept there (no permission)", where=place, fix="choose another: --artifacts"
        )

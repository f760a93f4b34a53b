"""Where a server keeps artifacts: a folder, or a place in an object store, worked on alike."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nfbmr.addresses import ObjectPath
from nfbmr.errors import ServerError, require_package
from nfbmr.features.files import File, Files

_UNFINISHED = ".artifact.uploading."
"""How MLflow's names of files begin that are still on their way in."""


class Artifacts(Files):
    """Artifacts of a server; names are relative to where they are kept, with slashes.

    Args:
        place: A folder or an :class:`~nfbmr.addresses.ObjectPath`.

    Raises:
        ServerError: They cannot be kept there.
        MissingPackageError: What object stores need is not installed.
    """

    def __init__(self, place: Path) -> None:
        if isinstance(place, ObjectPath):
            require_package("boto3")
            if endpoint := os.environ.get("MLFLOW_S3_ENDPOINT_URL"):  # MLflow's own name for it
                os.environ.setdefault("AWS_ENDPOINT_URL_S3", endpoint)
        else:
            _see_to_folder(place)
        super().__init__(place)

    def locate(self, uri: str) -> str | None:
        """The name of what MLflow calls `uri`; None where it is kept somewhere else.

        Example:
            >>> import tempfile
            >>> place = Path(tempfile.mkdtemp())
            >>> artifacts = Artifacts(place)
            >>> artifacts.locate("mlflow-artifacts:/1/abc/artifacts")
            '1/abc/artifacts'
            >>> artifacts.locate(f"file://{place}/abc"), artifacts.locate("s3://elsewhere/abc")
            ('abc', None)
        """
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            return unquote(parts.path).strip("/")
        if parts.scheme in ("", "file") and not isinstance(self.root, ObjectPath):
            path = Path(unquote(parts.path) if parts.scheme else uri)
            return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None
        if uri.startswith(f"{self.root}/"):
            return uri.removeprefix(f"{self.root}/").strip("/")
        return None

    def files(self, folder: str = "") -> dict[str, File]:
        """All files in a folder and below, by name; those still on their way in are left out."""
        files = super().files(_inside(folder))
        return {
            name: file for name, file in files.items() if not name.rpartition("/")[2].startswith(_UNFINISHED)
        }

    def send(self, path: Path, name: str) -> str:
        """Put a file there; the SHA-256 of its content."""
        return super().send(path, _inside(name))

    def discard_folder(self, folder: str) -> None:
        """Remove a folder and all in it; nothing where there is none."""
        if not folder:
            raise ValueError("all artifacts at once")
        super().discard_folder(_inside(folder))


def _inside(name: str) -> str:
    if ".." in name.split("/"):
        raise ServerError("not a name of artifacts", where=name, fix="it leads out of the folder")
    return name


def _see_to_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(place, os.W_OK | os.X_OK) else "no permission"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    if reason is not None:
        raise ServerError(
            f"artifacts cannot be kept there ({reason})",
            where=place,
            fix="choose another folder: --artifacts",
        )

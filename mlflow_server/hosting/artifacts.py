"""Where a server keeps artifacts: a folder, or a place in an object store, worked on alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nfbmr.addresses import ObjectPath
from nfbmr.errors import ServerError, require_package

BLOCK = 1 << 20
"""Bytes that are copied at a time."""
UNFINISHED = ".artifact.uploading."
"""How MLflow's names of files begin that are still on their way in."""


class Artifacts:
    """Artifacts of a server; names are relative to where they are kept, with slashes.

    Args:
        place: A folder or an :class:`~nfbmr.addresses.ObjectPath`.

    Raises:
        ServerError: They cannot be kept there.
        MissingPackageError: What object stores need is not installed.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        if isinstance(place, ObjectPath):
            _see_to_boto3()
            from nfbmr.features.object_files import file_system

            self._files, self._root = file_system(), place.key
        else:
            from pyarrow import fs

            self._files, self._root = fs.LocalFileSystem(), str(place)
            _see_to_folder(place)

    def check(self) -> None:
        """See that artifacts can be kept there.

        Raises:
            ServerError: The bucket is missing, or access is refused.
        """
        if isinstance(self.place, ObjectPath):
            from nfbmr.features.remote import ObjectStore

            ObjectStore(self.place)

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
        if parts.scheme in ("", "file") and not isinstance(self.place, ObjectPath):
            path = Path(unquote(parts.path) if parts.scheme else uri)
            return path.relative_to(self.place).as_posix() if path.is_relative_to(self.place) else None
        if uri.startswith(f"{self.place}/"):
            return uri.removeprefix(f"{self.place}/").strip("/")
        return None

    def files(self, folder: str = "") -> dict[str, int]:
        """Sizes of all files in a folder and below, by name; those still on their way in are left out."""
        from pyarrow.fs import FileSelector

        start = self._key(folder)
        selector = FileSelector(start, recursive=True, allow_not_found=True)
        with self._explained():
            return {
                info.path.removeprefix(self._root).strip("/"): info.size
                for info in self._files.get_file_info(selector)
                if info.is_file and not info.base_name.startswith(UNFINISHED)
            }

    def read(self, name: str) -> Iterator[bytes]:
        """A file's content.

        Raises:
            FileNotFoundError: There is none any more.
        """
        with self._explained(), self._files.open_input_stream(self._key(name)) as stream:
            while block := stream.read(BLOCK):
                yield block

    def write(self, name: str, source: Path) -> str:
        """Put a file there; the SHA-256 of its content."""
        digest = hashlib.sha256()
        with self._explained(), source.open("rb") as file:
            if not isinstance(self.place, ObjectPath):
                (self.place / name).parent.mkdir(parents=True, exist_ok=True)
            with self._files.open_output_stream(self._key(name)) as stream:
                while block := file.read(BLOCK):
                    digest.update(block)
                    stream.write(block)
        return digest.hexdigest()

    def remove(self, folder: str) -> None:
        """Remove a folder and all in it; nothing where there is none."""
        from pyarrow.fs import FileType

        if not folder:
            raise ValueError("all artifacts at once")
        with self._explained():
            if self._files.get_file_info(self._key(folder)).type != FileType.NotFound:
                self._files.delete_dir(self._key(folder))

    def _key(self, name: str) -> str:
        if ".." in name.split("/"):
            raise ServerError("not a name of artifacts", where=name, fix="it leads out of the folder")
        return f"{self._root}/{name}".rstrip("/")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ServerError(
                f"artifacts cannot be read or written ({reason})",
                where=str(self.place),
                fix="check space, permissions and, for an object store, AWS_ENDPOINT_URL and the credentials",
            ) from error


def _see_to_boto3() -> None:
    require_package("boto3")
    # MLflow's own variable for what everybody else calls AWS_ENDPOINT_URL.
    endpoint: Any = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if endpoint:
        os.environ.setdefault("AWS_ENDPOINT_URL_S3", endpoint)


def _see_to_folder(place: Path) -> None:
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
            "artifacts cannot be kept there (no permission)",
            where=place,
            fix="choose another folder: --artifacts",
        )

"""Files in a folder or an object store, worked on alike: pyarrow's file systems, with errors for people."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nfbmr.addresses import ObjectPath, endpoint, store_address
from nfbmr.errors import StoreError

BLOCK = 1 << 20
"""Bytes that are copied at a time."""

_ANSWERS = (
    (
        ("NO_SUCH_BUCKET",),
        "there is no such bucket",
        "create it, or name another one: s3://bucket/prefix",
    ),
    (
        ("ACCESS_DENIED", "ACCESS_KEY", "SIGNATURE", "TOKEN", "UNRECOGNIZED_CLIENT", "status 403"),
        "the object store refuses access",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that they may list, read "
        "and write there",
    ),
    (
        ("NETWORK_CONNECTION", "TIMEOUT", "resolve host", "Timeout"),
        "the object store cannot be reached",
        "check the network and AWS_ENDPOINT_URL (unset, Amazon's own server is asked)",
    ),
)


class File(NamedTuple):
    """What a listing says of a file: its bytes, and when it was written, in seconds since 1970."""

    size: int
    written: float


class Files:
    """Files by their names below a folder or an address, with slashes.

    Credentials and the object store's server come from the usual places: ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``.

    Args:
        root: The folder, or ``s3://bucket/prefix``.

    Raises:
        StoreError: ``AWS_ENDPOINT_URL`` is no address; and by every method: access is refused, the object
            store cannot be reached, or the disk fails.
    """

    def __init__(self, root: Path | str) -> None:
        from pyarrow import fs

        self.root = store_address(root)
        if isinstance(self.root, ObjectPath):
            self._base, start = _object_store(), self.root.key
        else:
            self._base, start = fs.LocalFileSystem(), str(self.root.absolute())
        self._files = fs.SubTreeFileSystem(start, self._base)

    @property
    def in_object_store(self) -> bool:
        """Whether they lie in an object store, which has neither locks nor names that change."""
        return isinstance(self.root, ObjectPath)

    def check(self) -> None:
        """See that an object store's bucket is there.

        Raises:
            StoreError: It is not.
        """
        from pyarrow.fs import FileType

        if isinstance(self.root, ObjectPath):
            with self._explained():
                if self._base.get_file_info(self.root.bucket).type == FileType.NotFound:
                    raise OSError("NO_SUCH_BUCKET")

    def files(self, folder: str = "") -> dict[str, File]:
        """Every file below a folder, by its name below that folder; none where there is no folder."""
        from pyarrow.fs import FileSelector

        with self._explained(folder):
            infos = self._files.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        return {
            info.path.removeprefix(f"{folder}/"): File(info.size, info.mtime_ns / 1e9)
            for info in infos
            if info.is_file
        }

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name now."""
        with self._explained(name):
            return bool(self._files.get_file_info(name).is_file)

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file's content.

        Raises:
            FileNotFoundError: There is none, or no more.
        """
        with self._explained(name), self._files.open_input_stream(name) as stream:
            while block := stream.read(BLOCK):
                yield block

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            return b"".join(self.blocks(name))
        except FileNotFoundError:
            return None

    def checksum(self, name: str) -> str:
        """SHA-256 of a file's bytes, in hexadecimal digits; of nothing where there is none."""
        digest = hashlib.sha256()
        with suppress(FileNotFoundError):
            for block in self.blocks(name):
                digest.update(block)
        return digest.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._written(name) as stream:
            stream.write(content)

    def send(self, path: Path, name: str) -> str:
        """Copy a file there. What a failure leaves behind is shorter.

        Returns:
            SHA-256 of its bytes, in hexadecimal digits.
        """
        with path.open("rb") as file, self._written(name) as stream:
            return _copied(iter(partial(file.read, BLOCK), b""), stream)

    def fetch(self, name: str, path: Path) -> str:
        """Copy a file from there.

        Returns:
            SHA-256 of its bytes, in hexadecimal digits.

        Raises:
            FileNotFoundError: There is none, or no more.
        """
        with path.open("wb") as file:
            return _copied(self.blocks(name), file)

    def discard(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self._explained(name):
            self._files.delete_file(name)

    def discard_folder(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""
        with suppress(FileNotFoundError), self._explained(folder):
            self._files.delete_dir(folder)

    @contextmanager
    def _written(self, name: str) -> Iterator[Any]:
        with self._explained(name):
            if not self.in_object_store:  # there, a folder would be an empty object
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            with self._files.open_output_stream(name) as stream:
                yield stream

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """What the library says, as an error for people; that there is no such file is left as it is."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            if not self.in_object_store:
                raise StoreError(
                    f"cannot be read or written ({os.strerror(error.errno) if error.errno else reason})",
                    where=self.root / name,
                    fix="check the disk and who may read and write there",
                ) from error
            for signs, what, fix in _ANSWERS:
                if any(sign in str(error) for sign in signs):
                    raise StoreError(what, where=self.root, fix=fix) from error
            raise StoreError(
                f"the object store failed ({reason})", where=self.root, fix="try again"
            ) from error


def _copied(blocks: Iterable[bytes], target: Any) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        target.write(block)
    return digest.hexdigest()


def _object_store() -> Any:
    """The object store that the environment names, as pyarrow works on it."""
    from pyarrow import fs

    server = endpoint()
    options: dict[str, Any] = {}
    if server is not None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StoreError(
                "AWS_ENDPOINT_URL is no address", where=server, fix="it should read http://127.0.0.1:9000"
            )
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
        # Servers other than Amazon's take any region; without one the library would go and look for it.
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            options["region"] = "us-east-1"
    return fs.S3FileSystem(
        connect_timeout=5,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=4),
        **options,
    )

"""Where a store may be: a folder, or an address such as ``s3://bucket/prefix``; and who is this machine."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from pathlib import Path, PosixPath

# One slash is enough: a path that was made of an address has lost the other.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(.*)", re.DOTALL)


class ObjectPath(PosixPath):
    """An address in an object store, which goes wherever a folder's path goes and keeps its two slashes.

    It names nothing on this machine; :func:`folder_here` gives the folder that stands for it.

    Example:
        >>> address = store_address("s3://parts/nfbmr")
        >>> str(address), address.bucket, address.absolute() == address
        ('s3://parts/nfbmr', 'parts', True)
    """

    def __str__(self) -> str:
        return re.sub(r"^s3:/+", "s3://", super().__str__())

    @property
    def key(self) -> str:
        """Bucket and prefix, as object stores name them."""
        return str(self).removeprefix("s3://")

    @property
    def bucket(self) -> str:
        """The bucket alone."""
        return self.key.partition("/")[0]

    def absolute(self) -> ObjectPath:
        """The same: an address means the same wherever it is read."""
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        """The same."""
        return self

    def is_absolute(self) -> bool:
        """Always."""
        return True


def store_address(value: Path | str) -> Path:
    """A path as it is, an address as an :class:`ObjectPath`.

    Raises:
        ValueError: The address is of a kind that is not supported, or names no bucket.

    Example:
        >>> store_address("runs/store").name, type(store_address(Path("s3://parts"))).__name__
        ('store', 'ObjectPath')
    """
    if isinstance(value, ObjectPath):
        return value
    match = _SCHEME.fullmatch("s3://" if os.fspath(value) == "s3:" else os.fspath(value))
    if match is None:
        return Path(value)
    if match[1] != "s3":
        raise ValueError(f"{match[1]}:// is not supported; give a folder, or s3://bucket/prefix")
    if not match[2].strip("/"):
        raise ValueError("names no bucket; s3://bucket/prefix is meant")
    return ObjectPath(f"s3:/{match[2].strip('/')}")


def folder_here(store: Path) -> Path:
    """The folder itself; for an address, the folder of this machine's cache that stands for it.

    One bucket's name may stand for two at two endpoints, so the endpoint is part of the folder's name.
    """
    address = store_address(store)
    if not isinstance(address, ObjectPath):
        return address
    told_apart = hashlib.sha256(f"{endpoint()} {address}".encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", address.key)[:60]
    return cache_folder() / f"{readable}-{told_apart}" / "store"


def cache_folder() -> Path:
    """What this machine keeps for itself: ``NFBMR_CACHE``, else ``~/.cache/nfbmr``."""
    cache = os.environ.get("NFBMR_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nfbmr"
    return Path(cache).expanduser()


def endpoint() -> str | None:
    """The address of the object store's server, where it is not Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def url_here(host: str, port: int) -> str:
    """Of a server that listens on an address, as seen from this machine.

    Example:
        >>> url_here("0.0.0.0", 8000), url_here("::1", 80)
        ('http://127.0.0.1:8000', 'http://[::1]:80')
    """
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own.

    Example:
        >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"

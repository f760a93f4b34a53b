"""Small results that this machine keeps, so that a later process need not work them out again.

Each lies in a file of its own under a digest of all that decides it, which also stands in the file and is
compared when it is read. A file that is damaged, of something else, or cannot be written is done without.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from nfbmr.addresses import cache_folder
from nfbmr.errors import OutputError
from nfbmr.paths import read_json, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")


def cached(
    kind: str,
    about: Mapping[str, Any],
    compute: Callable[[], T],
    *,
    dump: Callable[[T], Any],
    load: Callable[[Any], T],
) -> T:
    """A result, from the machine's cache where it is there.

    Args:
        kind: Folder of the cache, such as ``backbones``.
        about: All that decides the result, as JSON values.
        compute: Works it out; its errors are passed on, and nothing is kept.
        dump: The result as JSON values.
        load: The result of JSON values; a ValueError, TypeError or KeyError means that they are damaged.
    """
    path = _path(kind, about)
    try:
        entry = read_json(path)
        if entry["about"] == json.loads(_text(about)):
            return load(entry["value"])
    except (OutputError, ValueError, TypeError, KeyError):
        pass
    result = compute()
    keep(path, {"about": about, "value": dump(result)})
    return result


def keep(path: Path, value: Any) -> None:
    """Write a file of the cache whole or not at all; where it cannot be written it is done without."""
    try:
        write_json(path, value)
    except OutputError as error:
        log.debug("not kept: %s", error)


def forget(kind: str, about: Mapping[str, Any]) -> None:
    """Remove what :func:`cached` kept, if anything."""
    _path(kind, about).unlink(missing_ok=True)


def _path(kind: str, about: Mapping[str, Any]) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(_text(about).encode()).hexdigest()[:24]}.json"


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, allow_nan=False)


def versions(*packages: str) -> dict[str, str | None]:
    """Versions of installed packages by name; None for one that is not installed."""

    def version_of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: version_of(package) for package in packages}


@cache
def code_digest() -> str:
    """SHA-256 over the names and contents of this package's Python files, 16 hexadecimal digits."""
    root = Path(__file__).parent
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()[:16]


def file_state(path: Path) -> dict[str, Any]:
    """What tells whether a file has been written anew: its place, and :func:`nfbmr.data.digests.state_of`.

    Copies keep the time of the last change, and two checkpoints of one network are of one size.
    """
    state = path.stat()
    return {
        "path": str(path.resolve()),
        "number": state.st_ino,
        "bytes": state.st_size,
        "changed_ns": state.st_mtime_ns,
        "touched_ns": state.st_ctime_ns,
    }

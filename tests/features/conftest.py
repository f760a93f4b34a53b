from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from nfbmr.features.store import FeatureStore, open_store
from tests.features.s3 import client, end, start


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a running server that speaks S3."""
    process, address = start()
    yield address
    end(process)


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> fs.S3FileSystem:
    """The server is the one that the environment names; an empty bucket `parts` is there."""
    files = client(server, monkeypatch)
    if files.get_file_info("parts").type != fs.FileType.NotFound:
        files.delete_dir("parts")
    files.create_dir("parts")
    return files


@pytest.fixture
def machine(
    s3: fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], FeatureStore]:
    """Opens the shared store as a machine with a cache of its own."""

    def opened(name: str) -> FeatureStore:
        monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / name))
        return open_store("s3://parts/shared/store")

    return opened

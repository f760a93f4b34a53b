"""A server that speaks S3, on loopback, for tests of stores and their files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from nfbmr.features.store import FeatureStore, SpaceSpec

SPEC = SpaceSpec("features", {"tap": "blocks.1", "dtype": "float32"})
SERVER = Path(__file__).with_name("s3_server.py")
KEYS = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


def start() -> tuple[subprocess.Popen[str], str]:
    """The process, and the address at which it answers."""
    pytest.importorskip("moto")
    server = subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def end(server: subprocess.Popen[str]) -> None:
    """End it, and wait."""
    server.communicate()  # its input closes, and it ends


def client(address: str, monkeypatch: pytest.MonkeyPatch) -> fs.S3FileSystem:
    """A client of a server, which the environment names from now on."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    return fs.S3FileSystem(
        endpoint_override=address.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )


def stage_folder(store: FeatureStore, content: bytes | None) -> Path:
    folder = store.root / "stages" / "0a1b"
    if content is not None:
        folder.mkdir(parents=True)
        (folder / "stage.safetensors").write_bytes(content)
        (folder / "stage.json").write_text("{}")
    return folder

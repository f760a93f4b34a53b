"""Files in a folder and in an object store answer alike. Against a server that speaks S3."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nfbmr.errors import StoreError
from nfbmr.features.files import Files
from nfbmr.features.store import FeatureStore


@pytest.fixture(params=["folder", "object store"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """An empty place."""
    if request.param == "folder":
        return Files(tmp_path / "not" / "there yet")
    address = request.getfixturevalue("server")
    names = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": address}
    for name, value in {**names, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    from pyarrow import fs

    fs.S3FileSystem(
        endpoint_override=address.removeprefix("http://"), scheme="http", region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir("parts")  # fmt: skip
    return Files(f"s3://parts/{request.function.__name__}")


def test_what_is_written_is_there_until_it_is_discarded(files: Files, tmp_path: Path) -> None:
    files.check()
    content = bytes(range(256)) * 9000  # more than is copied at a time
    (tmp_path / "mine").write_bytes(content)
    assert files.send(tmp_path / "mine", "a/b/large") == hashlib.sha256(content).hexdigest()
    files.write("a/small", b"1")
    assert {name: file.size for name, file in files.files().items()} == {
        "a/b/large": len(content),
        "a/small": 1,
    }
    assert set(files.files("a/b")) == {"large"}
    assert (files.read("a/small"), files.checksum("a/b/large")) == (
        b"1",
        hashlib.sha256(content).hexdigest(),
    )
    assert files.fetch("a/b/large", tmp_path / "again") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "again").read_bytes() == content
    files.discard("a/small")
    assert set(files.files()) == {"a/b/large"}
    files.discard_folder("a")
    assert files.files() == {}


def test_what_is_not_there_is_no_mistake_unless_it_is_to_be_read(files: Files, tmp_path: Path) -> None:
    assert (files.files(), files.files("a"), files.read("a/b")) == ({}, {}, None)
    assert files.checksum("a/b") == hashlib.sha256().hexdigest()
    files.discard("a/b")
    files.discard_folder("a")
    with pytest.raises(FileNotFoundError):
        files.fetch("a/b", tmp_path / "c")


def test_a_stage_where_stores_had_it_before_is_found(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    content = {"flow.safetensors": b"weights", "flow.json": b"{}"}
    sums = "".join(f"{hashlib.sha256(each).hexdigest()}  {name}\n" for name, each in content.items())
    for name, each in {**content, "flow.sha256": sums.encode()}.items():
        files.write(f"flows/0a1b/{name}", each)
    store = FeatureStore(files.root)
    assert (store.stage_place("0a1b"), store.stage_place("ffff")) == ("flows/0a1b", "stages/ffff")
    store.fetch_stage(store.root / "flows" / "0a1b")
    assert (store.root / "flows" / "0a1b" / "flow.safetensors").read_bytes() == b"weights"
    assert FeatureStore(files.root).stage_place("0a1b") == "flows/0a1b"


def test_what_a_disk_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "in the way").mkdir()
    with pytest.raises(StoreError, match=f"cannot be read or written(.|\n)*{tmp_path / 'in the way'}"):
        Files(tmp_path).write("in the way", b"1")

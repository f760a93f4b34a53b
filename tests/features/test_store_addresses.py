"""Where a store lies: folders and addresses, those that are none, and a server that goes away."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import pytest
import torch

from nfbmr.addresses import ObjectPath, folder_here, store_address
from nfbmr.config import Config
from nfbmr.errors import OutputError, StoreError
from nfbmr.features.store import open_store
from nfbmr.resolve import dump_yaml, load_config
from tests.features.s3 import SPEC, client, end, start


def test_a_server_that_fails_in_the_middle_stops_nothing_and_gets_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process, address = start()
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "a"))
    client(address, monkeypatch).create_dir("parts")
    space = open_store("s3://parts/store").space(SPEC)
    end(process)
    with caplog.at_level(logging.WARNING):
        space.append(["x"], torch.ones(1, 4, 3, 3))
        space.append(["y"], torch.ones(1, 4, 3, 3))
    assert caplog.text.count("sent when the store is opened next") == 1  # not at every shard
    assert space.missing(["x", "y", "z"]) == ("z",)


def test_a_store_that_is_no_folder_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file, not a folder"):
        open_store(tmp_path / "file")
    with pytest.raises((StoreError, OutputError)):
        open_store(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="--store"):
        open_store(Path("/proc/nfbmr-store"))
    assert open_store(tmp_path / "new" / "store").root.is_dir()


def test_an_address_survives_the_configuration_and_its_file(tmp_path: Path) -> None:
    config = Config.model_validate({"store": "s3://parts/a b/store"})
    assert isinstance(config.store, ObjectPath)
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert "store: s3://parts/a b/store" in (tmp_path / "config.yaml").read_text()
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert Config.model_validate_json(config.model_dump_json()).store == config.store
    assert str(again.store.absolute()) == "s3://parts/a b/store"


@pytest.mark.parametrize("address", ["gs://parts", "s3://", "hdfs://host/x"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        store_address(address)
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        Config.model_validate({"store": address})


def test_stores_that_differ_have_caches_that_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))
    seen = set()
    for server, name in itertools.product(["http://a", "http://b"], ["x/y", "x-y", "x"]):
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        folder = folder_here(Path(f"s3://{name}"))
        assert folder.is_relative_to(tmp_path)
        seen.add(folder)
    assert len(seen) == 6
    assert folder_here(Path("some/folder")) == Path("some/folder")
    assert os.environ["NFBMR_CACHE"]

"""A store on an object store: what one machine has made, another finds. Against a server that speaks S3."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import fs

from nfbmr.cli.main import main
from nfbmr.config import Config, FeatureConfig
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.errors import StoreError
from nfbmr.features.extraction import extract
from nfbmr.features.maintenance import verify
from nfbmr.features.shards import shard_paths
from nfbmr.features.store import FeatureStore, open_store
from tests.features.s3 import SPEC, stage_folder

CONFIG = FeatureConfig(
    backbone="test_efficientnet", weights="random", taps=(1, "blocks.2"), size=64, compute="fp32", batch=4
)


def objects(s3: fs.S3FileSystem, ending: str = "") -> list[str]:
    found = s3.get_file_info(fs.FileSelector("parts", recursive=True))
    return sorted(info.path for info in found if info.is_file and info.path.endswith(ending))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    made = []
    for i in range(9):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
        made.append(picture_of(Sample(path, path.name)))
    return made


# ------------------------------------------------------------------------------------------------ sharing


def test_what_one_machine_extracts_another_finds(
    machine: Callable[[str], FeatureStore], pictures: list[Picture]
) -> None:
    here = extract(pictures, CONFIG, machine("a"))
    there = extract(pictures, CONFIG, machine("b"))
    assert (here.computed, there.computed, there.reused) == (9, 0, 9)
    for one, other in zip(here.tables, there.tables, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.gather(range(9)), other.gather(range(9)))


def test_machines_add_to_one_store(machine: Callable[[str], FeatureStore], pictures: list[Picture]) -> None:
    assert extract(pictures[:5], CONFIG, machine("a")).computed == 5
    assert extract(pictures, CONFIG, machine("b")).computed == 4
    assert extract(pictures, CONFIG, machine("a")).computed == 0


def test_arithmetic_left_open_is_what_the_store_has(
    machine: Callable[[str], FeatureStore], pictures: list[Picture]
) -> None:
    bf16 = CONFIG.model_copy(update={"compute": "bf16"})
    extract(pictures, bf16, machine("a"))
    there = extract(pictures, CONFIG.model_copy(update={"compute": "auto"}), machine("b"))
    assert (there.compute, there.computed) == ("bf16", 0)


def test_two_machines_that_write_at_once_keep_both_their_rows(machine: Callable[[str], FeatureStore]) -> None:
    a, b = machine("a").space(SPEC), machine("b").space(SPEC)
    a.append(["both", "a"], torch.ones(2, 4, 3, 3))
    b.append(["both", "b"], torch.ones(2, 4, 3, 3))
    assert a.missing(["a", "b", "both"]) == b.missing(["a", "b", "both"]) == ()


def test_what_is_here_needs_no_network(
    machine: Callable[[str], FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = machine("a").space(SPEC)
    space.append(["x"], torch.ones(1, 4, 3, 3))
    asked = []
    monkeypatch.setattr(type(space._mirror), "pull", lambda self, folder: asked.append(folder), raising=True)
    assert space.missing(["x"]) == ()
    assert asked == []


def test_a_store_copied_to_a_folder_is_that_store(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem, tmp_path: Path
) -> None:
    machine("a").space(SPEC).append(["x", "y"], torch.ones(2, 4, 3, 3))
    fs.copy_files("parts/shared/store", str(tmp_path / "copy"), source_filesystem=s3)
    assert FeatureStore(tmp_path / "copy").space(SPEC).missing(["x", "y", "z"]) == ("z",)


@pytest.mark.slow
def test_a_run_finds_features_and_stages_of_another_machine_and_gives_the_same(
    machine: Callable[[str], FeatureStore], tiny: Callable[..., Config]
) -> None:
    import nfbmr

    summaries = []
    for name in ("a", "b"):
        machine(name)
        summaries.append(nfbmr.train(tiny(store="s3://parts/shared/store", features__compute="fp32")))
    first, second = summaries
    assert (first["reused"]["flow"], second["reused"]["flow"]) == (False, True)
    assert second["metrics"] == first["metrics"]
    assert second["config"]["store"] == "s3://parts/shared/store"


def test_the_commands_look_after_a_store_on_an_object_store(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> tuple[int, Any]:
        code = main(["features", *words, "--store", "s3://parts/shared/store", "--json"])
        return code, json.loads(capsys.readouterr().out)

    a = machine("a")
    a.space(SPEC).append(["x", "y"], torch.ones(2, 4, 3, 3))
    a.publish_stage(stage_folder(a, b"weights"))
    _, listed = command("list")
    assert [(info["key"], info["rows"]) for info in listed["spaces"]] == [(SPEC.key, 2)]
    assert [(info["key"], info["state"]) for info in listed["stages"]] == [("0a1b", "trained")]
    assert command("verify")[1]["removed"] == []

    for ending in (".arrow", ".safetensors"):
        (name,) = objects(s3, ending)
        content = bytearray(s3.open_input_stream(name).read())
        content[-1] ^= 1
        with s3.open_output_stream(name) as stream:
            stream.write(bytes(content))
    assert command("verify")[0] == 2
    assert len(command("verify", "--repair")[1]["removed"]) == 2
    assert command("verify")[0] == 0
    assert objects(s3, ".arrow") == objects(s3, ".sha256") == []

    assert command("prune", "--keep", "0", "--dry-run")[0] == 0
    assert len(objects(s3, "space.json")) == 1
    assert command("prune", "--keep", "0")[0] == 0
    assert objects(s3) == ["parts/shared/store/store.json"]


# ------------------------------------------------------------------------------------------------- damage


def test_a_shard_that_arrives_damaged_is_done_anew(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    machine("a").space(SPEC).append(["x"], torch.ones(1, 4, 3, 3))
    (name,) = objects(s3, ".arrow")
    content = bytearray(s3.open_input_stream(name).read())
    content[-200] ^= 4
    with s3.open_output_stream(name) as stream:
        stream.write(bytes(content))
    space = machine("b").space(SPEC)
    assert space.missing(["x"]) == ("x",)
    assert "bytes that were written" in caplog.text
    assert not list(space.folder.glob("*.arrow"))
    space.append(["x"], torch.ones(1, 4, 3, 3))
    assert machine("c").space(SPEC).missing(["x"]) == ()


class CutOff(BaseHTTPRequestHandler):
    """Passes requests on, and breaks off in the middle of the first answers that carry a shard."""

    target = ""
    cuts = 0

    def do_GET(self) -> None:
        headers = {k: v for k, v in self.headers.items() if k.lower() != "accept-encoding"}
        request = urllib.request.Request(self.target + self.path, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                self.answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.headers, error.read())

    def answer(self, status: int, headers: object, body: bytes) -> None:
        cut = ".arrow" in self.path and len(body) > 2000 and type(self).cuts > 0
        self.send_response(status)
        for name, value in headers.items():  # type: ignore[attr-defined]
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut:
            type(self).cuts -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        request = urllib.request.Request(self.target + self.path, headers=dict(self.headers), method="HEAD")
        try:
            with urllib.request.urlopen(request) as answer:
                status, headers = answer.status, answer.headers
        except urllib.error.HTTPError as error:
            status, headers = error.code, error.headers
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("cuts", [1, 100])
def test_a_connection_that_breaks_off_leaves_nothing_half_written(
    cuts: int, machine: Callable[[str], FeatureStore], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("a").space(SPEC).append(["x"], torch.ones(1, 64, 9, 9))
    between = ThreadingHTTPServer(("127.0.0.1", 0), CutOff)
    CutOff.target, CutOff.cuts = server, cuts
    thread = threading.Thread(target=between.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.server_port}")
        space = machine("b").space(SPEC)
        missing = space.missing(["x"])
        assert missing == (() if cuts == 1 else ("x",))
        whole = [path.name for path in space.folder.glob("*.arrow")]
        damaged = verify(space.folder.parents[1], spaces=[SPEC.key]).damaged
        assert whole == [path.name for path in shard_paths(space.folder) if damaged == ()]
        assert len(whole) == (cuts == 1)
        assert not list(space.folder.glob("*.tmp")) + list(space.folder.glob(".*.tmp"))
    finally:
        between.shutdown()
        thread.join()
        between.server_close()


def test_an_upload_that_broke_off_is_sent_again(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem
) -> None:
    machine("a").space(SPEC).append(["x"], torch.ones(1, 4, 3, 3))
    (name,) = objects(s3, ".arrow")
    content = s3.open_input_stream(name).read()
    with s3.open_output_stream(name) as stream:
        stream.write(content[:100])
    assert machine("b").space(SPEC).missing(["x"]) == ("x",)
    machine("a").space(SPEC)
    assert machine("c").space(SPEC).missing(["x"]) == ()


# ------------------------------------------------------------------------------------------------- stages


def test_a_stage_that_one_machine_has_fitted_another_gets_whole(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    a = machine("a")
    a.publish_stage(stage_folder(a, b"weights"))
    b = machine("b")
    folder = stage_folder(b, None)
    b.fetch_stage(folder)
    assert (folder / "stage.safetensors").read_bytes() == b"weights"
    assert (folder / "stage.json").exists()

    (sums,) = objects(s3, "stage.sha256")
    told = s3.open_input_stream(sums).read().decode().splitlines()
    assert told[0] == f"{hashlib.sha256(b'weights').hexdigest()}  stage.safetensors"

    with s3.open_output_stream(next(n for n in objects(s3, ".safetensors"))) as stream:
        stream.write(b"weig")
    c = machine("c")
    c.fetch_stage(stage_folder(c, None))
    assert not (stage_folder(c, None) / "stage.json").exists()
    assert "bytes that were written" in caplog.text


def test_a_stage_that_could_not_be_sent_is_sent_when_it_is_next_used(
    machine: Callable[[str], FeatureStore],
) -> None:
    a = machine("a")
    a.fetch_stage(stage_folder(a, b"weights"))  # as a run does that finds it here
    b = machine("b")
    b.fetch_stage(stage_folder(b, None))
    assert (stage_folder(b, None) / "stage.json").exists()


# ------------------------------------------------------------------------------------------ what goes wrong


def test_a_bucket_that_does_not_exist(machine: Callable[[str], FeatureStore]) -> None:
    with pytest.raises(StoreError, match=r"no such bucket: s3://prats/store(.|\n)*create it"):
        open_store("s3://prats/store")


def test_keys_that_are_wrong_say_which_variables_to_look_at(
    machine: Callable[[str], FeatureStore], server: str
) -> None:
    def allow(requests: int) -> None:
        request = urllib.request.Request(
            f"{server}/moto-api/reset-auth",
            data=str(requests).encode(),
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        urllib.request.urlopen(request).close()

    allow(0)
    try:
        with pytest.raises(StoreError, match=r"refuses access(.|\n)*AWS_ACCESS_KEY_ID"):
            machine("a")
    finally:
        allow(10**9)


def test_a_server_that_is_not_there_says_what_to_look_at(
    machine: Callable[[str], FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"cannot be reached(.|\n)*AWS_ENDPOINT_URL"):
        machine("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(StoreError, match=r"no address(.|\n)*http://"):
        machine("a")

"""Claims on an object store: one machine computes what several want. Against a server that speaks S3."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nfbmr.addresses import ObjectPath
from nfbmr.errors import Interrupted, StoreError
from nfbmr.features.backends import StoreBackend
from nfbmr.features.claims import FOLDER, Claims
from nfbmr.features.store import SpaceSpec, open_store

SPEC = SpaceSpec("features", {"tap": "blocks.1", "dtype": "float32"})


@pytest.fixture
def objects(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> StoreBackend:
    """A store of the test's own."""
    names = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": server}
    for name, value in {**names, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    from pyarrow import fs

    fs.S3FileSystem(
        endpoint_override=server.removeprefix("http://"), scheme="http", region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir("parts")  # fmt: skip
    return StoreBackend(ObjectPath(f"s3://parts/{request.node.name.partition('[')[0]}"))


def together(count: int, work: Callable[[int], None]) -> None:
    """Do something in so many threads at once."""
    failed: list[BaseException] = []

    def run(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_one_at_a_time_has_it_and_nothing_is_left(objects: StoreBackend) -> None:
    inside, most, done = 0, 0, []

    def work(n: int) -> None:
        nonlocal inside, most
        with Claims(objects).held("flow"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1
            done.append(n)

    together(6, work)
    assert (most, sorted(done)) == (1, list(range(6)))
    assert objects.files(FOLDER) == {}


def test_different_things_are_computed_at_once(objects: StoreBackend) -> None:
    met = threading.Barrier(2, timeout=60)

    def work(n: int) -> None:
        with Claims(objects).held(f"flow-{n}"):
            met.wait()

    together(2, work)


@pytest.mark.parametrize("left", ["choosing", "000001"])
def test_whoever_died_with_it_is_passed_over(objects: StoreBackend, left: str) -> None:
    objects.write(f"{FOLDER}/flow.{left}.dead", b"1")
    with Claims(objects, beat=0.2, gone=2.0).held("flow"):
        assert not any(name.endswith("dead") for name in objects.files(FOLDER))


def test_whoever_works_for_long_keeps_it(objects: StoreBackend) -> None:
    claims = Claims(objects, beat=0.2, gone=2.0)
    begun = threading.Event()
    order = []

    def work(n: int) -> None:
        if n:
            begun.wait(60)
        with claims.held("flow"):
            begun.set()
            if not n:
                time.sleep(5.0)
            order.append(n)

    together(2, work)
    assert order == [0, 1]


def test_waiting_can_be_given_up(objects: StoreBackend) -> None:
    asked = threading.Event()

    def give_up() -> bool:
        asked.set()
        return True

    with (
        Claims(objects).held("flow"),
        pytest.raises(Interrupted, match="another machine"),
        Claims(objects).held("flow", give_up),
    ):
        raise AssertionError("two have it")
    assert asked.is_set()
    assert objects.files(FOLDER) == {}


def test_machines_that_fill_a_space_do_so_one_after_the_other(
    objects: StoreBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for name in ("a", "b", "c"):
        monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / name))
        stores.append(open_store(str(objects.root)))
    computed = []

    def work(n: int) -> None:
        space = stores[n].space(SPEC)
        with space.lock():
            missing = space.missing(["x", "y"])
            if missing:
                time.sleep(0.3)
                space.append(missing, torch.ones(len(missing), 4, 3, 3))
                computed.append(n)

    together(3, work)
    assert len(computed) == 1
    assert objects.files(FOLDER) == {}


def test_machines_that_want_a_stage_fit_it_once(
    objects: StoreBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for name in ("a", "b"):
        monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / name))
        stores.append(open_store(str(objects.root)))
    trained = []

    def work(n: int) -> None:
        folder = stores[n].root / "stages" / "0a1b"
        folder.mkdir(parents=True)
        with stores[n].claim_stage(folder) as perhaps_there:
            assert perhaps_there
            if not (folder / "stage.json").exists():
                (folder / "stage.safetensors").write_bytes(b"weights")
                (folder / "stage.json").write_text("{}")
                stores[n].publish_stage(folder)
                trained.append(n)

    together(2, work)
    assert len(trained) == 1
    assert all((store.root / "stages" / "0a1b" / "stage.json").exists() for store in stores)


def test_a_store_that_does_not_answer_stops_no_work(
    objects: StoreBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))
    store = open_store(str(objects.root))
    space = store.space(SPEC)
    asked = []

    def fails(_: StoreBackend, folder: str) -> dict[str, object]:
        asked.append(folder)
        raise StoreError("the object store cannot be reached", where=folder)

    monkeypatch.setattr(StoreBackend, "files", fails)
    with space.lock():
        space.append(["x"], torch.ones(1, 4, 3, 3))
    assert asked == [FOLDER]
    assert space.missing(["x"]) == ()

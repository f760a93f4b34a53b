"""The store: what is written comes back, whoever writes, dies or damages it."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.errors import CorruptShardError, Interrupted, OutputError, StoreError
from nfbmr.features.maintenance import list_spaces, prune, verify
from nfbmr.features.shards import open_shard, rows_per_shard, shard_paths, verify_shard, write_shard
from nfbmr.features.store import FeatureStore, SpaceSpec

SHAPE = (8, 3, 5)


def keys(count: int, start: int = 0) -> list[str]:
    return [f"{i:032x}" for i in range(start, start + count)]


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_come_back_in_the_stored_type_and_in_the_order_asked_for(
    store: FeatureStore, dtype: str
) -> None:
    space = store.space(SpaceSpec("features", {"dtype": dtype}))
    x = rows(150)
    space.append(keys(150), x)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1)).tolist()
    table = store.space(space.spec).table([keys(150)[i] for i in order])
    batch = table.gather(range(150))
    assert batch.dtype == getattr(torch, dtype)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, x[order].to(batch.dtype))


def layouts(x_NCHW: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same rows in every order of the axes in memory, and as views that skip, repeat or share memory."""
    for order in itertools.permutations(range(4)):
        back = [order.index(axis) for axis in range(4)]
        yield x_NCHW.permute(order).contiguous().permute(back)
    yield torch.cat([x_NCHW, x_NCHW], dim=2)[:, :, : x_NCHW.shape[2]]
    yield x_NCHW.repeat_interleave(2, dim=3)[..., ::2]
    yield x_NCHW[:1].expand(len(x_NCHW), -1, -1, -1)
    for stride in (0, 1, 10_000):  # an axis of one element may claim any stride, and counts as contiguous
        pairs = zip(x_NCHW.shape, x_NCHW.stride(), strict=True)
        strides = [stride if size == 1 else step for size, step in pairs]
        yield torch.as_strided(x_NCHW, x_NCHW.shape, strides)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("given_as", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stored_as", ["float16", "bfloat16", "float32"])
def test_rows_come_back_whatever_their_layout_in_memory_and_their_type(
    store: FeatureStore, channels: int, given_as: torch.dtype, stored_as: str
) -> None:
    spec = SpaceSpec("features", {"dtype": stored_as})
    for number, height, width in ((1, 3, 4), (3, 4, 3), (2, 3, 1), (2, 1, 1)):
        generator = torch.Generator().manual_seed(0)
        x_NCHW = torch.randn(number, channels, height, width, generator=generator).to(given_as)
        space = store.space(SpaceSpec("features", {**spec.fields, "size": [number, height, width]}))
        shape = (channels, height, width)
        for i, rows_NCHW in enumerate(layouts(x_NCHW)):
            space.append(keys(number, number * i), rows_NCHW)
            table = space.table(keys(number, number * i))
            assert table.shape == shape
            assert torch.equal(table.gather(range(number)), rows_NCHW.to(space.dtype))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_shard_has_its_rows_whatever_their_layout_in_memory(tmp_path: Path, channels: int) -> None:
    x_NCHW = torch.randn(3, channels, 4, 5, generator=torch.Generator().manual_seed(0)).half()
    for rows_NCHW in layouts(x_NCHW):
        rows_NHWC = rows_NCHW.permute(0, 2, 3, 1)
        shard = open_shard(write_shard(tmp_path, keys(3), rows_NHWC), torch.float16)
        assert torch.equal(shard.rows_NHWC, rows_NHWC)


def test_what_is_too_large_for_float16_becomes_its_largest_value(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(1), torch.full((1, *SHAPE), 1e9))
    assert space.table(keys(1)).gather([0]).unique().tolist() == [65504.0]


def test_rows_are_read_without_a_copy_and_writing_to_them_changes_no_file(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(4), rows(4))
    path = shard_paths(space.folder)[0]
    before = path.read_bytes()
    shard = open_shard(path, torch.float16)
    maps = Path("/proc/self/maps")
    if maps.exists():
        spans = [line.split()[0].split("-") for line in maps.read_text().splitlines() if path.name in line]
        at = shard.rows_NHWC.data_ptr()
        assert any(int(low, 16) <= at < int(high, 16) for low, high in spans)
    shard.rows_NHWC.zero_()
    assert path.read_bytes() == before
    assert verify_shard(path)


def test_shards_are_small_whatever_is_appended(store: FeatureStore) -> None:
    assert rows_per_shard(304 * 24 * 24 * 2) == 64
    assert rows_per_shard(64 << 20) == 1
    space = store.space(SpaceSpec("features"))
    space.append(keys(150), rows(150))
    assert len(shard_paths(space.folder)) == 3
    with space.writer() as writer:
        for start in range(0, 100, 10):
            writer.add(keys(10, 150 + start), rows(10))
    assert len(shard_paths(space.folder)) == 5


def test_many_shards_need_no_file_handles(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    for i in range(300):
        write_shard(space.folder, keys(1, i), rows(1).permute(0, 2, 3, 1).contiguous().half())
    before = len(list(Path("/proc/self/fd").iterdir()))
    table = space.table(keys(300))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(table.gather(range(300))) == 300


def test_a_key_depends_on_every_field_and_on_the_kind() -> None:
    fields = {"backbone": "a", "tap": "blocks.5", "size": 384, "mean": [0.5, 0.5, 0.5], "folded": True}
    specs = [SpaceSpec("features", fields), SpaceSpec("latents", fields), SpaceSpec("features", {})]
    for name in fields:
        specs.append(SpaceSpec("features", fields | {name: "other"}))
        specs.append(SpaceSpec("features", {k: v for k, v in fields.items() if k != name}))
    assert len({spec.key for spec in specs}) == len(specs)
    assert SpaceSpec("features", dict(reversed(fields.items()))).key == specs[0].key


def test_missing_names_each_key_once_and_sees_what_others_wrote(store: FeatureStore) -> None:
    ours, theirs = store.space(SpaceSpec("features")), store.space(SpaceSpec("features"))
    assert ours.missing([*keys(3), *keys(2)]) == tuple(keys(3))
    theirs.append(keys(2), rows(2))
    assert ours.missing(keys(3)) == (keys(3)[2],)
    with pytest.raises(StoreError, match="1 of 3 rows"):
        ours.table(keys(3))


def test_a_repeated_row_does_no_harm(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(3), rows(3))
    space.append(keys(3), rows(3))
    assert torch.equal(space.table(keys(3)).gather([0, 1, 2]), rows(3).half())


def test_rows_of_another_shape_are_refused(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(1), rows(1))
    with pytest.raises(StoreError, match="shape"):
        space.append(keys(1, 5), torch.zeros(1, 9, 3, 5))


# --- damage ---


@settings(max_examples=60)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_never_followed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    path = write_shard(folder, keys(2), rows(2).permute(0, 2, 3, 1).contiguous().half())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert not verify_shard(path)
    with suppress(CorruptShardError):  # or the damage is in the values alone
        assert open_shard(path, torch.float16).rows_NHWC.shape == (2, 3, 5, 8)


def test_a_truncated_shard_is_found_on_opening_and_mending_costs_only_its_rows(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(5), rows(5))
    space.append(keys(5, 5), rows(5))
    damaged = shard_paths(space.folder)[0]
    with damaged.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CorruptShardError, match=f"{damaged.name}(.|\n)*verify --repair"):
        store.space(space.spec).missing(keys(10))
    fresh = store.space(space.spec)
    name = damaged.relative_to(store.root).as_posix()
    assert verify(store.root, spaces=[space.spec.key], repair=True).damaged == (name,)
    assert verify(store.root, spaces=[space.spec.key]).damaged == ()
    assert fresh.missing(keys(10)) == tuple(keys(5))


def test_one_space_of_several_is_verified_alone(store: FeatureStore) -> None:
    first, second = (store.space(SpaceSpec("features", {"tap": tap})) for tap in "ab")
    for space in (first, second):
        space.append(keys(5), rows(5))
    damaged = shard_paths(second.folder)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    alone = verify(store.root, spaces=[first.spec.key[:10]])
    assert (alone.shards, alone.rows, alone.damaged) == (1, 5, ())
    every = verify(store.root)
    assert (every.shards, every.rows) == (2, 5)
    assert every.damaged == (damaged.relative_to(store.root).as_posix(),)
    with pytest.raises(StoreError, match="no such space"):
        verify(store.root, spaces=["0000"])


# --- full disks, killed processes, several of them ---


def test_a_full_disk_is_said_and_nothing_half_written_remains(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    space.append(keys(2), rows(2))
    before = sorted(space.folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="free some space"), space.writer() as writer:
            writer.add(keys(64, 10), rows(64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(space.folder.iterdir()) == before
    assert len(space.table(keys(2))) == 2


WRITER = """
import sys, torch
from nfbmr.features.store import FeatureStore, SpaceSpec
space = FeatureStore(sys.argv[1]).space(SpaceSpec("features"))
with space.lock():
    for i in range(100_000):
        space.append([f"{i:032x}"], torch.full((1, 8, 3, 5), float(i)))
"""


def test_a_killed_writer_leaves_whole_shards_and_frees_its_lock(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.root)])
    try:
        deadline = time.monotonic() + 60
        while len(shard_paths(space.folder)) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert verify(store.root, spaces=[space.spec.key]).damaged == ()
    there = len(shard_paths(space.folder))
    assert there >= 20
    with space.lock():
        assert space.missing(keys(there + 1)) == (keys(there + 1)[-1],)
    assert space.table(keys(there)).gather([7]).unique().tolist() == [7.0]


def test_waiting_for_another_builder_can_be_stopped(store: FeatureStore) -> None:
    ours, theirs = store.space(SpaceSpec("features")), store.space(SpaceSpec("features"))
    with theirs.lock(), pytest.raises(Interrupted), ours.lock(stop=lambda: True):
        pass
    with ours.lock():  # free again
        pass


def test_threads_may_write_and_read_one_space_at_once(store: FeatureStore) -> None:
    spec = SpaceSpec("features")

    def write(start: int) -> None:
        space = store.space(spec)
        for i in range(start, start + 20):
            space.append(keys(1, i), torch.full((1, *SHAPE), float(i)))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 20, 40)]
    for thread in threads:
        thread.start()
    reader = store.space(spec)
    while any(thread.is_alive() for thread in threads):
        reader.missing(keys(60))
    assert [y.unique().item() for y in reader.table(keys(60)).batches(1)] == list(range(60))


def test_rows_written_before_a_failure_are_kept(store: FeatureStore) -> None:
    space = store.space(SpaceSpec("features"))

    def interrupted() -> None:
        with space.writer() as writer:
            writer.add(keys(3), rows(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert space.missing(keys(4)) == (keys(4)[3],)


# --- listing and pruning ---


def test_pruning_removes_what_was_chosen_but_nothing_that_is_open(store: FeatureStore) -> None:
    specs = [SpaceSpec("features", {"tap": str(i)}) for i in range(3)]
    for i, spec in enumerate(specs):
        space = store.space(spec)
        space.append(keys(i + 1), rows(i + 1))
        space.close()
        os.utime(space.folder / "use.lock", (i, i))
    infos = list_spaces(store.root)
    assert [info.rows for info in infos] == [3, 2, 1]
    table = store.space(specs[0]).table(keys(1))
    os.utime(store.folder(specs[0]) / "use.lock", (0, 0))

    dry = prune(store.root, keep=1, dry_run=True)
    assert [info.key for info in dry.removed] == [specs[1].key]
    assert len(list_spaces(store.root)) == 3

    pruned = prune(store.root, older_than_days=1)
    assert {info.key for info in pruned.removed} == {specs[1].key, specs[2].key}
    assert [info.key for info in pruned.held] == [specs[0].key]
    assert len(table.gather([0])) == 1

    del table
    assert [info.key for info in prune(store.root, spaces=[specs[0].key[:10]]).removed] == [specs[0].key]
    assert list_spaces(store.root) == ()
    with pytest.raises(StoreError, match="no such space"):
        prune(store.root, spaces=["0000"])


def test_a_space_can_be_filled_again_after_pruning(store: FeatureStore) -> None:
    spec = SpaceSpec("features")
    store.space(spec).append(keys(1), rows(1))
    prune(store.root, keep=0)
    space = store.space(spec)
    assert space.missing(keys(1)) == tuple(keys(1))
    space.append(keys(1), rows(1))
    assert len(space.table(keys(1))) == 1


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        FeatureStore(tmp_path / "file").space(SpaceSpec("features"))


FROM_THREADS = """
import threading
import nfbmr

def allocate():
    import pyarrow
    pyarrow.array(list(range(100_000)))

for _ in range(20):
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
"""


def test_arrow_may_be_met_first_in_a_thread_that_ends():
    """A shard is written by a thread of its own; without our setting the next thread crashes the process."""
    completed = subprocess.run(
        [sys.executable, "-c", FROM_THREADS], check=False, capture_output=True, text=True
    )
    assert (completed.returncode, completed.stderr) == (0, "")

"""Two drivers, and nodes with a cache of their own each, share one store over S3 while nodes go and come.

Nothing is computed twice, and nothing is lost: every flow was trained by one trial, every row of features was
sent once, and all trials of both sweeps are whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.local import local_cluster as local
from nfbmr.features.shards import ShardName
from nfbmr.resolve import load_config
from tests.faults.sweeps import Sweep, assert_whole, cluster_of, raylet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SERVER = Path(__file__).resolve().parents[1] / "features" / "s3_server.py"
STORE = "s3://parts/store"
HIDDEN = (4, 8, 12)
TRIALS = 5


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket that keeps every version of what is written, and the environment that leads to it."""
    pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    server = subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    keys = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": address}
    for name, value in {**keys, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="parts")
    made.Versioning().enable()
    yield made
    server.communicate()  # its input closes, and it ends


def times_written(bucket: Any) -> Counter[str]:
    """How often each object was written, by its name in the store."""
    versions = bucket.object_versions.filter(Prefix="store/")
    return Counter(each.key.removeprefix("store/") for each in versions if each.size is not None)


def flows_by_width(sweeps: list[Sweep]) -> dict[int, list[bool]]:
    """By the flow's width, of which there is one flow each: whether each trial found it in the store."""
    found = defaultdict(list)
    for sweep in sweeps:
        for path in sweep.paths.root.glob("trials/*/fitted.json"):
            width = load_config(path.with_name("config.yaml")).flow.hidden
            found[width].append(json.loads(path.read_text())["reused"]["flow"])
    return dict(found)


def test_drivers_and_nodes_share_a_store_while_nodes_go_and_come(tmp_path, begin, bucket, monkeypatch):
    space = tmp_path / "widths.yaml"
    space.write_text(
        f"mapping.latent: {{int: [4, 64], log: true}}\nflow.hidden: {{choice: {list(HIDDEN)}}}\n"
    )
    starts = [word for width in HIDDEN for word in ("--start", f"flow.hidden={width}")]
    # One trial of each sweep at a time, so that both want the same flow at once.
    more: tuple[str, ...] = (
        "--space",
        str(space),
        "--trials",
        str(TRIALS),
        "--concurrent",
        "1",
        "--store",
        STORE,
    )
    more += ("--no-base-trial", *starts)
    folder = tmp_path / "cluster"
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache-0"))
    with cluster_of(1, folder) as cluster:
        monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache-1"))
        grown = local.add(1, 1, folder=folder, seconds=280)
        sweeps = [begin(cluster, name, *more, NFBMR_CACHE=str(tmp_path / name)) for name in ("one", "other")]
        for sweep in sweeps:
            sweep.until(lambda sweep=sweep: sweep.trials_begun() >= 2, seconds=900)
        raylet(grown, 1).kill()
        monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache-2"))
        local.add(1, 1, folder=folder, seconds=280)
        for sweep in sweeps:
            assert_whole(sweep, sweep.result(), trials=TRIALS)
    assert (tmp_path / "cache-2").exists()  # the new node was used

    flows = flows_by_width(sweeps)
    assert sorted(flows) == sorted(HIDDEN)
    for width, reused in flows.items():
        # None where the node went when the flow was stored and its trial not yet recorded.
        assert reused.count(False) <= 1, (width, reused)
    assert sum(len(reused) for reused in flows.values()) == 2 * TRIALS

    written = times_written(bucket)
    made = {name: times for name, times in written.items() if name.endswith((".arrow", "stage.json"))}
    assert set(made.values()) == {1}, made
    stages = Counter(stage_of(bucket, name) for name in made if name.endswith("stage.json"))
    assert stages["flow"] == len(HIDDEN)
    assert stages["mapping"] in (1, 2)  # of the chosen trials, which may have the same
    assert_no_row_twice(bucket, made)


def stage_of(bucket: Any, name: str) -> str:
    """The name of a stored stage."""
    about = json.loads(bucket.Object(f"store/{name}").get()["Body"].read())
    return str(about["identity"]["stage"])


def assert_no_row_twice(bucket: Any, made: Iterable[str]) -> None:
    """Every row of every space stands in one shard."""
    rows: dict[str, list[str]] = defaultdict(list)
    for name in made:
        if ShardName.is_one(name):
            shard = bucket.Object(f"store/{name}").get()["Body"].read()
            with pa.ipc.open_file(pa.BufferReader(shard)) as reader:
                rows[name.split("/")[1]] += reader.get_batch(0).column("key").to_pylist()
    assert rows
    assert all(len(keys) == len(set(keys)) for keys in rows.values())

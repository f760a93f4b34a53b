"""What clusters do to a sweep: nodes that die or come, drivers that are killed, neighbours.

Each is really done, on a private cluster, to a sweep in its own process. Afterwards the result is complete
and all three records agree: the folder, Optuna's journal, and MLflow.
"""

from __future__ import annotations

import signal

import pytest

from cluster.local import local_cluster as local
from nfbmr.paths import RunPaths
from tests.faults.sweeps import assert_whole, cluster_of, raylet
from tests.stored_stages import stored_stages
from tune.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_node_that_dies_costs_no_trial(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "node")
        sweep.until(lambda: sweep.trials_fitted() >= 1)
        raylet(cluster, 1).kill()
        assert_whole(sweep, sweep.result())


def test_a_node_that_comes_is_used(tmp_path, begin):
    with cluster_of(1, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "grows", "--trials", "14")
        sweep.until(lambda: sweep.trials_fitted() >= 1)
        grown = local.add(1, 1, folder=tmp_path / "cluster", seconds=280)

        def works_there() -> bool:
            return any("Trial" in child.name() for child in raylet(grown, 1).children())

        sweep.until(works_there)
        assert_whole(sweep, sweep.result(), trials=14)


def test_after_kill_9_of_the_driver_the_sweep_goes_on_where_it_was(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        sweep = begin(cluster, "driver")
        sweep.until(lambda: sweep.trials_fitted() >= 2 and sweep.trials_begun() > sweep.trials_fitted())
        sweep.process.send_signal(signal.SIGKILL)
        sweep.process.communicate()
        written_at = {path: path.stat().st_mtime_ns for path in sweep.paths.root.glob("trials/*/fitted.json")}
        again = begin(cluster, "driver", resume=True)
        assert_whole(again, again.result())
        assert all(path.stat().st_mtime_ns == written for path, written in written_at.items())


def test_two_sweeps_at_once_share_a_store_and_a_server(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        one, other = begin(cluster, "one"), begin(cluster, "other")
        for sweep in (one, other):
            assert_whole(sweep, sweep.result())
        # Both searched the same two widths of the flow, so there are two flows, whoever trained them.
        assert stored_stages(tmp_path / "store")["flow"] == 2


def test_trials_that_diverge_are_told_and_do_not_end_the_others(tmp_path, begin):
    with cluster_of(2, tmp_path / "cluster") as cluster:
        space = tmp_path / "diverging.yaml"
        space.write_text("train.mapping.lr: {choice: [1.0e-3, 1.0e+8]}\n")
        starts = ("--start", "train.mapping.lr=1e-3", "--start", "train.mapping.lr=1e8")
        sweep = begin(cluster, "diverges", "--space", str(space), "--trials", "2", *starts)
        summary = sweep.result()
        assert (summary["trials"]["finished"], summary["trials"]["failed"]) == (1, 1)
        assert verify(sweep.paths).agreed
        failed = RunPaths(sweep.paths.trial(1))
        assert not failed.fitted.exists()

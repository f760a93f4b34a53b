"""Histories of many runs at once: a database and a server tell the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlflow_server.destination import Destination
from mlflow_server.tracking import histories
from mlflow_server.tracking.histories import Histories
from nfbmr.records import Point

RUNS = histories.RUNS_AT_ONCE + 5


@pytest.fixture
def runs(uri: str) -> list[str]:
    """More runs than a server is asked for at once, with two points of a loss each; the last has none."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    experiment = client.create_experiment("nfbmr")
    made = [client.create_run(experiment).info.run_id for _ in range(RUNS)]
    for number, run in enumerate(made[:-1]):
        points = [Metric("flow/loss", number + step / 4, 1000 + step, step) for step in range(2)]
        client.log_batch(run, metrics=[*points, Metric("other", 1.0, 1, 0)])
    return made


def test_a_server_tells_of_many_runs_what_its_database_does(
    uri: str,
    runs: list[str],
    serve: Callable[[str, int], str],
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Histories(Destination(uri)).of("flow/loss", runs)
    assert told[runs[7]] == [Point(7.0, 0, 1000), Point(7.25, 1, 1001)]
    assert list(told) == runs
    assert told[runs[-1]] == []

    server = Destination(serve(uri, free_port))
    assert Histories(server).of("flow/loss", runs) == told

    # An answer that may have been cut short tells nothing, and the small one that follows is whole.
    monkeypatch.setattr(histories, "POINTS_AT_ONCE", 100)
    assert Histories(server).of("flow/loss", runs) == dict(list(told.items())[histories.RUNS_AT_ONCE :])

    monkeypatch.setattr(histories, "ENDPOINT", "/ajax-api/2.0/mlflow/metrics/not-there")
    assert Histories(server).of("flow/loss", runs) == {}

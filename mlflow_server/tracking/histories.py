"""Histories of a metric for many runs at once: MLflow's client asks for each run on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_server.destination import Destination
from nfbmr.records import Point

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

log = logging.getLogger(__name__)

ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
"""What MLflow's pages ask for their curves."""

RUNS_AT_ONCE = 100
"""As many as a server answers for."""

POINTS_AT_ONCE = 25_000
"""As many as a server answers with; the rest it leaves out without a word."""


class Histories:
    """Reads histories from a database, or from a server.

    Args:
        destination: Tracking server that is asked.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._store: SqlAlchemyStore | None = None
        self._answers = True

    def of(self, name: str, runs: Sequence[str]) -> dict[str, list[Point]]:
        """The points of a metric by run; runs are left out that have to be asked for on their own.

        Args:
            name: Name of the metric, as MLflow has it.
            runs: MLflow's names of the runs.
        """
        if not self._destination.remote:
            return _by_run(runs, self._from_database(name, runs))
        histories: dict[str, list[Point]] = {}
        for start in range(0, len(runs), RUNS_AT_ONCE):
            some = runs[start : start + RUNS_AT_ONCE]
            points = self._from_server(name, some) if self._answers else None
            if points is not None:
                histories |= _by_run(some, points)
        return histories

    def _from_database(self, name: str, runs: Sequence[str]) -> Iterator[tuple[str, Point]]:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if self._store is None:
            place = self._destination.artifact_location or "."
            self._store = SqlAlchemyStore(self._destination.uri, place)  # type: ignore[no-untyped-call]
        history = self._store.get_metric_history_bulk(runs, name, None)  # type: ignore[no-untyped-call]
        for item in history:
            yield item.run_id, Point(item.value, item.step, item.timestamp)

    def _from_server(self, name: str, runs: Sequence[str]) -> list[tuple[str, Point]] | None:
        """None where the answer is not whole, or where the server knows no such question."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        answer: Any = http_request(
            get_default_host_creds(self._destination.uri),  # type: ignore[no-untyped-call]
            ENDPOINT,
            "GET",
            params={"run_id": list(runs), "metric_key": name, "max_results": POINTS_AT_ONCE},
            raise_on_status=False,
        )
        if answer.status_code != 200:
            self._answers = False
            log.debug("%s answers %d: histories are asked for one by one", ENDPOINT, answer.status_code)
            return None
        points = answer.json()["metrics"]
        if len(points) >= POINTS_AT_ONCE:
            return None
        return [(each["run_id"], Point(each["value"], each["step"], each["timestamp"])) for each in points]


def _by_run(runs: Sequence[str], points: Iterable[tuple[str, Point]]) -> dict[str, list[Point]]:
    histories: dict[str, list[Point]] = {run: [] for run in runs}
    for run, point in points:
        histories[run].append(point)
    return histories

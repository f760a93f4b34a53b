"""How long the page of runs takes to open in Chromium, with the best run first.

The database is served by ``nfbmr server``, as people serve it. Timed is from following the link to the view
*Trials, the best on validation images first* until the rows of that column are there, in a tab of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.chromium import browser, lacking
from mlflow_server.destination import page

METRIC = "validation/image_auroc"
"""By which the view sorts."""

TIMES = 5
PATIENCE = 120.0
_SHOWN = """
    return [...document.querySelectorAll('.ag-cell')]
        .filter(e => e.getAttribute('col-id') === arguments[0])
        .map(e => [e.getBoundingClientRect().top, e.innerText.trim()])
        .sort((a, b) => a[0] - b[0]).map(e => e[1])
"""


def opened(uri: str, experiment: str, root: Path) -> dict[str, Any] | None:
    """Seconds that the page takes, the first time and in the median of later ones.

    Each run is given a value of its own first, so that there is something to sort.

    Args:
        uri: Of the database.
        experiment: Whose runs.
        root: A folder for what the server and the browser write.

    Returns:
        Among them ``cpu_s``, the processor time of server and browser together; on a busy machine it says
        more. None where there is no Chromium or no selenium (Debian: ``chromium`` and ``chromium-driver``).
    """
    if lacking():
        return None
    number, best = spread(uri, experiment)
    with served(uri, root) as (address, server), browser(1700, 900, patience=PATIENCE) as driver:
        link = page(address, number).replace("nfbmr-runs", "nfbmr-trials")
        processes = (server, driver.service.process.pid)
        seconds, used = [], []
        for _ in range(1 + TIMES):
            before = _processor_seconds(*processes)
            seconds.append(_open(driver, link, best))
            used.append(_processor_seconds(*processes) - before)
        asked = [_asked(address, number) for _ in range(TIMES)]
    return {
        "first_s": seconds[0],
        "again_s": median(seconds[1:]),
        "cpu_s": median(used[1:]),
        "search_s": median(asked),
    }


def spread(uri: str, experiment: str) -> tuple[str, float]:
    """Give the trials of an experiment, which the view shows, different values of the metric.

    Returns:
        MLflow's number of the experiment, and the best value.
    """
    engine = sa.create_engine(uri)
    named = sa.text("SELECT experiment_id FROM experiments WHERE name = :name")
    theirs = sa.text(
        "SELECT m.run_uuid FROM latest_metrics m JOIN runs r ON r.run_uuid = m.run_uuid "
        "JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'nfbmr.trial' "
        "WHERE r.experiment_id = :number AND m.key = :metric ORDER BY m.run_uuid"
    )
    change = sa.text("UPDATE latest_metrics SET value = :value WHERE run_uuid = :run AND key = :metric")
    with engine.begin() as connection:
        number = connection.execute(named, {"name": experiment}).scalar_one()
        runs = connection.execute(theirs, {"number": number, "metric": METRIC}).scalars().all()
        values = [
            {"run": run, "metric": METRIC, "value": 0.5 + i / (2 * len(runs))} for i, run in enumerate(runs)
        ]
        connection.execute(change, values)
    engine.dispose()
    return str(number), float(values[-1]["value"])


@contextmanager
def served(uri: str, root: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of ``nfbmr server`` on a database."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nfbmr", "server", "--json", "--port", "0", "--backend", uri,
             "--artifacts", str(root / "served"), "--start-timeout", "600"],
            cwd=root, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.rstrip() == "}":
                break
        try:
            yield str(json.loads(said)["address"]), process.pid
        finally:
            process.terminate()
            process.wait(60)


def _open(driver: Any, link: str, best: float) -> float:
    """Seconds until the best run's value stands on top, of the values in their order."""
    from selenium.common.exceptions import WebDriverException

    driver.switch_to.new_window("tab")
    began = time.perf_counter()
    driver.get(link)
    shown: list[str] = []
    while time.perf_counter() - began < PATIENCE:
        try:
            shown = driver.execute_script(_SHOWN, f"metrics.`{METRIC}`")
        except WebDriverException:
            continue  # the page is being drawn anew
        if shown and all(shown):
            seconds = time.perf_counter() - began
            values = [float(text.split("\n")[-1]) for text in shown]
            if values != sorted(values, reverse=True) or abs(values[0] - best) > 1e-3:
                raise RuntimeError(f"the best run is not the first one: {values[:5]}, and {best}")
            return seconds
        time.sleep(0.02)
    raise RuntimeError(f"the table of runs is not there after {PATIENCE:.0f} s: {driver.title}")


def _processor_seconds(*processes: int) -> float:
    """What processes and all below them have used so far."""
    seconds = 0.0
    for number in processes:
        top = psutil.Process(number)
        for each in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                used = each.cpu_times()
                seconds += used.user + used.system
    return seconds


def _asked(address: str, number: str) -> float:
    """Seconds that the server takes for the question that the page asks."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    began = time.perf_counter()
    client.search_runs(
        [number], "tags.`nfbmr.trial` != ''", max_results=100, order_by=[f"metrics.`{METRIC}` DESC"]
    )
    return time.perf_counter() - began

"""A server on PostgreSQL and S3: killed in mid-upload it loses nothing, and of many writers one wins."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from mlflow_server.destination import Destination
from mlflow_server.registry.history import begin
from mlflow_server.registry.promotion import alias_state, promote
from mlflow_server.registry.registry import Registry
from mlflow_server.tracking.journal_uploader import JournalUploader
from mlflow_server.tracking.remote_run import RetryLater
from nfbmr.errors import ConflictError
from nfbmr.tracking import FolderTracker

RUNS, FILES, EPOCHS = 4, 3, 20
BYTES = 6_000_000
BUCKET = "parts"
WRITERS = 8


def recorded(folder: Path, address: str, run_id: str) -> dict[str, str]:
    """A run's record, whole, of which nothing is sent; digests of its files by name."""
    tracker = FolderTracker(
        folder / "tracking", run_id=run_id, system_metrics_every=None,
        destination=Destination.resolve(address).as_fields(),
    )  # fmt: skip
    digests = {}
    for epoch in range(EPOCHS):
        tracker.metrics({"flow/loss": 1 / (epoch + 1)}, step=epoch)
    for n in range(FILES):
        file = folder / f"maps-{n}.bin"
        file.write_bytes(os.urandom(BYTES))
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        tracker.artifact(file)
    tracker.finish()
    return digests


def keep_sending(folder: Path, address: str, ended: list[Path], deadline: float) -> None:
    """As a run's uploader does: again and again, until all is there."""
    while time.monotonic() < deadline:
        try:
            JournalUploader(folder, Destination.resolve(address)).ship()
        except RetryLater:
            time.sleep(0.1)
            continue
        ended.append(folder)
        return


def objects(endpoint: str) -> list[str]:
    """Keys that the bucket has, half-sent ones not among them: S3 shows an object once it is whole."""
    listing = requests.get(f"{endpoint}/{BUCKET}?list-type=2", timeout=60).text
    return [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]


def at_once(number: int, call: Callable[[int], object]) -> list[object]:
    """What calls in so many threads return, or raise; all begin together."""
    barrier = threading.Barrier(number)
    answers: list[object] = []

    def one(n: int) -> None:
        barrier.wait(60)
        try:
            answers.append(call(n))
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.slow
def test_of_many_writers_of_a_registered_model_nobody_fails_and_one_wins(
    tmp_path: Path, start: Any, postgres: Any, s3: dict[str, str]
) -> None:
    backend, env = postgres.database()
    words = ("--backend", backend, "--artifacts", f"s3://{BUCKET}/raced")
    destination = Destination.resolve(start(tmp_path / "server", *words, env={**env, **s3}).address)
    registries = [Registry(destination) for _ in range(WRITERS)]
    client = registries[0].client
    experiment = client.create_experiment("raced")
    begin(registries[0], "parts")
    models = [client.create_logged_model(experiment, name="model") for _ in range(WRITERS)]

    # A version each
    made = at_once(WRITERS, lambda n: registries[n].add("parts", models[n], {}, "")[0].number)
    assert sorted(map(str, made), key=int) == [str(n + 1) for n in range(WRITERS)]
    # The same model by all of them: one version, which all are told of
    another = client.create_logged_model(experiment, name="model")
    said_new: list[bool] = []

    def add(n: int) -> str:
        version, is_new = registries[n].add("parts", another, {}, "")
        said_new.append(is_new)
        return version.number

    same = at_once(WRITERS, add)
    assert said_new.count(True) == 1
    there = [v.number for v in registries[0].versions("parts") if v.model_id == another.model_id]
    assert same == there * WRITERS
    # An alias that nobody has set yet, by all of them
    assert at_once(WRITERS, lambda n: registries[n].set_alias("parts", "line-1", made[n])) == [None] * WRITERS
    assert registries[0].model("parts").aliases["line-1"] in made
    # A promotion: one wins, the others are told
    seen = [alias_state(registry, "parts", "champion") for registry in registries]
    versions = [registry.version("parts", str(n + 1)) for n, registry in enumerate(registries)]
    answers = at_once(WRITERS, lambda n: promote(seen[n], versions[n], ()).entry.after)
    won = [answer for answer in answers if isinstance(answer, str)]
    assert len(won) == 1
    assert all(isinstance(answer, ConflictError) for answer in answers if answer not in won)
    assert registries[0].model("parts").aliases["champion"] == won[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_killed_in_mid_upload_loses_nothing(
    tmp_path: Path, start: Any, postgres: Any, s3: dict[str, str], free_ports: Callable[[int], list[int]]
) -> None:
    backend, env = postgres.database()
    (port,) = free_ports(1)
    words = ("--backend", backend, "--artifacts", f"s3://{BUCKET}/restarted", "--port", str(port))

    def serve(number: int) -> Any:
        return start(tmp_path / f"server-{number}", *words, env={**env, **s3})

    server = serve(0)
    folders = [tmp_path / f"run-{n}" for n in range(RUNS)]
    digests = {folder.name: recorded(folder, server.address, folder.name) for folder in folders}
    ended: list[Path] = []
    deadline = time.monotonic() + 600
    senders = [
        threading.Thread(target=keep_sending, args=(folder / "tracking", server.address, ended, deadline))
        for folder in folders
    ]
    for sender in senders:
        sender.start()
    killed_at = []
    for number, (name, least) in enumerate([("SIGKILL", 1), ("SIGTERM", 4), ("SIGKILL", 8)], 1):
        while len(objects(s3["AWS_ENDPOINT_URL"])) < least:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.end(getattr(signal, name))
        killed_at.append(len(objects(s3["AWS_ENDPOINT_URL"])))
        server = serve(number)
    for sender in senders:
        sender.join()
    assert max(killed_at) < RUNS * FILES  # each time in the middle
    assert sorted(ended) == sorted(folder / "tracking" for folder in folders)

    from mlflow import MlflowClient

    client = MlflowClient(server.address)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    stored_runs = client.search_runs(experiments)
    assert sorted(run.data.tags["nfbmr.run_id"] for run in stored_runs) == sorted(
        digests
    )  # each of them once
    for run in stored_runs:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "flow/loss")
        assert sorted(point.step for point in history) == list(range(EPOCHS))
        wanted = digests[run.data.tags["nfbmr.run_id"]]
        back = tmp_path / "back" / run.info.run_id
        back.mkdir(parents=True)
        place = Path(client.download_artifacts(run.info.run_id, "", str(back)))
        got = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in place.rglob("maps-*.bin")}
        assert got == wanted
    keys = [key for key in objects(s3["AWS_ENDPOINT_URL"]) if "maps-" in key]
    assert len(keys) == len(set(keys)) == RUNS * FILES
    engine = sa.create_engine(postgres.full(backend).replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        points = connection.execute(sa.text("SELECT count(*) FROM metrics WHERE key = 'flow/loss'")).scalar()
    engine.dispose()
    assert points == RUNS * EPOCHS

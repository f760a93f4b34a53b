"""Finished runs, made once, and registries that hold them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlflow_server.destination import Destination
from mlflow_server.registry.registry import Registry
from nfbmr.paths import RunPaths
from tests.tracking.models.serving import Served, move, servers


@dataclass(frozen=True)
class Runs:
    """Folders of finished runs on the synthetic set.

    Attributes:
        first: With seed 0.
        second: With seed 1, on the same split.
        elsewhere: On the same images, split otherwise.
        data: The images of the category.
    """

    first: Path
    second: Path
    elsewhere: Path
    data: Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., Any], textures: Path) -> Runs:
    """Trained once; read only, but for the notes of what was sent of them."""
    import nfbmr

    root = tmp_path_factory.mktemp("models")

    def trained(**settings: Any) -> Path:
        return Path(nfbmr.train(small(root, **settings))["run_dir"])

    (data,) = (folder for folder in textures.iterdir() if folder.is_dir())
    return Runs(trained(), trained(seed=1), trained(data__seed=3), data)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, runs: Runs) -> Path:
    """The first run's model, as MLflow loads it; read only."""
    from mlflow_server.packaging.packing import pack

    folder = tmp_path_factory.mktemp("packed") / "model"
    pack(runs.first, folder)
    return folder


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, runs: Runs) -> Path:
    """A database with the three runs as versions 1, 2 and 3 of the model ``parts``; to be copied."""
    from mlflow_server.registry.registering import register

    database = tmp_path_factory.mktemp("stocked") / "mlflow.db"
    shutil.copyfile(empty_database, database)
    for run in (runs.first, runs.second, runs.elsewhere):
        register(str(run), "parts", uri=f"sqlite:///{database}")
    return database


@pytest.fixture
def stock(stocked: Path, tmp_path: Path) -> str:
    """The address of a registry of one's own with ``parts`` 1, 2 and 3 in it."""
    with sqlite3.connect(stocked) as whole, sqlite3.connect(tmp_path / "stock.db") as copy:
        whole.backup(copy)
    return f"sqlite:///{tmp_path / 'stock.db'}"


@pytest.fixture
def registry(stock: str) -> Registry:
    """The same, opened."""
    return Registry(Destination.resolve(stock))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts ``nfbmr serve`` with the words it is given, waits until it answers, and ends it."""
    yield from servers(lambda: tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def shelf(stocked: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a registry with ``parts`` 1, 2 and 3, whose champion is 1."""
    path = tmp_path_factory.mktemp("shelf") / "mlflow.db"
    with sqlite3.connect(stocked) as whole, sqlite3.connect(path) as copy:
        whole.backup(copy)
    move(f"sqlite:///{path}", "1")
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def rows(runs: Any) -> list[dict[str, Any]]:
    """What the first run's evaluation said of its test images."""
    return [row for row in pq.read_table(RunPaths(runs.first).scores).to_pylist() if row["side"] == "test"]


@pytest.fixture(scope="module")
def images(rows: list[dict[str, Any]]) -> list[bytes]:
    return [Path(row["path"].decode()).read_bytes() for row in rows]

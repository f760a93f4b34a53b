"""What several suites share: a small data set, and a configuration that trains in seconds."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NFBMR_CACHE", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "nfbmr"))

MTD = Path(__file__).resolve().parents[2] / "shared" / "data" / "mtd"


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """What a command sets up for its log ends with its test."""
    root = logging.getLogger()
    packages = [logging.getLogger(name) for name in ("nfbmr", "tune", "cluster", "mlflow_server")]
    handlers, levels = list(root.handlers), [logger.level for logger in (root, *packages)]
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    for logger, level in zip((root, *packages), levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def mtd() -> Path:
    """The real Magnetic Tile images."""
    if not MTD.exists():
        pytest.skip("the Magnetic Tile images are not beside the checkout")
    return MTD


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class of the synthetic set, in MVTec layout; read only."""
    from nfbmr.data.synthesize import CLASSES, synthesize

    out = tmp_path_factory.mktemp("data") / "textures"
    return synthesize(out, classes=CLASSES[:1], train=14, test_good=6, test_defective=6, size=96, seed=1)


@pytest.fixture(scope="session")
def small(textures: Path) -> Callable[..., Any]:
    """Makes a configuration below a folder that trains in seconds; keywords are keys, ``__`` for dots."""
    from nfbmr.api import configure

    def make(root: Path, **settings: Any) -> Any:
        values = {
            "data.path": str(textures),
            "output": str(root / "runs"),
            "store": str(root / "store"),
            "features.size": 64,
            "features.scales": [1.0],
            "features.taps": ["blocks.2"],
            "features.detail.taps": [],
            "flow.blocks": 2,
            "flow.hidden": 8,
            "flow.kernels": [3],
            "mapping.latent": 8,
            "mapping.residual_blocks": 1,
            "train.flow.epochs": 3,
            "train.detail.steps": 20,
            "train.mapping.epochs": 2,
            "train.precision": "fp32",
            "evaluation.bootstrap": 50,
            "evaluation.heatmaps": 2,
            "tracking.kind": "folder",
        }
        return configure(settings=values | {key.replace("__", "."): v for key, v in settings.items()})

    return make


@pytest.fixture
def tiny(tmp_path: Path, small: Callable[..., Any]) -> Callable[..., Any]:
    """The same in the test's own folder."""
    return partial(small, tmp_path)


@pytest.fixture(scope="session")
def png_claiming() -> Callable[[int, int], bytes]:
    """Makes a few bytes that claim to be an image of any size."""

    def make(width: int, height: int) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        body = chunk(b"IDAT", zlib.compress(b"\0" * 64))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body

    return make


@pytest.fixture(scope="session")
def peers() -> Iterator[Any]:
    """Two processes in a gloo group: calls a function in both, with their workers (:mod:`tests.peers`)."""
    spec = importlib.util.spec_from_file_location("tests.peers", Path(__file__).with_name("peers.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["tests.peers"] = module
    spec.loader.exec_module(module)
    two = module.Peers(2)
    yield two
    two.end()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making one takes seconds, copying it does not."""
    from mlflow_server.client import connect  # which lets MLflow report nothing
    from mlflow_server.destination import Destination

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(Destination(f"sqlite:///{path}")).search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    """The address of a store of one's own."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"

"""Each file of a data set is opened, read and hashed once a run and once a sweep, whatever needs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfbmr.resolve import dump_yaml

_COUNTING = """
import json, os, sys
from collections import Counter

root, opened = sys.argv[1], Counter()

def count(event, given):
    if event == "open" and isinstance(given[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(given[0]))
        if path.startswith(root) and os.path.isfile(path):
            opened[os.path.relpath(path, root)] += 1

sys.addaudithook(count)
from nfbmr.cli.main import main
assert main(sys.argv[2:]) == 0
print(json.dumps(opened))
"""


@pytest.fixture
def images(tmp_path: Path, textures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set, and a cache that knows nothing of it."""
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "images"
    shutil.copytree(textures, copy)
    time.sleep(2.1)  # what changed a moment ago might change once more, and is not kept
    return copy


@pytest.fixture
def config(tmp_path: Path, images: Path, small: Callable[..., Any]) -> Path:
    """Two looks of two sizes, views, synthetic defects, heat maps: everything that decodes an image again."""
    settings = {
        "data__path": str(images),
        "features__views": ["flip-h"],
        "features__detail__taps": ["blocks.1"],
        "features__detail__size": 96,
        "train__flow__epochs": 1,
        "train__mapping__epochs": 1,
    }
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(small(tmp_path, **settings)), encoding="utf-8")
    return file


def _opened(images: Path, *command: str) -> Counter[str]:
    """How often a command opens each file of the data set, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", _COUNTING, str(images), *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return Counter(json.loads(ended.stdout.splitlines()[-1]))


def _hashed(cache: Path) -> Counter[str]:
    """How often each file was hashed: a line each."""
    lines = (line for file in cache.glob("digests-*/*") for line in file.read_text().splitlines())
    return Counter(f"{json.loads(line)[1][0]}" for line in lines)


def test_a_run_opens_each_file_once(tmp_path: Path, images: Path, config: Path) -> None:
    opened = _opened(images, "train", "--config", str(config))
    files = {str(path.relative_to(images)) for path in images.rglob("*.png")}
    assert opened == dict.fromkeys(files, 1)
    pictures = {path.stat().st_ino for path in images.rglob("*.png") if "ground_truth" not in path.parts}
    assert _hashed(tmp_path / "cache") == dict.fromkeys(map(str, pictures), 1)
    again = _opened(images, "train", "--config", str(config))
    assert not [name for name in again if name.startswith("train/")]
    assert set(again.values()) == {1}


def test_a_sweep_opens_each_file_once(tmp_path: Path, images: Path, config: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "mapping.latent: {choice: [4, 8]}\nfeatures.size: {choice: [48, 64]}\n", encoding="utf-8"
    )
    opened = _opened(
        images, "sweep", "--config", str(config), "--space", str(space), "--trials", "3", "--local"
    )
    files = {str(path.relative_to(images)) for path in images.rglob("*.png")}
    assert opened == dict.fromkeys(files, 1)

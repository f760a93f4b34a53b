"""Kept small pictures are the picture's own, whoever else is at work."""

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.data.thumbnails import thumbnail


@pytest.fixture
def busy_collector() -> Iterator[None]:
    """A garbage collector that runs often and lets other threads go on meanwhile, as callbacks of it do."""
    before = gc.get_threshold()

    def rest(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(rest)
    gc.set_threshold(5)
    yield
    gc.callbacks.remove(rest)
    gc.set_threshold(*before)


def test_many_threads_read_kept_pictures_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy_collector: None
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    pixels_HW = np.random.default_rng(0).integers(0, 256, (48, 96)).astype(np.uint8)
    Image.fromarray(pixels_HW).save(tmp_path / "a.png")
    thumbnail(tmp_path / "a.png")
    with ThreadPoolExecutor(4) as pool:
        for small_HW, _ in pool.map(thumbnail, [tmp_path / "a.png"] * 1500):
            np.testing.assert_array_equal(small_HW, pixels_HW)


@pytest.mark.parametrize("kept_bytes", [0, 20, 400, -20])
def test_a_kept_picture_that_was_cut_short_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    pixels_HW = np.random.default_rng(0).integers(0, 256, (300, 100)).astype(np.uint8)
    Image.fromarray(pixels_HW).save(tmp_path / "a.png")
    whole_HW, digest = thumbnail(tmp_path / "a.png")
    (kept,) = tmp_path.glob("cache/*/*/*.png")
    kept.write_bytes(kept.read_bytes()[:kept_bytes])
    again_HW, same = thumbnail(tmp_path / "a.png")
    np.testing.assert_array_equal(again_HW, whole_HW)
    assert same == digest

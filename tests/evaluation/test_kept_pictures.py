"""A picture is drawn once: the same data give the copy, other data another picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfbmr.evaluation.heatmaps import Shown
from nfbmr.evaluation.kept_pictures import drawn_once

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
SHOWN = Shown("a.png", "crack", 0.25, PIXELS, np.eye(2, dtype=np.float32))


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Draws a picture, once or again; what it holds is how often something was drawn so far."""
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    times: list[Any] = []

    def counted(data: Any, path: Path, **options: Any) -> Path:
        times.append((data, options))
        path.write_bytes(b"%d" % len(times))
        return path

    def drawn(data: Any, **options: Any) -> bytes:
        path = tmp_path / "picture.png"
        path.unlink(missing_ok=True)
        assert drawn_once(counted, path, data, **options) == path
        return path.read_bytes()

    return drawn


def test_the_same_is_drawn_once(draw: Callable[..., bytes]) -> None:
    assert draw([SHOWN], vmin=math.nan, title="Best") == b"1"
    again = replace(SHOWN, pixels=PIXELS.copy())
    assert draw([again], vmin=math.nan, title="Best") == b"1"


@pytest.mark.parametrize(
    "other",
    [
        [replace(SHOWN, score=math.nextafter(0.25, 1))],
        [replace(SHOWN, name="b.png")],
        [replace(SHOWN, mask=np.zeros((4, 4), dtype=np.bool_))],
        [replace(SHOWN, pixels=PIXELS.reshape(2, 8, 3))],
        [replace(SHOWN, map_HW=-SHOWN.map_HW)],
        [SHOWN, SHOWN],
        SHOWN,
        [],
    ],
)
def test_whatever_differs_is_drawn(other: Any, draw: Callable[..., bytes]) -> None:
    assert draw([SHOWN]) == b"1"
    assert draw(other) == b"2"
    assert draw([SHOWN], title="Best") == b"3"
    assert draw([SHOWN]) == b"1"


def test_a_damaged_one_is_drawn_anew(draw: Callable[..., bytes], tmp_path: Path) -> None:
    assert draw([SHOWN]) == b"1"
    (kept,) = (path for path in (tmp_path / "cache").rglob("*.png"))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert draw([SHOWN]) == b"2"
    assert draw([SHOWN]) == b"2"


def test_letters_that_need_other_fonts_are_drawn_each_time(draw: Callable[..., bytes]) -> None:
    """Which font has them may change between two runs."""
    assert [draw([replace(SHOWN, defect="Riß")]) for _ in range(2)] == [b"1", b"2"]

"""Whether images have a direction: threads and grain do, parts that lie at any angle do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.config import Config
from nfbmr.data.direction import ONE_WAY, coherence
from nfbmr.data.samples import Sample, Split
from nfbmr.prepare import with_sizes

Draw = Callable[[np.random.Generator], Image.Image]


def stripes(rng: np.random.Generator) -> Image.Image:
    rows = rng.integers(0, 256, (96, 1), dtype=np.uint8)
    return Image.fromarray(np.repeat(rows, 96, axis=1))


def grains(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (96, 96), dtype=np.uint8))


def bar_at_any_angle(rng: np.random.Generator) -> Image.Image:
    bar = np.full((96, 96), 40, np.uint8)
    bar[40:56, 10:86] = 200
    angle = float(rng.uniform(0, 360))
    return Image.fromarray(bar).rotate(angle, Image.Resampling.BILINEAR, fillcolor=40)


def files(folder: Path, draw: Draw, count: int = 40) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        draw(rng).save(path)
    return paths


@pytest.mark.parametrize(
    ("draw", "low", "high"), [(stripes, 0.9, 1.0), (grains, 0.0, 0.1), (bar_at_any_angle, 0.0, 0.4)]
)
def test_edges_that_run_one_way_are_a_direction(draw: Draw, low: float, high: float, tmp_path: Path) -> None:
    assert low <= coherence(files(tmp_path, draw)) <= high
    assert low > ONE_WAY or high < ONE_WAY


def test_what_says_nothing_has_no_direction(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    flat = files(tmp_path, lambda _: Image.new("L", (40, 40), 90), 2)
    assert coherence([*flat, broken]) == 0.0
    assert coherence([]) == 0.0


@pytest.mark.parametrize(("draw", "symmetry"), [(stripes, "flips"), (grains, "turns")])
def test_the_detail_look_is_turned_where_nothing_has_a_direction(
    draw: Draw, symmetry: str, tmp_path: Path
) -> None:
    detail = {"taps": [1], "symmetry": "auto"}
    train = tuple(Sample(path, path.name) for path in files(tmp_path, draw, 8))
    split = Split("random", 0, False, train, (), ())
    features = with_sizes(Config.model_validate({"features": {"detail": detail}}), split).features
    assert features.detail.symmetry == symmetry
    wide = {"features": {"aspect": 2.0, "detail": detail}}  # a turned rectangle is another one
    assert with_sizes(Config.model_validate(wide), split).features.detail.symmetry == "flips"

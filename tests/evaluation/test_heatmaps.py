"""Heat maps: what is coloured, which images are shown, and that real ones can be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nfbmr.data.images import read_image, read_mask
from nfbmr.data.samples import GOOD
from nfbmr.evaluation import heatmaps
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.heatmaps import Shown

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


def test_what_is_normal_leaves_the_image_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    map_HW = np.zeros((3, 4), dtype=np.float32)
    map_HW[0, 0] = 10.0
    laid = heatmaps.overlay(pixels, map_HW, 1.0, 10.0)
    assert laid.shape == pixels.shape
    assert laid.dtype == np.uint8
    assert (laid[15:] == pixels[15:]).all()
    assert (laid[:5, :5] != pixels[:5, :5]).any()


def test_the_place_of_the_anomaly_is_the_place_of_the_colour():
    pixels = np.full((60, 90, 3), 128, dtype=np.uint8)
    map_HW = np.zeros((6, 9), dtype=np.float32)
    map_HW[1, 7] = 1.0
    change = np.abs(heatmaps.overlay(pixels, map_HW, 0.0, 1.0).astype(int) - 128).sum(axis=2)
    y, x = np.argwhere(change > change.max() / 2).mean(axis=0)
    assert (y, x) == (pytest.approx(14.5, abs=1), pytest.approx(74.5, abs=1))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=20), st.integers(0, 7))
def test_the_telling_images_are_few_distinct_and_real(images, count):
    defects = tuple("crack" if defective else GOOD for defective, _ in images)
    scores = Scores(
        tuple(map(str, range(len(images)))), defects, np.array([s for _, s in images], dtype=float)
    )
    chosen = heatmaps.select_examples(scores, 0.5, count)
    everything = [i for numbers in chosen.values() for i in numbers]
    assert list(chosen) == ["best", "worst", "borderline"]
    assert len(set(everything)) == len(everything)
    assert all(
        len(numbers) <= count and set(numbers) <= set(range(len(images))) for numbers in chosen.values()
    )
    assert len(everything) == min(len(images), 3 * count)


def test_best_and_worst_are_the_ends_of_each_class():
    score = np.array([0.1, 0.2, 0.3, 0.9, 0.05, 0.6, 0.7, 0.8])
    scores = Scores(tuple("abcdefgh"), (GOOD,) * 4 + ("crack",) * 4, score)
    chosen = heatmaps.select_examples(scores, 0.58, 2)
    assert chosen == {"best": [7, 0], "worst": [4, 3], "borderline": [5, 6]}
    assert heatmaps.select_examples(scores, float("nan"), 2)["borderline"] == []


def grid(shown, path, **options):
    heatmaps.heatmap_grid(shown, path, title="Best", vmin=0.0, vmax=1.0, **options)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_grid_shows_images_of_any_size_with_and_without_masks(tmp_path):
    rng = np.random.default_rng(0)
    shown = []
    for i, (h, w) in enumerate([(8, 8), (20, 600), (700, 30), (64, 64), (1, 1)]):
        pixels = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        mask = rng.random((h, w)) > 0.7 if i % 2 else None
        map_HW = rng.random((4, 4), dtype=np.float32)
        shown.append(Shown(f"a $ b\n_{i}.png", ("傷", GOOD)[i % 2], float(i), pixels, map_HW, mask))
    for count in (0, 1, 2, 5):
        pixels = grid(shown[:count], tmp_path / f"{count}.png", threshold=2.0, caption="mtd", scale="0 to 1")
        assert pixels.shape[1] > 500


@pytest.mark.mtd
def test_real_images_are_shown_with_their_outlines(tmp_path):
    if not MTD.is_dir():
        pytest.skip("the Magnetic Tile images are not beside the checkout")
    path = sorted((MTD / "MT_Blowhole" / "Imgs").glob("*.jpg"))[0]
    mask = read_mask(path.with_suffix(".png"))
    map_HW = np.zeros((12, 12), dtype=np.float32)
    with_mask, without = (
        grid([Shown(path.name, "blowhole", 1.0, read_image(path), map_HW, m)], tmp_path / "grid.png")
        for m in (mask, None)
    )

    def cyan(pixels):
        r, g, b = pixels.astype(int).transpose(2, 0, 1)
        return ((b - r > 150) & (g - r > 120)).sum()

    assert cyan(with_mask) > 20
    assert cyan(without) == 0


def test_long_pictures_are_drawn_over_the_whole_width(tmp_path):
    """Three of 16 to 1 beside each other would be strips in which no defect is seen."""
    widths = {}
    for name, shape in {"square": (96, 96), "long": (100, 1600), "tall": (1600, 640)}.items():
        pixels = np.full((*shape, 3), 90, dtype=np.uint8)
        pixels[shape[0] // 4 : shape[0] // 2, : shape[1] // 2] = 255
        maps = np.zeros((8, 8), dtype=np.float32)
        item = Shown("a.png", "crack", 1.0, pixels, maps)
        path = heatmaps.heatmap_grid([item], tmp_path / f"{name}.png", title="Best", vmin=0.5, vmax=1.0)
        with Image.open(path) as image:
            light = (np.asarray(image.convert("L")) < 120).sum(0)  # columns with a picture in them
            widths[name] = float((light > 20).mean())
    assert widths["long"] > 0.9
    assert widths["tall"] > 0.5

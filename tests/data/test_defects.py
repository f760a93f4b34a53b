"""Synthetic defects: at any size visible, bounded, reproducible, and a spread of difficulty."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nfbmr.data.defects import synthetic_defects
from nfbmr.data.pasting import paste_defect
from nfbmr.data.samples import Sample

KINDS = ("cutpaste", "blend", "scratch")
MTD = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mtd"


def surface(shape, seed=0, level=120, spread=12):
    return np.clip(np.random.default_rng(seed).normal(level, spread, shape), 0, 255).astype(np.uint8)


@settings(max_examples=150)
@given(
    height=st.integers(10, 90),
    width=st.integers(10, 90),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**48),
    level=st.sampled_from([0, 3, 60, 128, 250, 255]),
    spread=st.sampled_from([0, 10]),
)
def test_any_image_gets_a_visible_defect_under_its_mask(height, width, channels, kind, seed, level, spread):
    pixels = surface((height, width, channels), 1, level, spread)
    before = pixels.copy()
    donor = surface((37, 23, channels), 2)
    defective, mask = paste_defect(pixels, donor, kind, seed)
    assert np.array_equal(pixels, before)
    assert defective.shape == pixels.shape
    assert defective.dtype == np.uint8
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    change = np.abs(defective.astype(int) - pixels).max(axis=2)
    assert (change[mask] >= 3).any()
    assert mask.mean() < 0.75


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3), (3, 200, 1), (200, 3, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_shapes_work_too(shape, kind):
    for seed in range(20):
        defective, mask = paste_defect(surface(shape), surface((5, 5, shape[2]), 3), kind, seed)
        assert mask.any()
        assert (defective != surface(shape)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_strengths_are_a_spread(kind):
    pixels, donor = surface((160, 160, 1)), surface((160, 160, 1), 4, 110)
    sides, strengths = [], []
    for seed in range(120):
        defective, mask = paste_defect(pixels, donor, kind, seed)
        ys, xs = np.nonzero(mask)
        sides.append(max(np.ptp(ys), np.ptp(xs)) / 160)
        strengths.append(np.abs(defective[mask].astype(int) - pixels[mask]).mean())
    low, high = np.quantile(sides, [0.1, 0.9])
    assert 0.0 <= low < 0.12 < high < 0.7
    assert np.quantile(strengths, 0.9) > 1.8 * np.quantile(strengths, 0.1)


def test_a_dark_exposure_gets_the_defect_of_a_bright_one_to_scale():
    bright = surface((80, 80, 1), 0, 180, 10)
    dark = (bright * 0.5).astype(np.uint8)
    masks = [paste_defect(x, x, "scratch", 11)[1] for x in (bright, dark)]
    assert np.array_equal(*masks)


@pytest.fixture
def samples(tmp_path):
    made = []
    for i in range(7):
        path = tmp_path / f"{i}.png"
        Image.fromarray(surface((40, 50), i)).save(path)
        made.append(Sample(path, path.name, group=f"tile {i // 2}"))
    return made


def test_every_sample_gets_its_defects_kinds_in_rotation(samples):
    pictures = synthetic_defects(samples, kinds=KINDS, per_image=3, seed=0)
    assert len(pictures) == 21
    assert Counter(p.path for p in pictures) == {s.path: 3 for s in samples}
    for i, sample in enumerate(samples):
        assert {p.ops[0].kind for p in pictures if p.path == sample.path} == set(KINDS)
        assert pictures[i].path == sample.path
    assert len({p.key for p in pictures}) == 21
    assert all(p.mask().any() for p in pictures)


def test_the_seed_decides(samples):
    a, b, c = (synthetic_defects(samples, kinds=KINDS, per_image=1, seed=s) for s in (0, 0, 1))
    assert a == b
    assert {p.key for p in a}.isdisjoint(p.key for p in c)


def test_donors_are_other_parts_where_there_are_any(samples):
    group = {s.path: s.group for s in samples}
    for seed in range(5):
        for p in synthetic_defects(samples, kinds=("cutpaste",), per_image=1, seed=seed):
            assert group[p.path] != group[p.ops[0].donor]
    pair = synthetic_defects(samples[:2], kinds=("blend",), per_image=1, seed=0)
    assert [p.ops[0].donor for p in pair] == [samples[1].path, samples[0].path]
    alone = synthetic_defects(samples[:1], kinds=("blend",), per_image=1, seed=0)
    assert alone[0].ops[0].donor == samples[0].path
    assert alone[0].mask().any()


@pytest.mark.mtd
def test_real_parts_get_small_defects():
    if not MTD.is_dir():
        pytest.skip("the Magnetic Tile images are not beside the checkout")
    files = sorted((MTD / "MT_Free" / "Imgs").glob("*.jpg"))[::80]
    pictures = synthetic_defects([Sample(f, f.name) for f in files], kinds=KINDS, per_image=1, seed=0)
    areas = [p.mask().mean() for p in pictures]
    assert min(areas) > 0
    assert np.median(areas) < 0.05

"""Synthetic objects: a flaw changes the picture under its mask alone, and no two good parts lie alike."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from nfbmr.data.blemishes import OUTLINE, SURFACE
from nfbmr.data.objects import LARGEST, OBJECTS, SMALLEST, draw_object
from nfbmr.data.shapes import Bolt

FLAWED = [(name, kind) for name, one in OBJECTS.items() for kind in one.flaws]


def draw(name, flaw=None, seed=0, size=None):
    return draw_object(name, np.random.default_rng(seed), size or OBJECTS[name].size, flaw)


def test_what_there_is():
    grounds = {name: one.ground for name, one in OBJECTS.items()}
    assert sum(isinstance(ground, float) for ground in grounds.values()) >= 4
    assert sum(isinstance(ground, str) for ground in grounds.values()) == 2
    assert {one.size for one in OBJECTS.values()} == {512, 768, 1024}
    for one in OBJECTS.values():
        assert set(one.flaws) & set(OUTLINE)
        assert set(one.flaws) & set(SURFACE)
        assert set(one.flaws) <= {*OUTLINE, *SURFACE}
    assert {kind for _, kind in FLAWED} == {*OUTLINE, *SURFACE}


@pytest.mark.parametrize(("name", "kind"), FLAWED)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_picture_changes_under_the_mask_alone_by_a_small_flaw(name, kind, seed):
    good, none = draw(name, seed=seed, size=512)
    flawed, mask = draw(name, kind, seed, 512)
    assert none is None
    assert mask.shape == (512, 512)
    assert SMALLEST <= mask.mean() <= LARGEST
    changed = np.abs(flawed.astype(int) - good).reshape(512, 512, -1).max(axis=-1)
    assert not changed[~mask].any()
    assert np.mean(changed[mask] > 0) > 0.6  # holes of a mask are filled
    assert changed[mask].max() >= 8


@pytest.mark.parametrize("name", OBJECTS)
def test_flaws_are_of_a_thousandth_to_a_hundredth_at_full_size(name):
    kind = OBJECTS[name].flaws[0]
    areas = [draw(name, kind, seed)[1].mean() for seed in range(10, 14)]
    assert SMALLEST <= min(areas) < max(areas) <= LARGEST
    assert len(set(areas)) == 4


def place(pixels):
    """Middle and direction of what stands out of the smooth ground."""
    grey = pixels.reshape(*pixels.shape[:2], -1).mean(axis=-1)
    y, x = np.nonzero(np.abs(grey - np.median(grey)) > 40)
    xx, yy, xy = np.var(x), np.var(y), np.cov(x, y)[0, 1]
    return y.mean(), x.mean(), 0.5 * np.arctan2(2 * xy, xx - yy)


def test_parts_lie_at_any_place_and_angle():
    y, x, angles = np.array([place(draw("bolt", seed=seed, size=128)[0]) for seed in range(40)]).T
    assert np.ptp(y) > 25
    assert np.ptp(x) > 25
    quarters = np.histogram(angles, bins=4, range=(-np.pi / 2, np.pi / 2))[0]
    assert (quarters >= 3).all()


@pytest.mark.parametrize("name", OBJECTS)
def test_good_parts_differ_and_look_like_photographs(name):
    first, second = (draw(name, seed=seed)[0] for seed in (0, 1))
    assert first.dtype == np.uint8
    assert first.shape[:2] == (OBJECTS[name].size,) * 2
    assert np.mean(first != second) > 0.5
    for pixels in (first, second):
        assert 25 < pixels.mean() < 200
        assert np.mean((pixels == 0) | (pixels == 255)) < 0.02
        corner = pixels[:32, :32].astype(float)
        assert (corner[1:] - corner[:-1]).std() > 0.5  # the sensor's noise


@pytest.mark.parametrize("name", OBJECTS)
def test_a_part_lies_within_its_extent_and_its_tips_on_its_outline(name):
    for seed in range(5):
        part = OBJECTS[name].draw(np.random.default_rng(seed))
        half_u, half_v = part.extent
        v, u = np.mgrid[-700:700:3, -700:700:3].astype(np.float32)
        inside = part.distance(u, v) > 0
        assert not inside[(np.abs(u) > half_u) | (np.abs(v) > half_v)].any()
        assert 0.1 < inside.sum() * 9 / (4 * half_u * half_v) < 0.95
        tip_u, tip_v, _ = part.tips(np.random.default_rng(seed))
        d = part.distance(*(np.full((1, 1), x, np.float32) for x in (tip_u, tip_v)))
        assert abs(float(d[0, 0])) < 30


def test_tolerances_are_small():
    rng = np.random.default_rng(0)
    lengths = np.array([Bolt.draw(rng).length for _ in range(200)])
    assert 0 < lengths.std() / lengths.mean() < 0.01
    assert np.ptp(lengths) / lengths.mean() < 0.03


def test_same_seed_same_bytes_in_another_process():
    code = "import hashlib, numpy as np; from nfbmr.data.objects import draw_object\n"
    code += "a, m = draw_object('link', np.random.default_rng(5), 256, 'dent')\n"
    code += "print(hashlib.sha256(a.tobytes() + m.tobytes()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pixels, mask = draw("link", "dent", 5, 256)
    assert other.stdout.strip() == hashlib.sha256(pixels.tobytes() + mask.tobytes()).hexdigest()


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("size", [32, 65, 100])
def test_small_and_odd_sizes_are_drawn_too(name, size):
    pixels, mask = draw(name, OBJECTS[name].flaws[0], 3, size)
    assert pixels.shape[:2] == mask.shape == (size, size)
    assert mask.any()

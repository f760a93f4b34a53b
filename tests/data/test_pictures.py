"""A picture is named by content and operations, and prepared as the backbone expects."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nfbmr.config import VIEWS
from nfbmr.data.images import file_digest, read_image
from nfbmr.data.pictures import PasteDefect, ViewOp, picture_of, prepare
from nfbmr.data.samples import Sample
from nfbmr.errors import ConfigError, ImageError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(60, 180, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # (64, 96, 3)
    Image.fromarray(base).save(folder / "colour.png")
    Image.fromarray(base[..., 0]).save(folder / "grey.png")
    Image.fromarray(base[::-1, ..., 1]).save(folder / "donor.png")
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(folder / "plain.png")
    return folder


def picture(path):
    return picture_of(Sample(path, path.name))


def paste(folder, kind="cutpaste", seed=1, donor="donor.png"):
    return PasteDefect(kind, seed, folder / donor, file_digest(folder / donor))


def all_ops(folder):
    pasted = [paste(folder, kind, seed) for kind in ("cutpaste", "blend", "scratch") for seed in (1, 2)]
    return [(), *((ViewOp(v),) for v in VIEWS), *((p,) for p in pasted), (ViewOp("rot90"), ViewOp("flip-h"))]


def test_keys_name_content_and_ops_and_nothing_else(folder, tmp_path):
    elsewhere = tmp_path / "moved and renamed.png"
    shutil.copy(folder / "grey.png", elsewhere)
    donor = tmp_path / "other donor.png"
    shutil.copy(folder / "donor.png", donor)
    keys = [picture(folder / "grey.png").then(*ops).key for ops in all_ops(folder)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)
    moved = picture(elsewhere)
    assert [moved.then(*ops).key for ops in all_ops(folder)] == keys
    assert moved.then(PasteDefect("blend", 1, donor, file_digest(donor))).key in keys
    assert picture(folder / "colour.png").key not in keys
    one_way, other_way = (ViewOp("flip-h"), ViewOp("rot90")), (ViewOp("rot90"), ViewOp("flip-h"))
    assert moved.then(*one_way).key != moved.then(*other_way).key


def test_views_do_to_the_pixels_what_their_names_say(folder):
    plain = picture(folder / "colour.png")
    x = plain.pixels()
    assert np.array_equal(x, read_image(folder / "colour.png"))
    for name, expected in {
        "flip-h": x[:, ::-1],
        "flip-v": x[::-1],
        "rot90": np.rot90(x),
        "rot180": np.rot90(x, 2),
        "rot270": np.rot90(x, 3),
        "darker": np.rint(x * 2 ** (-1 / 3)),
        "brighter": np.rint(np.minimum(x * 2 ** (1 / 3), 255)),
    }.items():
        assert np.array_equal(plain.then(ViewOp(name)).pixels(), expected), name
        assert plain.then(ViewOp(name)).mask() is None


def test_an_unknown_view_is_refused():
    with pytest.raises(ConfigError, match="no such view"):
        ViewOp("sideways")


@pytest.mark.parametrize("file", ["grey.png", "colour.png", "plain.png"])
@pytest.mark.parametrize("kind", ["cutpaste", "blend", "scratch"])
def test_a_pasted_defect_is_deterministic_and_stays_near_its_mask(folder, file, kind):
    good = picture(folder / file)
    for seed in range(5):
        bad = good.then(paste(folder, kind, seed))
        pixels, mask = bad.pixels(), bad.mask()
        again = good.then(paste(folder, kind, seed))
        assert np.array_equal(pixels, again.pixels())
        assert np.array_equal(mask, again.mask())
        changed = (pixels != good.pixels()).any(axis=2)
        assert mask.shape == changed.shape
        assert (changed & mask).any()
        y, x = np.nonzero(mask)
        ys, xs = np.nonzero(changed)
        reach = 0.4 * max(changed.shape)
        assert ys.min() >= y.min() - reach
        assert xs.max() <= x.max() + reach


def test_masks_turn_with_their_pictures(folder):
    bad = picture(folder / "grey.png").then(paste(folder))
    assert np.array_equal(bad.then(ViewOp("rot90")).mask(), np.rot90(bad.mask()))
    assert np.array_equal(bad.then(ViewOp("darker")).mask(), bad.mask())
    both = bad.then(paste(folder, "blend", 7))
    assert (both.mask() >= bad.mask()).all()


def test_prepare_without_resizing_is_the_channel_normalisation(folder, tmp_path):
    rng = np.random.default_rng(1)
    for array in (rng.integers(0, 256, (48, 48, 3), np.uint8), rng.integers(0, 256, (48, 48), np.uint8)):
        Image.fromarray(array).save(tmp_path / "a.png")
        x = prepare(picture(tmp_path / "a.png"), size=48, photometric="none", **IMAGENET)
        rgb = array if array.ndim == 3 else np.stack([array] * 3, axis=2)
        expected = (rgb / 255 - IMAGENET["mean"]) / IMAGENET["std"]
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, expected.transpose(2, 0, 1), atol=2e-6)


@pytest.mark.parametrize("size", [32, 64, 200])
def test_prepare_resizes_as_pillow_does(folder, size):
    for file in ("grey.png", "colour.png"):
        x = prepare(picture(folder / file), size=size, photometric="none", **HALF)
        assert x.shape == (3, size, size)
        with Image.open(folder / file) as image:
            pillow = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
        off = np.abs((x.transpose(1, 2, 0) + 1) * 127.5 - pillow)  # both round twice, not quite alike
        assert off.max() < 2.5
        assert off.mean() < 0.3


def test_a_grey_file_and_its_colour_copy_prepare_alike(folder, tmp_path):
    with Image.open(folder / "grey.png") as image:
        image.convert("RGB").save(tmp_path / "rgb.png")
    for how in ("none", "brightness", "standardize"):
        a, b = (
            prepare(picture(p), size=40, photometric=how, **IMAGENET)
            for p in (folder / "grey.png", tmp_path / "rgb.png")
        )
        assert np.abs(a - b).max() < 0.03


@settings(max_examples=25)
@given(level=st.integers(40, 200), spread=st.integers(3, 30), seed=st.integers(0, 99))
def test_photometric_normalisation_removes_exposure(tmp_path_factory, level, spread, seed):
    path = tmp_path_factory.getbasetemp() / f"{seed}-{level}-{spread}.png"
    noise = np.random.default_rng(seed).normal(level, spread, (40, 40))
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)
    grey = {
        how: (prepare(picture(path), size=40, photometric=how, **HALF) + 1) / 2
        for how in ("brightness", "standardize")
    }
    assert abs(grey["brightness"].mean() - 0.5) < 0.02
    assert abs(grey["standardize"].mean() - 0.5) < 0.02
    assert abs(grey["standardize"].std() - 0.2) < 0.02


@pytest.mark.parametrize("how", ["none", "brightness", "standardize"])
@pytest.mark.parametrize("level", [0, 1, 255])
def test_blank_images_stay_finite(tmp_path, how, level):
    Image.fromarray(np.full((9, 7), level, np.uint8)).save(tmp_path / "a.png")
    x = prepare(picture(tmp_path / "a.png"), size=32, photometric=how, **IMAGENET)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (500, 2)])
def test_extreme_shapes_become_squares(tmp_path, shape):
    Image.fromarray(np.full(shape, 127, np.uint8)).save(tmp_path / "a.png")
    x = prepare(picture(tmp_path / "a.png"), size=32, photometric="none", **HALF)
    assert x.shape == (3, 32, 32)
    assert np.abs(x).max() < 0.01


def test_prepare_gives_the_same_from_several_threads(folder):
    pictures = [picture(folder / "colour.png").then(*ops) for ops in all_ops(folder)]
    expected = [prepare(p, size=48, photometric="standardize", **IMAGENET) for p in pictures]
    found = {}

    def work(n):
        found[n] = [prepare(p, size=48, photometric="standardize", **IMAGENET) for p in pictures]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for n in found for a, b in zip(found[n], expected, strict=True))


def test_a_missing_file_or_donor_is_an_image_error(folder):
    with pytest.raises(ImageError, match="no such file"):
        picture(folder / "gone.png")
    gone = PasteDefect("blend", 1, Path("gone.png"), "0" * 64)
    with pytest.raises(ImageError, match=r"gone\.png"):
        prepare(picture(folder / "grey.png").then(gone), size=32, photometric="none", **HALF)

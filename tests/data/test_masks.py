"""Masks wherever people keep them: paired with their picture, united, or named; never counted as parts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.config import Config, DataConfig
from nfbmr.data.given import images_in
from nfbmr.data.images import read_image, read_mask, read_masks
from nfbmr.data.inspect import inspect_dataset
from nfbmr.data.layouts import load_dataset
from nfbmr.data.masks import looks_like_mask, pictures_below
from nfbmr.data.samples import Dataset
from nfbmr.errors import ImageError
from nfbmr.prepare import read_data
from tests.data.drawn import SIZE, bad, flawed, good, part, save

FOLDER = (
    "bad/{n}.png",
    "bad/{n}_GT.png",
    "bad/{n}_label.bmp",
    "bad/{n}_mask.jpg",
    "bad/{n}_mask.png",
    "bad/masks/{n}.png",
    "bad/ground_truth/{n}.png",
    "labels/{n}.png",
    "label/bad/{n}.png",
    "mask/bad/{n}.png",
    "masks/{n}_mask.png",
    "gt/{n}.png",
    "annotations/{n}.png",
    "bad_mask/{n}.png",
    "ground truth/bad/{n}.png",
    "Ground_Truth/Bad/{n}_GT.PNG",
)
MVTEC = (
    "test/hole/{n}_mask.png",
    "test/hole/{n}_GT.png",
    "test/hole/masks/{n}.png",
    "test/ground_truth/hole/{n}_mask.png",
    "ground_truth/hole/{n}_mask.png",
    "ground_truth/hole/{n}_GT.png",
    "ground_truth/hole/{n}_label.bmp",
    "ground_truth/hole/{n}_Mask.PNG",
    "ground_truth/hole/{n}.mask.png",
    "ground_truth/hole/mask_{n}.png",
    "ground_truth/{n}_mask.png",
    "gt/hole/{n}_mask.png",
    "masks/hole/{n}_mask.png",
    "mask/hole/{n}.png",
)


def all_paired(dataset: Dataset, kind: str) -> None:
    """Each defective picture has the mask of its own flaw, and no mask is a picture."""
    assert dataset.unused == ()
    defective = [s for s in dataset.samples if not s.is_good]
    assert dataset.counts() == {kind: 3, "good": len(dataset.samples) - 3}
    for sample in defective:
        expected = np.asarray(flawed(int(sample.path.stem[:3]))[1]) > 0
        assert (read_masks(sample.masks) == expected).mean() > 0.995  # JPEG frays edges
    assert not any(s.masks for s in dataset.samples if s.is_good)


@pytest.mark.parametrize("place", FOLDER)
def test_a_folder_of_ones_own(tmp_path: Path, place: str) -> None:
    good(tmp_path / "good", 4)
    for i in range(3):
        bad(tmp_path / f"bad/{i:03}.jpg", tmp_path / place.format(n=f"{i:03}"), seed=i)
    all_paired(load_dataset(tmp_path), "bad")
    pictures, masks = pictures_below(tmp_path)
    assert (len(pictures), len(masks)) == (7, 3)


def test_pictures_and_masks_in_folders_of_a_kind(tmp_path: Path) -> None:
    good(tmp_path / "good", 4)
    for i in range(3):
        bad(tmp_path / f"bad/image/{i:03}.png", tmp_path / f"bad/mask/{i:03}.png", seed=i)
    all_paired(load_dataset(tmp_path), "bad")


def test_pictures_and_masks_in_trees_of_their_own(tmp_path: Path) -> None:
    good(tmp_path / "images/good", 4)
    good(tmp_path / "masks/good", 2)
    for i in range(3):
        bad(tmp_path / f"images/bad/{i:03}.png", tmp_path / f"masks/bad/{i:03}.png", seed=i)
    dataset = load_dataset(tmp_path)
    all_paired(dataset, "bad")
    assert dataset.samples[0].name == "images/bad/000.png"


@pytest.mark.parametrize("place", MVTEC)
def test_the_layout_of_mvtec(tmp_path: Path, place: str) -> None:
    good(tmp_path / "train/good", 4)
    good(tmp_path / "test/good", 3, first=50)
    for i in range(3):
        bad(tmp_path / f"test/hole/{i:03}.png", tmp_path / place.format(n=f"{i:03}"), seed=i)
    all_paired(load_dataset(tmp_path), "hole")


@pytest.mark.parametrize(
    "places",
    [
        ("ground_truth/hole/{n}_mask.png", "ground_truth/hole/{n}_mask_1.png"),
        ("ground_truth/hole/{n}_1.png", "ground_truth/hole/{n}_2.png"),
        ("ground_truth/hole/{n}/000.png", "ground_truth/hole/{n}/001.png"),
        ("ground_truth/hole/{n}.png", "test/hole/{n}_mask.png"),
    ],
)
def test_several_masks_of_a_picture_are_united(tmp_path: Path, places: tuple[str, ...]) -> None:
    good(tmp_path / "train/good", 4)
    for i in range(3):
        bad(
            tmp_path / f"test/hole/{i:03}.png",
            *(tmp_path / place.format(n=f"{i:03}") for place in places),
            seed=i,
        )
    dataset = load_dataset(tmp_path)
    assert dataset.unused == ()
    for sample in dataset.samples[:3]:
        mask = np.asarray(flawed(int(sample.path.stem))[1]) > 0
        np.testing.assert_array_equal(read_masks(sample.masks), mask | mask[::-1])


def test_masks_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    first, second = save(Image.new("L", (4, 4)), tmp_path / "a.png"), tmp_path / "b.png"
    save(Image.new("L", (5, 4)), second)
    with pytest.raises(ImageError, match="5 x 4 pixels, another mask of the same image has 4 x 4"):
        read_masks([first, second])


def test_a_jpeg_mask_marks_what_is_bright_and_not_its_noise(tmp_path: Path) -> None:
    mask = flawed(3)[1]
    stored = save(mask, tmp_path / "mask.jpg")
    assert np.count_nonzero(np.asarray(Image.open(stored))) > np.count_nonzero(np.asarray(mask))
    assert (read_mask(stored) == (np.asarray(mask) > 0)).mean() > 0.995
    several = tmp_path / "mask.mpo"
    mask.save(several, format="MPO", save_all=True, append_images=[mask])
    with Image.open(several) as image:
        assert image.format == "MPO"
    assert (read_mask(several) == (np.asarray(mask) > 0)).mean() > 0.995


def test_a_mask_without_a_picture_is_named_and_counts_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good(tmp_path / "good", 8)
    for i in range(3):
        bad(tmp_path / f"bad/{i:03}.jpg", tmp_path / f"bad/{i:03}_mask.png", seed=i)
    save(flawed(9)[1], tmp_path / "bad/900_mask.png")
    save(flawed(9)[1], tmp_path / "bad/901_GT.png")
    save(flawed(9)[1], tmp_path / "masks/902.png")
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"bad": 3, "good": 8}
    lost = {"bad/900_mask.png", "bad/901_GT.png", "masks/902.png"}
    inspection = inspect_dataset(dataset)
    assert {(p.kind, p.name) for p in inspection.problems} == {("mask without image", n) for n in lost}
    assert {u["name"] for u in inspection.as_json()["unused"]} == lost  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING):
        read_data(Config(data=DataConfig(path=tmp_path)))
    assert "3 masks are of no image and not used" in caplog.text
    assert "'bad/900_mask.png'" in caplog.text


def test_predicting_a_folder_leaves_masks_out_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(2):
        bad(tmp_path / f"new/{i:03}.jpg", tmp_path / f"new/{i:03}.png", seed=i)
    orphan = save(flawed(9)[1], tmp_path / "new/900_mask.png")
    with caplog.at_level(logging.WARNING):
        files = images_in([tmp_path / "new"])
    assert [f.name for f in files] == ["000.jpg", "001.jpg"]
    assert "3 masks are left out" in caplog.text
    assert images_in([orphan]) == [orphan]


def test_a_link_to_a_picture_that_went_away_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    """Such as on a network folder: the part is named with its error, not passed over."""
    good(tmp_path / "new", 1)
    lost = tmp_path / "new" / "lost.png"
    lost.symlink_to(tmp_path / "gone.png")
    (tmp_path / "new" / "lost_mask.png").symlink_to(tmp_path / "gone_mask.png")
    (tmp_path / "new" / "masks").mkdir()
    (tmp_path / "new" / "masks" / "other.png").symlink_to(tmp_path / "gone_mask.png")
    files = images_in([tmp_path / "new"])
    assert len(files) == 2
    assert files[1] == lost
    with pytest.raises(ImageError, match="no such file"):
        read_image(lost)


def test_a_mask_that_could_be_of_two_pictures_is_of_none(tmp_path: Path) -> None:
    good(tmp_path / "good", 4)
    bad(tmp_path / "dent/000.jpg", tmp_path / "masks/000.png")
    bad(tmp_path / "hole/000.jpg")
    dataset = load_dataset(tmp_path)
    assert [u.why for u in dataset.unused if u.is_mask] == ["several images have its name"]
    assert not any(s.masks for s in dataset.samples)


class TestPicturesThatAreCalledLikeMasks:
    """What a person would take for a picture stays one, whatever its name."""

    def test_a_picture_beside_another_of_its_stem(self, tmp_path: Path) -> None:
        good(tmp_path / "good", 4)
        save(part(70), tmp_path / "bad/000.jpg")
        save(part(71), tmp_path / "bad/000.png")
        save(part(72), tmp_path / "bad/000_label.png")
        assert load_dataset(tmp_path).counts() == {"bad": 3, "good": 4}

    @pytest.mark.parametrize("kind", ["label", "labels", "label_missing", "gt"])
    def test_a_kind_of_defect(self, tmp_path: Path, kind: str) -> None:
        good(tmp_path / "good", 4)
        for i in range(3):
            bad(tmp_path / kind / f"{i:03}.png", seed=i)
        dataset = load_dataset(tmp_path)
        assert (dataset.counts(), dataset.unused) == ({kind: 3, "good": 4}, ())

    def test_a_picture_of_a_face_mask(self, tmp_path: Path) -> None:
        good(tmp_path / "good", 4)
        save(part(80), tmp_path / "good/face_mask.jpg")
        assert load_dataset(tmp_path).counts() == {"good": 5}


def test_pixels_of_masks_and_of_pictures(tmp_path: Path) -> None:
    picture, mask = flawed(0)
    assert looks_like_mask(save(picture, tmp_path / "picture.png")) is False
    assert looks_like_mask(save(mask.convert("RGB"), tmp_path / "mask.jpg")) is True
    assert looks_like_mask(save(mask.point(lambda v: 3 if v else 0), tmp_path / "visa.png")) is True
    assert looks_like_mask(save(Image.new("L", SIZE), tmp_path / "blank.bmp")) is True
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    assert looks_like_mask(tmp_path / "damaged.png") is None

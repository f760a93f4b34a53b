"""The demonstration set: the same bytes for the same seed, MVTec AD's layout, never over other files."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from nfbmr.data.flaws import FLAWS
from nfbmr.data.images import read_image, read_mask
from nfbmr.data.objects import OBJECTS
from nfbmr.data.synthesize import CLASSES, MARK, synthesize
from nfbmr.data.textures import TEXTURES
from nfbmr.errors import ConfigError, DataError, OutputError

SMALL = {"train": 2, "test_good": 1, "test_defective": len(FLAWS), "size": 64}


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic") / "set", **SMALL)


def test_layout_is_that_of_mvtec(made):
    assert {p.name for p in made.iterdir() if p.is_dir()} == set(TEXTURES)
    for name in TEXTURES:
        assert len(list((made / name / "train" / "good").iterdir())) == 2
        assert len(list((made / name / "test" / "good").iterdir())) == 1
        assert {p.name for p in (made / name / "test").iterdir()} == {"good", *FLAWS}
        assert {p.name for p in (made / name / "ground_truth").iterdir()} == set(FLAWS)


@pytest.mark.parametrize("kind", FLAWS)
def test_every_flaw_has_a_mask_of_its_image_and_size(made, kind):
    for name in TEXTURES:
        image = read_image(made / name / "test" / kind / "000.png")
        mask = read_mask(made / name / "ground_truth" / kind / "000_mask.png")
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert 0 < mask.mean() < 0.4


def test_every_image_is_another(made):
    images = [v for k, v in digests(made).items() if "ground_truth" not in k]
    assert len(set(images)) == len(images)


def test_same_seed_same_bytes_in_another_process_and_a_larger_set(made, tmp_path):
    code = "import sys; from pathlib import Path; from nfbmr.data.synthesize import synthesize\n"
    code += f"synthesize(Path(sys.argv[1]), classes=('wood', 'leather'), **{SMALL | {'train': 3}})"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True)
    first, second = digests(made), digests(tmp_path / "b")
    common = {k for k in first if k.startswith(("wood", "leather"))}
    assert len(common) == 2 * (3 + 2 * len(FLAWS))
    assert {k: second[k] for k in common} == {k: first[k] for k in common}


def test_another_seed_other_images(made, tmp_path):
    other = digests(synthesize(tmp_path / "c", classes=("woven",), seed=1, **SMALL))
    first = digests(made)
    assert all(first[k] != v for k, v in other.items() if k.endswith(".png") and "mask" not in k)


def test_the_same_set_again_costs_nothing_and_other_settings_replace_it(tmp_path):
    out = synthesize(tmp_path / "set", classes=("granite",), **SMALL)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    synthesize(out, classes=("granite",), **SMALL)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == times
    synthesize(out, classes=("brushed",), **SMALL)
    assert {p.name for p in out.iterdir()} == {"brushed", MARK}


def test_a_damaged_set_is_made_again(tmp_path):
    out = synthesize(tmp_path / "set", classes=("brushed",), **SMALL)
    whole = digests(out)
    (out / "brushed" / "train" / "good" / "000.png").unlink()
    assert digests(synthesize(out, classes=("brushed",), **SMALL)) == whole


def test_an_empty_folder_may_be_filled(tmp_path):
    assert (synthesize(tmp_path, classes=("brushed",), **SMALL) / "brushed").is_dir()


@pytest.mark.parametrize("where", ["mine.txt", "brushed/train/good/mine.png"])
@pytest.mark.parametrize("made_before", [False, True])
def test_nothing_of_the_users_is_ever_replaced(tmp_path, where, made_before):
    out = tmp_path / "set"
    if made_before:
        synthesize(out, classes=("brushed",), **SMALL)
    mine = out / where
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("precious")
    before = digests(out)
    with pytest.raises(DataError, match="not synthesized"):
        synthesize(out, classes=("woven",), **SMALL)
    assert digests(out) == before


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "set").write_text("precious")
    with pytest.raises(DataError):
        synthesize(tmp_path / "set", classes=("woven",), **SMALL)
    with pytest.raises((DataError, OutputError)):
        synthesize(tmp_path / "set" / "below", classes=("woven",), **SMALL)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"classes": ("wooven",)}, "did you mean woven"),
        ({"classes": ("marble cake",)}, "there are"),
        ({"classes": ()}, "no classes"),
        ({"size": 8}, "size"),
        ({"train": 0}, "train"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, wrong, says):
    with pytest.raises(ConfigError, match=says):
        synthesize(tmp_path / "set", **{**SMALL, **wrong})
    assert not (tmp_path / "set").exists()


def test_images_are_as_varied_as_photographs(made):
    for name in TEXTURES:
        pixels = read_image(made / name / "train" / "good" / "000.png")
        assert 60 < pixels.mean() < 200
        assert pixels.std() > 8
        assert np.mean((pixels == 0) | (pixels == 255)) < 0.02


def test_objects_are_classes_beside_the_textures(tmp_path):
    assert (*TEXTURES, *OBJECTS) == CLASSES
    made = synthesize(tmp_path / "o", classes=("washer", "wood"), **SMALL | {"test_defective": 6})
    assert {p.name for p in (made / "washer" / "test").iterdir()} == {"good", *OBJECTS["washer"].flaws}
    for kind in OBJECTS["washer"].flaws:
        assert read_mask(made / "washer" / "ground_truth" / kind / "000_mask.png").any()
    again = synthesize(tmp_path / "p", classes=("washer",), **SMALL | {"test_defective": 6})
    first = digests(made)
    assert all(first[k] == v for k, v in digests(again).items() if k != MARK)


def test_a_class_has_a_size_of_its_own(tmp_path):
    few = {"train": 1, "test_good": 0, "test_defective": 0}
    made = synthesize(tmp_path / "o", classes=("capsule", "woven"), **few)
    assert read_image(made / "capsule" / "train" / "good" / "000.png").shape == (512, 512, 3)
    assert read_image(made / "woven" / "train" / "good" / "000.png").shape == (256, 256, 3)
    times = {p: p.stat().st_mtime_ns for p in made.rglob("*.png")}
    synthesize(made, classes=("capsule", "woven"), **few)
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*.png")} == times

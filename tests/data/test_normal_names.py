"""One rule for what means good, on both sides; categories of one's own; part numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfbmr.config import DataConfig
from nfbmr.data.inspect import inspect_dataset
from nfbmr.data.layouts import categories, detect_layout, load_dataset
from nfbmr.data.splits import make_split
from nfbmr.errors import DataError
from tests.data.drawn import bad, good


def kind(folder: Path, count: int = 4) -> None:
    for i in range(count):
        bad(folder / f"{i:03}.png", seed=i)


@pytest.mark.parametrize("word", ["OK", "normal", "ok", "Normals", "good", "defect_free"])
@pytest.mark.parametrize("train", ["train/good", "train/{word}", "train"])
def test_the_test_side_is_read_by_the_rule_of_the_training_side(
    tmp_path: Path, word: str, train: str
) -> None:
    good(tmp_path / train.format(word=word), 6)
    good(tmp_path / "test" / word, 3, first=100)
    kind(tmp_path / "test/NG")
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"NG": 4, "good": 9}
    split = make_split(dataset, DataConfig())
    assert (split.name, sum(s.is_good for s in split.test), len(split.test)) == ("official", 3, 7)


@pytest.mark.parametrize(
    "word",
    ["defect_free", "non_defective", "no_defect", "pass", "negative", "GOOD_parts", "OK_front", "i.O."],
)
def test_a_folder_of_ones_own(tmp_path: Path, word: str) -> None:
    good(tmp_path / word, 5)
    kind(tmp_path / "NG")
    assert load_dataset(tmp_path).counts() == {"NG": 4, "good": 5}


@pytest.mark.parametrize("word", ["not_ok", "no_good", "NOK", "abnormal", "not good", "nonNormal"])
def test_what_says_the_opposite_is_no_folder_of_good_parts(tmp_path: Path, word: str) -> None:
    good(tmp_path / "good", 5)
    kind(tmp_path / word)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {word: 4, "good": 5}
    assert not any("sounds" in note for note in inspect_dataset(dataset).notes)


def test_a_kind_that_sounds_good_is_named(tmp_path: Path) -> None:
    good(tmp_path / "good", 5)
    kind(tmp_path / "ok_but_dirty")
    notes = inspect_dataset(load_dataset(tmp_path)).notes
    assert any("'ok_but_dirty' (4 images) is read as a kind of defect" in note for note in notes)


def test_where_nothing_means_good_the_fullest_folder_is_named(tmp_path: Path) -> None:
    good(tmp_path / "serial", 6)
    kind(tmp_path / "dent", 2)
    with pytest.raises(DataError, match="if 'serial' holds the good ones"):
        load_dataset(tmp_path)


def test_part_numbers_are_categories_and_no_magnetic_tiles(tmp_path: Path) -> None:
    for number in ("MT_2041", "MT_2042"):
        good(tmp_path / number / "good", 5)
        kind(tmp_path / number / "scratch")
    assert (detect_layout(tmp_path), categories(tmp_path)) == ("folder", ("MT_2041", "MT_2042"))
    assert load_dataset(tmp_path, category="mt_2042").counts() == {"good": 5, "scratch": 4}


def test_a_kind_called_like_a_magnetic_tile_defect(tmp_path: Path) -> None:
    good(tmp_path / "good", 5)
    kind(tmp_path / "MT_scratch")
    dataset = load_dataset(tmp_path)
    assert (dataset.layout, dataset.counts()) == ("folder", {"MT_scratch": 4, "good": 5})


def test_categories_of_ones_own(tmp_path: Path) -> None:
    for name in ("bolt 2", "bolt 10", "nut"):
        good(tmp_path / name / "OK", 5)
        kind(tmp_path / name / "NG")
    good(tmp_path / "masks/good", 2)
    assert categories(tmp_path) == ("bolt 2", "bolt 10", "nut")
    dataset = load_dataset(tmp_path, category="nut")
    assert (dataset.name, dataset.category) == (f"{tmp_path.name}/nut", "nut")
    assert load_dataset(tmp_path / "nut").counts() == dataset.counts() == {"NG": 4, "good": 5}
    with pytest.raises(DataError, match="3 categories and none is named"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="nfbmr train and nfbmr compare go over all"):
        load_dataset(tmp_path, category="all")


def test_kinds_within_a_folder_of_rejects(tmp_path: Path) -> None:
    good(tmp_path / "OK", 5)
    for i in range(3):
        bad(tmp_path / f"NG/scratch/{i:03}.png", tmp_path / f"NG/scratch_mask/{i:03}.png", seed=i)
        bad(tmp_path / f"NG/dent/{i:03}.png", seed=9 + i)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"dent": 3, "good": 5, "scratch": 3}
    assert [bool(s.masks) for s in dataset.samples if s.defect == "scratch"] == [True] * 3


def test_lots_within_a_folder_of_rejects_are_no_kinds(tmp_path: Path) -> None:
    good(tmp_path / "OK", 5)
    kind(tmp_path / "NG/lot_17")
    kind(tmp_path / "NG/2024-05")
    assert load_dataset(tmp_path).counts() == {"NG": 8, "good": 5}

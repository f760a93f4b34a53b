"""Tiles by their numbers; that the pictures agree is tested in test_audit.py."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.data.layouts import load_dataset
from nfbmr.data.mtd import TILES, tile_groups

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


def test_exposures_in_a_row_are_one_tile_wherever_they_are_filed() -> None:
    names = [f"MT_{k}/Imgs/exp{e}_num_{400000 + 30 * e}.jpg" for e, k in enumerate(["Free", "Crack"] * 3, 1)]
    assert set(tile_groups(names).values()) == {"tile-400030"}


def test_a_gap_or_a_lower_exposure_starts_a_tile() -> None:
    names = ["exp1_num_400000.jpg", "exp2_num_402000.jpg", "exp1_num_402100.jpg", "exp2_num_402130.jpg"]
    groups = tile_groups(names)
    assert groups["exp1_num_400000.jpg"] != groups["exp2_num_402000.jpg"] != groups["exp1_num_402100.jpg"]
    assert groups["exp1_num_402100.jpg"] == groups["exp2_num_402130.jpg"]


def test_tiles_that_interleave_are_one_group_where_nothing_better_is_known() -> None:
    names = [f"exp{e}_num_{400000 + 20 * e + t}.jpg" for e in range(1, 7) for t in (0, 7)]
    assert set(tile_groups(names).values()) == {"tile-400020"}


def test_a_name_of_another_kind_stands_alone() -> None:
    assert tile_groups(["a.jpg", "exp1_num_5.jpg"]) == {"a.jpg": "a.jpg", "exp1_num_5.jpg": "tile-5"}


def test_a_number_is_listed_in_one_tile_only() -> None:
    assert max(Counter(number for line in TILES for number in line.split()).values()) == 1


@given(st.sets(st.tuples(st.integers(1, 6), st.integers(1, 5000)), max_size=40))
def test_the_order_of_the_names_does_not_matter(photographs: set[tuple[int, int]]) -> None:
    names = [f"exp{e}_num_{n}.jpg" for e, n in sorted(photographs)]
    shuffled = random.Random(0).sample(names, len(names))
    assert tile_groups(names) == tile_groups(shuffled)
    assert set(tile_groups(names)) == set(names)


@pytest.mark.mtd
@pytest.mark.skipif(not MTD.is_dir(), reason="the Magnetic Tile images are not beside the checkout")
def test_the_real_set_has_217_tiles_nearly_all_photographed_six_times() -> None:
    dataset = load_dataset(MTD)
    assert dataset.counts() == {
        "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "good": 952, "uneven": 103,
    }  # fmt: skip
    tiles = defaultdict(list)
    for sample in dataset.samples:
        tiles[sample.group].append(sample)
    assert len(tiles) == 217
    assert sum(len(tile) == 6 for tile in tiles.values()) == 202
    assert sum(len({s.is_good for s in tile}) == 2 for tile in tiles.values()) == 5
    assert all(s.masks for s in dataset.samples if not s.is_good)

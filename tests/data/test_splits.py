from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.config import DataConfig
from nfbmr.data.samples import GOOD, Dataset, Sample, Split
from nfbmr.data.splits import fitting_splits, make_split
from nfbmr.errors import ConfigError, DataError


def sample(name: str, defect: str = GOOD, group: str | None = None, subset: str | None = None) -> Sample:
    return Sample(Path("/data") / name, name, defect, None, group, subset)


def dataset(layout: str, samples: list[Sample]) -> Dataset:
    return Dataset(layout, layout, Path("/data"), tuple(sorted(samples, key=lambda s: s.name)))


def own(good: int, bad: int = 0, groups: int | None = None) -> Dataset:
    def group(i: int) -> str | None:
        return None if groups is None else f"g{i % groups}"

    kept = [sample(f"good/{i:04d}.png", group=group(i)) for i in range(good)]
    return dataset("folder", kept + [sample(f"dent/{i:04d}.png", "dent", f"d{i}") for i in range(bad)])


def names(side: tuple[Sample, ...]) -> set[str]:
    return {s.name for s in side}


def check(split: Split, whole: Dataset) -> None:
    """What holds of every split."""
    sides = [names(getattr(split, side)) for side in ("train", "validation", "test", "dropped")]
    assert sum(map(len, sides)) == len(whole.samples)
    assert set.union(*sides) == {s.name for s in whole.samples}
    assert all(s.is_good for s in (*split.train, *split.validation))
    assert split.train
    assert split.validation
    assert split.test


@settings(max_examples=60)
@given(
    good=st.integers(3, 60),
    bad=st.integers(0, 8),
    test=st.floats(0.01, 0.99),
    validation=st.floats(0.01, 0.99),
    seed=st.integers(0, 10**6),
)
def test_a_random_split_places_every_image_once(
    good: int, bad: int, test: float, validation: float, seed: int
) -> None:
    whole = own(good, bad)
    config = DataConfig(test_fraction=test, validation_fraction=validation, seed=seed)
    split = make_split(whole, config)
    check(split, whole)
    assert (split.name, split.grouped) == ("random", False)
    assert {s.name for s in whole.samples if not s.is_good} <= names(split.test)
    shuffled = Dataset(whole.name, whole.layout, whole.root, whole.samples[::-1])
    assert make_split(shuffled, config).digest == split.digest


@settings(max_examples=60)
@given(
    parts=st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=4, max_size=25),
    seed=st.integers(0, 10**6),
)
def test_a_group_stands_on_one_side_and_one_with_a_defect_is_tested(
    parts: list[tuple[int, bool]], seed: int
) -> None:
    samples = [
        sample(f"{g}-{i}.png", "crack" if bad and i == 0 else GOOD, f"tile-{g}")
        for g, (size, bad) in enumerate([*parts, (2, False), (1, False), (3, False)])
        for i in range(size)
    ]
    whole = dataset("mtd", samples)
    split = make_split(whole, DataConfig(seed=seed))
    check(split, whole)
    assert (split.name, split.grouped) == ("group", True)
    groups = [{s.group for s in getattr(split, side)} for side in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_the_shares_are_those_asked_for() -> None:
    split = make_split(own(100, 7), DataConfig(test_fraction=0.3, validation_fraction=0.1))
    assert [len(split.train), len(split.validation), len(split.test)] == [63, 7, 37]


@pytest.mark.parametrize(("good", "sides"), [(3, [1, 1, 1]), (6, [3, 2, 1]), (8, [4, 2, 2])])
def test_of_few_images_two_validate_since_one_score_says_nothing_of_others(
    good: int, sides: list[int]
) -> None:
    split = make_split(own(good), DataConfig())
    assert [len(split.train), len(split.validation), len(split.test)] == sides


def test_of_few_groups_two_validate() -> None:
    split = make_split(own(60, groups=6), DataConfig(split="group"))
    assert len({s.group for s in split.validation}) >= 2


def test_kinds_and_groups_are_text_whatever_bytes_name_them() -> None:
    of_bytes = sample("a.png", "gro\udcdf", "St\udcfcck 1")
    assert (of_bytes.defect, of_bytes.group) == ("gro\\xdf", "St\\xfcck 1")
    assert sample("a.png", "half \ud83d").defect == "half \\ud83d"  # as JSON lines may hold it
    assert replace(of_bytes, name="b.png").defect == of_bytes.defect


def test_a_split_is_the_same_on_every_machine() -> None:
    split = make_split(own(10), DataConfig(seed=3))
    assert split.digest == "b1d9fbfc83b7f0e5"


def test_another_seed_is_another_split() -> None:
    assert len({make_split(own(40), DataConfig(seed=seed)).digest for seed in range(5)}) == 5


def test_limit_train_takes_from_train_alone_and_smaller_limits_are_nested() -> None:
    full = make_split(own(50, 5), DataConfig())
    sixteen = make_split(own(50, 5), DataConfig(limit_train=16))
    four = make_split(own(50, 5), DataConfig(limit_train=4))
    check(sixteen, own(50, 5))
    assert len(sixteen.train) == 16
    assert names(four.train) < names(sixteen.train) < names(full.train)
    assert sixteen.validation == full.validation
    assert sixteen.test == full.test
    assert make_split(own(50, 5), DataConfig(limit_train=500)) == full


def test_legacy_draws_from_the_good_images_alone() -> None:
    whole = own(100, 9, groups=20)
    whole = Dataset("mtd", "mtd", whole.root, whole.samples)
    split = make_split(whole, DataConfig(split="legacy"))
    check(split, whole)
    assert (split.name, split.grouped) == ("legacy", False)
    assert sum(s.is_good for s in split.test) == 20


def official(good: int, tested: bool = True) -> Dataset:
    samples = [sample(f"train/good/{i}.png", subset="train") for i in range(good)]
    samples.append(sample("train/defect/0.png", "defect", subset="train"))
    if tested:
        samples += [sample("test/good/0.png", subset="test"), sample("test/cut/0.png", "cut", subset="test")]
    return dataset("mvtec", samples)


def test_official_tests_what_the_data_set_says_and_drops_defective_training_images() -> None:
    split = make_split(official(10), DataConfig())
    check(split, official(10))
    assert split.name == "official"
    assert names(split.test) == {"test/good/0.png", "test/cut/0.png"}
    assert names(split.dropped) == {"train/defect/0.png"}
    assert (len(split.train), len(split.validation)) == (8, 2)


def test_normals_only_are_allowed() -> None:
    split = make_split(own(10), DataConfig())
    assert all(s.is_good for s in split.test)


@pytest.mark.parametrize("whole", [own(1), own(2), own(2, 5), own(9, 3, groups=2), official(1)])
def test_too_few_to_hold_any_out(whole: Dataset) -> None:
    config = DataConfig(split="auto") if whole.layout == "mvtec" else DataConfig()
    with pytest.raises(DataError, match="needed to hold some out") as error:
        make_split(whole, config)
    assert "add images" in str(error.value.fix)


def test_an_official_split_without_test_images() -> None:
    with pytest.raises(DataError, match="no test images"):
        make_split(official(5, tested=False), DataConfig())


@pytest.mark.parametrize(
    ("whole", "split", "fits"),
    [
        (own(9), "legacy", "auto, random"),
        (own(9), "group", "group_by"),
        (official(9), "random", "auto, official"),
        (dataset("mtd", [sample(f"{i}.jpg", group=f"t{i}") for i in range(9)]), "official", "group, legacy"),
    ],
)
def test_a_split_that_does_not_fit_says_which_do(whole: Dataset, split: str, fits: str) -> None:
    with pytest.raises(ConfigError, match="does not fit") as error:
        make_split(whole, DataConfig(split=split))
    assert fits in str(error.value.fix)


def test_auto_takes_groups_where_they_are_known() -> None:
    assert make_split(own(30, 2, groups=10), DataConfig()).name == "group"
    assert fitting_splits(own(30)) == ("random",)

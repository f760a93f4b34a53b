"""Known defects: who they are, and what leaves the test set for them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nfbmr.config import FEWEST_KNOWN, Config, DataConfig
from nfbmr.data.audit import audit_split
from nfbmr.data.known import draw
from nfbmr.data.layouts import load_dataset
from nfbmr.data.samples import GOOD, Sample, Split
from nfbmr.data.splits import make_split
from nfbmr.errors import ConfigError, DataError
from nfbmr.layers import set_layer
from nfbmr.resolve import dump_yaml, load_config, resolve


def sample(name: str, defect: str = GOOD, group: str | None = None) -> Sample:
    return Sample(Path("/data") / name, name, defect, None, group)


def images(folder: Path, count: int, seed: int) -> list[Path]:
    """Pictures of noise, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = random.Random(seed)
    paths = [folder / f"{i:02d}.png" for i in range(count)]
    for path in paths:
        Image.frombytes("L", (8, 8), draws.randbytes(64)).save(path)
    return paths


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of one's own: 20 good parts, 16 cracks with masks, 8 dents."""
    root = tmp_path / "parts"
    images(root / "good", 20, 1)
    images(root / "dent", 8, 2)
    images(root / "crack", 16, 3)
    images(root / "ground_truth" / "crack", 16, 4)
    return root


def split_of(root: Path, **settings: object) -> Split:
    config = DataConfig.model_validate({"path": root, **settings})
    return make_split(load_dataset(root, group_by=config.group_by), config)


def names(samples: tuple[Sample, ...]) -> set[str]:
    return {s.name for s in samples}


def test_a_number_of_them_leaves_the_test_set_by_kind(parts: Path) -> None:
    plain, split = split_of(parts), split_of(parts, known_defects=12)
    assert Counter(s.defect for s in split.known) == {"crack": 8, "dent": 4}
    assert names(split.known) | names(split.test) == names(plain.test)
    assert not names(split.known) & names(split.test)
    assert (split.train, split.validation) == (plain.train, plain.validation)
    assert split.held_out == (*split.validation, *split.known)
    assert all(s.masks for s in split.known if s.defect == "crack")
    assert split.digest != plain.digest
    assert split.as_json()["known"] == [s.name for s in split.known]


def test_a_share_of_them_is_drawn_by_the_seed_alone(parts: Path) -> None:
    third = split_of(parts, known_defects=1 / 3)
    assert len(third.known) == 8
    assert split_of(parts, known_defects=8) == third
    others = {split_of(parts, known_defects=8, seed=seed).known for seed in range(5)}
    assert len(others) > 1


def test_a_split_without_any_is_what_it_was(parts: Path) -> None:
    split = split_of(parts)
    assert split.known == ()
    assert split.held_out == split.validation


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 10**6),
)
def test_every_kind_gives_its_share_to_within_one(kinds: list[int], share: float, seed: int) -> None:
    test = [sample(f"{k}/{i:03d}", f"kind {k}") for k, number in enumerate(kinds) for i in range(number)]
    wanted = round(share * len(test))
    if not FEWEST_KNOWN <= wanted < len(test):
        with pytest.raises(DataError, match="cannot be set aside"):
            draw(test, share, seed)
        return
    drawn = draw(test, share, seed)
    assert len(set(drawn)) == wanted
    have = Counter(s.defect for s in drawn)
    for k, number in enumerate(kinds):
        assert abs(have[f"kind {k}"] - wanted / len(test) * number) < 1 + 1e-9
    assert draw(test[::-1], share, seed) == drawn


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=12, max_size=30), seed=st.integers(0, 10**6))
def test_a_part_is_never_on_both_sides(sizes: list[int], seed: int) -> None:
    test = tuple(
        sample(f"{g}/{i}", "crack" if i == 0 or g % 2 else "dent", f"part {g}")
        for g, size in enumerate(sizes)
        for i in range(size)
    )
    drawn = draw(test, 8, seed)
    chosen = {s.group for s in drawn}
    assert len(drawn) >= 8
    assert {s for s in test if s.group in chosen} == set(drawn)
    assert len(chosen) < len(sizes)


def test_good_pictures_of_a_known_part_are_not_tested_either(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    for i, path in enumerate(images(root / "crack", 20, 1)):
        path.rename(path.with_name(f"part-{i}-bad.png"))
    for i, path in enumerate(images(root / "good", 40, 2)):
        path.rename(path.with_name(f"part-{i}-good.png"))
    split = split_of(root, group_by=r"part-(\d+)-", split="group", known_defects=8)
    known = {s.group for s in split.known}
    assert len(known) == 8
    assert not known & {s.group for s in split.test}
    assert {s.group for s in split.dropped} == known
    assert all(s.is_good for s in split.dropped)


def test_a_folder_of_them_brings_kinds_and_masks(parts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    images(folder, 3, 10)
    images(folder / "scratch", 6, 11)
    images(folder / "ground_truth" / "scratch", 6, 12)
    plain, split = split_of(parts), split_of(parts, known_defects=folder)
    assert Counter(s.defect for s in split.known) == {"scratch": 6, "seen": 3}
    assert sum(bool(s.masks) for s in split.known) == 6
    assert all(s.name.startswith("known/") for s in split.known)
    assert split.test == plain.test


def test_images_of_the_data_set_in_the_folder_leave_the_test_set(parts: Path) -> None:
    split = split_of(parts, known_defects=parts / "dent")
    assert names(split.known) == {f"dent/{i:02d}.png" for i in range(8)}
    assert {s.defect for s in split.test} == {GOOD, "crack"}


def test_a_copy_of_a_known_defect_is_not_tested(parts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for path in sorted((parts / "crack").glob("*.png"))[:8]:
        shutil.copy(path, folder / f"copy of {path.name}")
    split = split_of(parts, known_defects=folder)
    assert names(split.dropped) == {f"crack/{i:02d}.png" for i in range(8)}
    assert not names(split.dropped) & names(split.test)


def test_pngs_beside_jpegs_are_their_masks(parts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "MT_Break"
    for path in images(folder, 9, 20):
        Image.open(path).save(path.with_suffix(".jpg"))
        Image.new("L", (32, 32), 255).save(path)
    split = split_of(parts, known_defects=folder)
    assert [s.masks for s in split.known] == [(s.path.with_suffix(".png"),) for s in split.known]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (24, "24 of 24 defective test images cannot be set aside"),
        (0.1, "choosing takes 8 known defects at least"),
        (100, "100 of 24"),
    ],
)
def test_too_few_or_too_many_are_refused(parts: Path, asked: float, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        split_of(parts, known_defects=asked)
    assert caught.value.where == "data.known_defects"
    assert "folder" in str(caught.value.fix)


def test_folders_that_do_not_do_are_refused(parts: Path, tmp_path: Path) -> None:
    images(tmp_path / "few", 7, 30)
    with pytest.raises(DataError, match="7 known defects, and 8 at least"):
        split_of(parts, known_defects=tmp_path / "few")
    with pytest.raises(DataError, match="no such folder"):
        split_of(parts, known_defects=tmp_path / "none")
    with pytest.raises(DataError, match="good part"):
        split_of(parts, known_defects=parts)
    images(tmp_path / "mixed" / "ok", 2, 31)
    images(tmp_path / "mixed" / "dent", 8, 32)
    with pytest.raises(DataError, match="2 good parts among the known defects"):
        split_of(parts, known_defects=tmp_path / "mixed")
    images(tmp_path / "unnamed", 8, 33)
    with pytest.raises(DataError, match="names no part"):
        split_of(parts, group_by=r"^((?:good|crack|dent)/\d+)", known_defects=tmp_path / "unnamed")


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), ("0.25", 0.25), ("seen/defects", Path("seen/defects")), ("null", None)],
)
def test_a_number_a_share_or_a_folder(text: str, value: object, tmp_path: Path) -> None:
    config = resolve([set_layer([f"data.known_defects={text}"])]).config
    assert config.data.known_defects == value
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path) == config
    assert DataConfig(known_defects=None if text == "null" else text) == config.data


@pytest.mark.parametrize("text", ["7", "0", "1.5", "-0.2", "true", "[a, b]"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.known_defects"):
        resolve([set_layer([f"data.known_defects={text}"])])


def test_choosing_on_the_test_set_takes_no_known_defects() -> None:
    with pytest.raises(ValueError, match=r"leave data\.known_defects out"):
        Config.model_validate({"selection": {"on": "test"}, "data": {"known_defects": 8}})


def test_an_audit_takes_them_for_validation(parts: Path) -> None:
    """A test image with the bytes of a known one: the split drops it; where it did not, it is a leak."""
    split = split_of(parts, known_defects=8)
    assert not any(match.same_bytes for match in audit_split(split).near_duplicates)
    twin = split.known[0].path.with_name("again.png")
    shutil.copy(split.known[0].path, twin)
    leaking = Split(
        split.name,
        split.seed,
        split.grouped,
        split.train,
        split.validation,
        (*split.test, Sample(twin, "again.png", "crack")),
        known=split.known,
    )
    assert [m.train for m in audit_split(leaking).near_duplicates if m.same_bytes] == [split.known[0]]

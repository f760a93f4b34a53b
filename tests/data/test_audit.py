"""Twins are found, strangers are not, and what the audit is not sure of is no leak."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.data.audit import audit_split
from nfbmr.data.images import load_small
from nfbmr.data.near_duplicates import draw_matches
from nfbmr.data.samples import Sample, Split
from nfbmr.data.thumbnails import keep, prune
from tests.data.audit_pictures import (
    COPIES,
    KINDS,
    at_any_angle,
    cell,
    gear,
    grid,
    save,
    shared_shape,
    split_of,
    surface,
)


@pytest.fixture
def strangers(tmp_path: Path) -> list[Sample]:
    return [save(tmp_path / f"train-{i}.png", surface(i)) for i in range(12)]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 0.45 * x,
        lambda x: 1.7 * x - 0.2,
        lambda x: x * np.linspace(0.4, 1.2, 160),
        lambda x: x[6:, :-5],
        lambda x: x[9:-1, 4:],
        lambda x: x + np.random.default_rng(0).normal(0, 0.02, x.shape),
    ],
    ids=["darker", "brighter", "shading", "crop", "more crop", "noise"],
)
def test_a_twin_is_found(tmp_path: Path, strangers: list[Sample], change: object) -> None:
    twin = save(tmp_path / "test.png", change(surface(5)))  # type: ignore[operator]
    audit = audit_split(split_of(strangers, [twin]))
    assert [m.train.name for m in audit.near_duplicates] == ["train-5.png"]
    assert audit.leaks
    assert audit.share() == 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_strangers_are_not_twins(tmp_path: Path, kind: object) -> None:
    samples = [save(tmp_path / f"{i}.png", kind(i)) for i in range(24)]  # type: ignore[operator]
    audit = audit_split(split_of(samples[:14], samples[14:]))
    assert not audit.leaks
    assert audit.finding is None
    assert len(audit.nearest) == 10
    assert audit.nearest[0].similarity < audit.threshold - 0.05


@pytest.mark.parametrize("kind", [surface, shared_shape, at_any_angle, cell, grid, gear])
def test_made_copies_are_found_and_strangers_beside_them_are_not(tmp_path: Path, kind: object) -> None:
    train = [save(tmp_path / f"train-{i}.png", kind(i)) for i in range(16)]  # type: ignore[operator]
    copies = [
        save(tmp_path / f"{number}.png", change(kind(number).clip(0, 1)))  # type: ignore[operator]
        for number, change in enumerate(COPIES.values())
    ]
    others = [save(tmp_path / f"other-{i}.png", kind(100 + i)) for i in range(8)]  # type: ignore[operator]
    audit = audit_split(split_of(train, [*copies, *others]))
    right = {m.test.name for m in audit.near_duplicates if m.train.name == f"train-{m.test.path.stem}.png"}
    missed = [name for number, name in enumerate(COPIES) if f"{number}.png" not in right]
    assert not missed
    assert len(audit.near_duplicates) == len(copies)


def test_what_it_is_not_sure_of_is_no_leak(tmp_path: Path, strangers: list[Sample]) -> None:
    """Between the same and strangers, noise makes a pair that is similar, and not similar enough."""
    rng = np.random.default_rng(0)
    verdicts = {}
    for noise in (0.0, 0.2, 0.3, 0.4, 0.5, 0.8):
        test = save(tmp_path / "test.png", surface(5) + rng.normal(0, noise, (160, 160)))
        audit = audit_split(split_of(strangers, [test]))
        assert audit.leaks == bool(audit.near_duplicates)
        assert (audit.doubt is None) == (not audit.unsure)
        assert len(audit.as_json()["unsure"]) == len(audit.unsure)  # type: ignore[arg-type]
        verdicts[noise] = audit.nearest[0].verdict
        if audit.unsure:
            assert "not sure of 1 pair" in audit.render()
    assert verdicts[0.0] == "twin"
    assert verdicts[0.8] == "different"
    assert "unsure" in verdicts.values()


def test_identical_files_on_one_side_are_listed_and_are_no_leak(
    tmp_path: Path, strangers: list[Sample]
) -> None:
    copy = tmp_path / "again.png"
    copy.write_bytes(strangers[1].path.read_bytes())
    known = [*strangers[:10], Sample(copy, "again.png")]
    audit = audit_split(split_of(known, strangers[10:]))
    assert audit.identical == (("again.png", "train-1.png"),)
    assert audit.copies == 1
    assert not audit.leaks
    assert "keep one of each" in audit.render()


def test_nothing_is_decoded_or_compared_twice(
    tmp_path: Path, strangers: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    split = split_of(strangers[:8], strangers[8:])
    first = audit_split(split)
    kept = sorted((tmp_path / "cache").glob("*/*/*"))
    written = [file.stat().st_ino for file in kept]
    assert len(kept) == 13
    assert audit_split(split).as_json() == first.as_json()
    assert [file.stat().st_ino for file in kept] == written
    for file in kept:
        file.write_bytes(file.read_bytes()[:40])
    assert audit_split(split).as_json() == first.as_json()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, strangers: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "file"))
    assert not audit_split(split_of(strangers[:8], strangers[8:])).leaks


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    for i in range(10):
        keep(tmp_path / "a" / f"{i}", bytes(100))
        os.utime(tmp_path / "a" / f"{i}", (i, i))
    prune(tmp_path, 1000)
    assert len(list(tmp_path.glob("a/*"))) == 10
    prune(tmp_path, 900)
    assert sorted(p.name for p in tmp_path.glob("a/*")) == ["3", "4", "5", "6", "7", "8", "9"]


@pytest.mark.parametrize("size", [(500, 300), (1030, 700), (256, 256), (40, 9)])
def test_a_small_picture_is_the_same_whatever_the_format(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.fromarray((surface(1) * 255).clip(0, 255).astype(np.uint8)).resize(size)
    for name in ("a.png", "a.jpg"):
        image.save(tmp_path / name, quality=98)
    png, jpg = (np.asarray(load_small(tmp_path / name, 256), float) for name in ("a.png", "a.jpg"))
    assert png.shape == jpg.shape
    assert max(png.shape) <= 256
    assert np.abs(png - jpg).mean() < 2


def test_a_twin_stands_out_among_parts_of_one_outline(tmp_path: Path) -> None:
    train = [save(tmp_path / f"train-{i}.png", shared_shape(i)) for i in range(14)]
    test = [save(tmp_path / f"test-{i}.png", 0.8 * shared_shape(i)) for i in (3, 50, 51, 52)]
    audit = audit_split(split_of(train, test))
    assert [(m.test.name, m.train.name) for m in audit.near_duplicates] == [("test-3.png", "train-3.png")]


def test_identical_files_are_told_apart_from_twins(tmp_path: Path, strangers: list[Sample]) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(strangers[2].path.read_bytes())
    audit = audit_split(split_of(strangers, [Sample(copy, "copy.png", "dent")]))
    assert [(m.train.name, m.same_bytes) for m in audit.near_duplicates] == [("train-2.png", True)]
    assert audit.share(good=False) == 1
    assert audit.share(good=True) == 0


def test_groups_on_both_sides_leak_without_any_twin(strangers: list[Sample]) -> None:
    grouped = [Sample(s.path, s.name, group=f"g{i % 11}") for i, s in enumerate(strangers)]
    audit = audit_split(split_of(grouped[:11], grouped[11:]))
    assert audit.shared_groups == ("g0",)
    assert not audit.near_duplicates
    assert audit.finding is not None
    assert "1 group stands on both sides" in audit.finding


def test_flat_and_broken_images_are_survived(tmp_path: Path, strangers: list[Sample]) -> None:
    flat = [save(tmp_path / f"flat-{i}.png", np.full((64, 64), 0.5 + 0.1 * i)) for i in range(2)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    audit = audit_split(split_of([*strangers, flat[0]], [flat[1], Sample(broken, "broken.png")]))
    assert not audit.leaks
    assert list(audit.unread) == ["broken.png"]
    assert audit.tested == {"good": 1}
    assert json.loads(json.dumps(audit.as_json()))["unread"] == audit.unread
    assert "could not be read" in audit.render()


def test_nothing_to_compare() -> None:
    assert not audit_split(Split("random", 0, False, (), (), ())).leaks


def test_pairs_are_drawn(tmp_path: Path, strangers: list[Sample]) -> None:
    nearest = audit_split(split_of(strangers[:8], strangers[8:])).nearest
    drawn = draw_matches(nearest, tmp_path / "pairs.png")
    with Image.open(drawn) as image:
        assert image.width > image.height > 100

"""Twins are found, strangers are not; on the real tiles, `legacy` leaks and `group` does not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from nfbmr.cli.data import data
from nfbmr.config import DataConfig
from nfbmr.data.audit import Audit, audit_split
from nfbmr.data.images import load_small
from nfbmr.data.layouts import load_dataset
from nfbmr.data.near_duplicates import draw_matches
from nfbmr.data.samples import Sample, Split
from nfbmr.data.splits import make_split
from nfbmr.data.thumbnails import keep, prune
from nfbmr.errors import ConfigError, DataError

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


def surface(seed: int, side: int = 160) -> NDArray[np.float64]:
    """A surface with structure at several scales, mean 0.5."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    for cells in (10, 20, 40, 80):
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        image += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return 0.5 + 0.08 * image


def save(path: Path, values: NDArray[np.float64]) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8)).save(path)
    return Sample(path, path.name)


def split_of(train: list[Sample], test: list[Sample]) -> Split:
    return Split("random", 0, False, tuple(train[:-1]), tuple(train[-1:]), tuple(test))


@pytest.fixture
def strangers(tmp_path: Path) -> list[Sample]:
    return [save(tmp_path / f"train-{i}.png", surface(i)) for i in range(12)]


def shared_shape(seed: int) -> NDArray[np.float64]:
    """Parts with the same outline, each with a surface of its own."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    outline: NDArray[np.float64] = np.where(np.hypot(x, y) < 0.7, 0.7, 0.1)
    return outline + 0.3 * (surface(seed) - 0.5)


def grid(seed: int) -> NDArray[np.float64]:
    """The same regular mesh everywhere, at another phase, under noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :160] + rng.uniform(0, 9, 2)[:, None, None]
    return 0.5 + 0.2 * np.sin(2 * np.pi * x / 9) * np.sin(2 * np.pi * y / 9) + rng.normal(0, 0.03, (160, 160))


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


def at_any_angle(seed: int) -> NDArray[np.float64]:
    """A part with a hole and a slot on a plain ground, lying as it fell, with grain of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    t = rng.uniform(0, 2 * np.pi)
    u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
    body = np.hypot(u, v) < 0.6 + 0.06 * np.cos(6 * np.arctan2(v, u))
    cut = (np.hypot(u - 0.25, v) < 0.15) | ((np.abs(u + 0.25) < 0.15) & (np.abs(v) < 0.04))
    return 0.2 + 0.4 * (body & ~cut) + 0.15 * body * (surface(seed) - 0.5) + rng.normal(0, 0.012, x.shape)


def board(seed: int) -> NDArray[np.float64]:
    """The same print in black and white, its edges a little ragged."""
    rng = np.random.default_rng(seed)
    tracks = surface(99) + 0.2 * (surface(seed) - 0.5)
    return np.where(tracks + rng.normal(0, 0.004, tracks.shape) > 0.5, 1.0, 0.0)


def cell(seed: int) -> NDArray[np.float64]:
    """Three bars at the same place everywhere and cut corners; faint streaks of its own, noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    bars = np.any([np.abs(y - b) < 0.02 for b in (-0.6, 0, 0.6)], axis=0)
    shade = 0.05 * np.cos(9 * y) * rng.uniform(0.5, 1.5) + 0.15 * (surface(seed) - 0.5)
    return np.where(np.abs(x) + np.abs(y) > 1.8, 0.2, 0.6 + shade - 0.3 * bars) + rng.normal(0, 0.02, x.shape)


def gear(seed: int) -> NDArray[np.float64]:
    """Mostly contours, the same on every part, at one of a few angles; grain of its own, a quiet ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    t = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.01)
    u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    body = r < 0.8 + 0.08 * np.sign(np.sin(24 * angle))
    holes = np.min([np.hypot(u - 0.45 * np.cos(a), v - 0.45 * np.sin(a)) for a in range(0, 6)], axis=0) < 0.1
    rings = (np.abs(r - 0.62) < 0.015) | (np.abs(r - 0.25) < 0.015) | ((r > 0.7) & (np.abs(v) < 0.03))
    grain = 0.05 * (surface(seed, 512) - 0.5) + rng.normal(0, 0.01, x.shape)
    return 0.15 + (0.5 - 0.2 * rings + grain) * (body & ~holes) + rng.normal(0, 0.004, x.shape)


KINDS = {
    "gears": gear,
    "surfaces": surface,
    "one outline": shared_shape,
    "a mesh": grid,
    "any angle": at_any_angle,
    "cells": cell,
    "boards": board,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_strangers_are_not_twins(tmp_path: Path, kind: object) -> None:
    samples = [save(tmp_path / f"{i}.png", kind(i)) for i in range(24)]  # type: ignore[operator]
    audit = audit_split(split_of(samples[:14], samples[14:]))
    assert not audit.leaks
    assert audit.finding is None
    assert len(audit.nearest) == 10
    assert audit.nearest[0].similarity < audit.threshold - 0.05


def encoded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    file = BytesIO()
    Image.fromarray((x.clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file)) / 255


def turned(x: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    image = Image.fromarray(x.astype(np.float32)).rotate(degrees, Image.Resampling.BICUBIC)
    edge = round(0.057 * len(x))
    return np.asarray(image, np.float64)[edge:-edge, edge:-edge]


COPIES = {
    "encoded": encoded,
    "cropped": lambda x: x[3:-8, 7:-2],
    "by 90": np.rot90,
    "by 180": lambda x: np.rot90(x, 2),
    "by 270": lambda x: np.rot90(x, 3),
    "by 4": lambda x: turned(x, 4),
    "by -3": lambda x: turned(x, -3),
    "mirrored": lambda x: x[:, ::-1],
    "upside down": lambda x: x[::-1],
    "relit": lambda x: 0.6 * x**1.2 * np.linspace(0.8, 1.2, len(x))[:, None],
    "several": lambda x: encoded(0.7 * np.rot90(x[:, ::-1])),
}


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


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight parts, each photographed twice."""
    for i in range(16):
        save(tmp_path / f"parts/good/p{i // 2}_{i % 2}.png", (1 - 0.3 * (i % 2)) * surface(i // 2))
    return tmp_path / "parts"


def invoke(*arguments: str) -> object:
    result = CliRunner().invoke(data, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_audit_shows_the_leak_of_a_random_split_and_that_groups_mend_it(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pairs.png"
    leaky = invoke("audit", str(folder), "--split", "random", "--pictures", str(pictures))
    assert leaky["leaks"] is True  # type: ignore[index]
    assert pictures.stat().st_size > 0
    mended = invoke("audit", str(folder), "--group-by", r"(p\d+)_")
    assert mended["leaks"] is False  # type: ignore[index]
    assert mended["datasets"][0]["split"] == "group"  # type: ignore[index]


def test_as_many_twins_are_drawn_as_are_asked_for(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pairs.png"
    for pairs, drawn in ((1, 1), (2, 2)):
        arguments = ("--split", "random", "--pictures", str(pictures), "--twins", "--pairs", str(pairs))
        assert len(invoke("audit", str(folder), *arguments)["datasets"][0]["twins"]) > 1  # type: ignore[index]
        with Image.open(pictures) as image:
            columns = np.array_split(np.asarray(image.convert("L"))[30:], 4, axis=1)
        assert sum(bool((column < 250).mean() > 0.5) for column in columns) == drawn


def test_inspect_lists_every_category(tmp_path: Path) -> None:
    for category in ("bolt", "nut"):
        for i in range(3):
            save(tmp_path / category / f"train/good/{i}.png", surface(i, 32))
        save(tmp_path / category / "test/good/0.png", surface(9, 32))
    found = invoke("inspect", str(tmp_path))
    assert [d["name"] for d in found["datasets"]] == ["mvtec/bolt", "mvtec/nut"]  # type: ignore[index]
    assert found["problems"] == 0  # type: ignore[index]


def test_text_for_people_survives_names_that_are_not_text(tmp_path: Path) -> None:
    root = tmp_path / "with\nnewline"
    save(root / "good/磁瓦 'x'.png", surface(0, 32))
    result = CliRunner().invoke(data, ["inspect", str(root)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "too few normal images" in result.stdout


def test_bad_input_is_an_error_of_ours(tmp_path: Path, folder: Path) -> None:
    for command in ("inspect", "audit"):
        with pytest.raises(DataError):
            CliRunner().invoke(data, [command, str(tmp_path / "nowhere")], catch_exceptions=False)
    with pytest.raises(ConfigError, match="no split"):
        CliRunner().invoke(data, ["audit", str(folder), "--split", "fair"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="does not fit"):
        CliRunner().invoke(data, ["audit", str(folder), "--split", "legacy"], catch_exceptions=False)


def test_synthesize_makes_a_set_that_does_not_leak(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    made = invoke(
        "synthesize", str(out), "--class", "knurled", "--train", "8", "--test-good", "3",
        "--test-defective", "5", "--size", "128",
    )  # fmt: skip
    assert made["counts"]["knurled"]["good"] == 11  # type: ignore[index]
    assert invoke("inspect", str(out))["problems"] == 0  # type: ignore[index]
    assert invoke("audit", str(out))["leaks"] is False  # type: ignore[index]


# -- the real tiles ---------------------------------------------------------------------------------


def audit_of(name: str, *, only_good: bool = False) -> Audit:
    split = make_split(load_dataset(MTD), DataConfig(split=name))
    return audit_split(replace(split, test=tuple(s for s in split.test if s.is_good or not only_good)))


needs_mtd = pytest.mark.skipif(
    not MTD.is_dir(), reason="the Magnetic Tile images are not beside the checkout"
)


@pytest.mark.mtd
@pytest.mark.slow
@needs_mtd
def test_the_legacy_split_trains_on_nearly_every_good_test_tile() -> None:
    audit = audit_of("legacy", only_good=True)
    assert audit.leaks
    assert audit.share() > 0.98
    assert len(audit.shared_groups) > 100


@pytest.mark.mtd
@pytest.mark.slow
@needs_mtd
def test_the_group_split_has_no_twin_across_by_a_wide_margin() -> None:
    audit = audit_of("group")
    assert not audit.leaks
    assert len(audit.nearest) > 500
    assert audit.nearest[0].similarity < audit.threshold - 0.1


# -- made copies of real images ----------------------------------------------------------------------

REAL = {"mtd": None, "elpv": None, "deeppcb 13000": "13000", "deeppcb 00041": "00041"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_copies_of_real_images_are_found_among_parts_of_one_make(tmp_path: Path, name: str) -> None:
    folder = MTD.parent / name.split(maxsplit=1)[0]
    if not folder.is_dir():
        pytest.skip("the images are not beside the checkout")
    split = make_split(load_dataset(folder, category=REAL[name]), DataConfig())
    train = list(split.train[:110])
    strangers = [s for s in split.test if s.is_good][:50]
    copies = []
    for number, change in enumerate([*COPIES.values()] * 2):
        grey = np.asarray(Image.open(train[3 * number].path).convert("L")) / 255
        copies.append(save(tmp_path / f"copy-{number}.png", change(grey)))
    audit = audit_split(split_of(train, [*strangers, *copies]))
    alarms = [m for m in audit.near_duplicates if not m.test.name.startswith("copy-")]
    assert not alarms
    assert len(audit.near_duplicates) >= 0.9 * len(copies)

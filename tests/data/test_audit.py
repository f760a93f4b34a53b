"""Twins are found, strangers are not; on the real tiles, `legacy` leaks and `group` does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from nfbmr.cli.data import data
from nfbmr.config import DataConfig
from nfbmr.data.audit import Audit, audit_split
from nfbmr.data.layouts import load_dataset
from nfbmr.data.samples import Sample, Split
from nfbmr.data.splits import make_split
from nfbmr.data.twins import draw_matches
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
    assert [m.train.name for m in audit.twins] == ["train-5.png"]
    assert audit.leaks
    assert audit.share() == 1


@pytest.mark.parametrize("kind", [surface, shared_shape, grid], ids=["surfaces", "one outline", "a mesh"])
def test_strangers_are_not_twins(tmp_path: Path, kind: object) -> None:
    samples = [save(tmp_path / f"{i}.png", kind(i)) for i in range(24)]  # type: ignore[operator]
    audit = audit_split(split_of(samples[:14], samples[14:]))
    assert not audit.leaks
    assert audit.finding is None
    assert len(audit.nearest) == 10
    assert audit.nearest[0].similarity < audit.threshold - 0.05


def test_a_twin_stands_out_among_parts_of_one_outline(tmp_path: Path) -> None:
    train = [save(tmp_path / f"train-{i}.png", shared_shape(i)) for i in range(14)]
    test = [save(tmp_path / f"test-{i}.png", 0.8 * shared_shape(i)) for i in (3, 50, 51, 52)]
    audit = audit_split(split_of(train, test))
    assert [(m.test.name, m.train.name) for m in audit.twins] == [("test-3.png", "train-3.png")]


def test_identical_files_are_told_apart_from_twins(tmp_path: Path, strangers: list[Sample]) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(strangers[2].path.read_bytes())
    audit = audit_split(split_of(strangers, [Sample(copy, "copy.png", "dent")]))
    assert [(m.train.name, m.same_bytes) for m in audit.twins] == [("train-2.png", True)]
    assert audit.share(good=False) == 1
    assert audit.share(good=True) == 0


def test_groups_on_both_sides_leak_without_any_twin(strangers: list[Sample]) -> None:
    grouped = [Sample(s.path, s.name, group=f"g{i % 11}") for i, s in enumerate(strangers)]
    audit = audit_split(split_of(grouped[:11], grouped[11:]))
    assert audit.shared_groups == ("g0",)
    assert not audit.twins
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

"""Extraction: every picture once, whoever asks, and nothing lost when something goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, ViewOp, picture_of, prepare
from nfbmr.data.samples import Sample
from nfbmr.errors import ImageError, Interrupted, OutputError
from nfbmr.features import choosing
from nfbmr.features.backbone import load_backbone
from nfbmr.features.extraction import extract
from nfbmr.features.maintenance import list_spaces, verify
from nfbmr.features.shards import shard_paths
from nfbmr.features.store import FeatureStore

CONFIG = FeatureConfig(
    backbone="test_efficientnet", weights="random", taps=(1, "blocks.2"), size=64, compute="fp32", batch=4
)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., list[Picture]]:
    """Writes images with awkward names; the same `start` gives the same ones."""

    def make(count: int, start: int = 0) -> list[Picture]:
        folder = tmp_path / "images 'quoted'"
        folder.mkdir(exist_ok=True)
        pictures = []
        for i in range(start, start + count):
            path = folder / f"bild\n{i} ü.png"
            pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            pictures.append(picture_of(Sample(path, path.name)))
        return pictures

    return make


def broken(path: Path) -> Picture:
    """A picture whose file is found to be none only when it is decoded."""
    path.write_text("not an image")
    return Picture(path, "00" * 32)


def test_features_are_what_the_backbone_gives_for_the_prepared_picture(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    pictures = images(9)
    got = extract(pictures, CONFIG, store)
    assert (got.computed, got.reused, got.failed) == (9, 0, {})
    backbone = load_backbone(CONFIG)
    assert got.weights_digest == backbone.weights_digest
    assert tuple(table.shape for table in got.tables) == tuple(backbone.shapes(64).values())
    x = torch.stack(
        [
            torch.as_tensor(prepare(p, size=64, photometric="none", mean=backbone.mean, std=backbone.std))
            for p in pictures
        ]
    )
    with torch.inference_mode():
        for table, y in zip(got.tables, backbone(x), strict=True):
            assert table.keys == tuple(p.key for p in pictures)
            torch.testing.assert_close(table.gather(range(9)).float(), y, rtol=2e-3, atol=2e-3)


def test_a_second_run_computes_nothing_and_a_changed_image_costs_one(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    first = extract(images(6), CONFIG, store)
    again = extract(images(6), CONFIG, store)
    assert (again.computed, again.reused) == (0, 6)
    assert torch.equal(first.tables[0].gather(range(6)), again.tables[0].gather(range(6)))
    changed = [*images(6)[:5], *images(1, start=20)]
    assert extract(changed, CONFIG, store).computed == 1


def test_repeated_pictures_and_views(store: FeatureStore, images: Callable[..., list[Picture]]) -> None:
    one, two = images(2)
    asked = [one, two, one, one.then(ViewOp("flip-h"))]
    got = extract(asked, CONFIG, store)
    assert got.computed == 3
    table = got.tables[0]
    assert table.keys == tuple(picture.key for picture in asked)
    assert torch.equal(table.gather([0]), table.gather([2]))
    assert not torch.equal(table.gather([0]), table.gather([3]))


def test_only_the_tap_that_is_missing_is_stored(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    pictures = images(3)
    extract(pictures, CONFIG.model_copy(update={"taps": (1,)}), store)
    assert extract(pictures, CONFIG, store).computed == 3
    assert all(info.rows == 3 for info in list_spaces(store.root))


def test_every_setting_that_changes_features_has_a_space_of_its_own(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    pictures = images(1)
    settings = [{}, {"size": 96}, {"photometric": "standardize"}, {"dtype": "bfloat16"}, {"compute": "bf16"}]
    keys = set()
    for setting in settings:
        got = extract(pictures, CONFIG.model_copy(update=setting), store)
        assert got.computed == 1
        keys |= {table.space_key for table in got.tables}
    assert len(keys) == 2 * len(settings)
    unchanged = CONFIG.model_copy(update={"batch": 1})
    assert extract(pictures, unchanged, store).computed == 0


def test_auto_measures_once_and_then_takes_what_there_is(
    store: FeatureStore,
    images: Callable[..., list[Picture]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "has_bf16", lambda device: True)
    pictures = images(2)
    auto = CONFIG.model_copy(update={"compute": "auto"})
    first = extract(pictures, auto, store)
    memory = list((tmp_path / "cache").glob("machine-*.json"))
    assert len(memory) == 1
    assert set(next(iter(json.loads(memory[0].read_text()).values()))) == {"fp32", "bf16"}
    memory[0].write_text("{ damaged")
    assert extract(pictures, auto, store).computed == 0
    other = "fp32" if first.compute == "bf16" else "bf16"
    extract(images(5), CONFIG.model_copy(update={"compute": other}), store)
    assert extract(images(5), auto, store).compute == other


def test_auto_measures_nothing_where_the_processor_has_no_bf16(
    store: FeatureStore,
    images: Callable[..., list[Picture]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "has_bf16", lambda device: False)
    assert extract(images(2), CONFIG.model_copy(update={"compute": "auto"}), store).compute == "fp32"
    assert not list(tmp_path.glob("cache/machine-*"))


def test_a_stop_ends_the_measuring_and_nothing_is_remembered(
    store: FeatureStore,
    images: Callable[..., list[Picture]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "has_bf16", lambda device: True)
    caplog.set_level("INFO")
    with pytest.raises(Interrupted, match="fp32 and bf16"):
        extract(images(2), CONFIG.model_copy(update={"compute": "auto"}), store, stop=lambda: True)
    assert "whether fp32 or bf16 is faster" in caplog.text
    assert not list(tmp_path.glob("cache/machine-*"))


# --- when something goes wrong ---


def test_bad_images_are_all_named_and_the_others_stored(
    store: FeatureStore, images: Callable[..., list[Picture]], tmp_path: Path
) -> None:
    good = images(5)
    bad = [broken(tmp_path / "one.png"), Picture(tmp_path / "gone.png", "11" * 32)]
    asked = [good[0], bad[0], *good[1:], bad[1]]
    with pytest.raises(ImageError) as caught:
        extract(asked, CONFIG, store)
    assert "2 of 7" in str(caught.value)
    assert all(str(picture.path) in str(caught.value) for picture in bad)
    skipped = extract(asked, CONFIG, store, on_error="skip")
    assert (skipped.computed, skipped.reused) == (0, 5)
    assert set(skipped.failed) == {1, 6}
    assert skipped.tables[0].keys == tuple(picture.key for picture in good)


def test_nothing_but_bad_images_gives_empty_tables(store: FeatureStore, tmp_path: Path) -> None:
    got = extract([broken(tmp_path / "one.png")], CONFIG, store, on_error="skip")
    assert len(got.tables[0]) == 0
    assert got.tables[0].shape == load_backbone(CONFIG).shapes(64)["blocks.1.0"]


def test_a_stop_keeps_what_is_done(store: FeatureStore, images: Callable[..., list[Picture]]) -> None:
    pictures = images(12)
    asked = iter([False, True])
    with pytest.raises(Interrupted, match="8 of 12"):
        extract(pictures, CONFIG, store, stop=lambda: next(asked))
    assert extract(pictures, CONFIG, store).computed == 4


def test_ctrl_c_keeps_what_is_done(store: FeatureStore, images: Callable[..., list[Picture]]) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(images(6), CONFIG, store, stop=interrupt)
    assert extract(images(6), CONFIG, store).computed == 2


def test_a_damaged_shard_costs_only_its_images(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    extract(images(3), CONFIG, store)
    got = extract(images(5), CONFIG, store)
    space = store.space(got.specs[0])
    path = shard_paths(space.folder)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    name = path.relative_to(store.root).as_posix()
    assert verify(store.root, spaces=[space.spec.key], repair=True).damaged == (name,)
    assert extract(images(5), CONFIG, store).computed == 3


def test_a_store_that_cannot_be_written_is_said(images: Callable[..., list[Picture]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        extract(images(1), CONFIG, FeatureStore(tmp_path / "file"))


PROCESS = """
import json, sys, torch
from pathlib import Path
from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import picture_of
from nfbmr.data.samples import Sample
from nfbmr.features.extraction import extract
from nfbmr.features.store import FeatureStore
torch.set_num_threads(1)
print("ready", flush=True)
pictures = [picture_of(Sample(path, path.name)) for path in sorted(Path(sys.argv[1]).iterdir())]
got = extract(pictures, FeatureConfig.model_validate_json(sys.argv[3]), FeatureStore(sys.argv[2]))
table = got.tables[0]
sums = {key: float(y.double().sum()) for key, y in zip(table.keys, table.batches(1))}
print(json.dumps([got.computed, got.reused, sums]))
"""


def test_two_processes_at_once_compute_each_image_once_and_agree(
    store: FeatureStore, images: Callable[..., list[Picture]]
) -> None:
    pictures = images(16)
    command = [sys.executable, "-c", PROCESS, str(pictures[0].path.parent), str(store.root)]
    with subprocess.Popen([*command, CONFIG.model_dump_json()], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        line = iter(other.stdout)
        starting: list[str] = []

        def wait_for_the_other() -> bool:
            if not starting:  # after our first batch, so that both are at work on the same images
                starting.append(next(line))
            time.sleep(0.1)
            return False

        ours = extract(pictures, CONFIG, store, stop=wait_for_the_other)
        computed, reused, theirs = json.loads(next(line))
    assert (ours.computed, ours.reused, computed, reused) == (16, 0, 0, 16)
    sums = {
        key: float(y.double().sum())
        for key, y in zip(ours.tables[0].keys, ours.tables[0].batches(1), strict=True)
    }
    assert theirs == sums


@pytest.mark.mtd
def test_real_images(store: FeatureStore, mtd: Path) -> None:
    files = sorted((mtd / "MT_Free" / "Imgs").glob("*.jpg"))[:6]
    pictures = [picture_of(Sample(path, path.name)) for path in files]
    config = FeatureConfig(size=128, compute="fp32", taps=("blocks.5", 3))
    got = extract(pictures, config, store)
    assert [table.shape for table in got.tables] == [(192, 4, 4), (40, 16, 16)]
    y = got.tables[0].gather(range(6)).float()
    assert y.isfinite().all()
    assert y.std(0).mean() > 0.1  # other images, other features

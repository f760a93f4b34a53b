"""The audit on real images: `legacy` leaks and `group` does not; made copies are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.config import DataConfig
from nfbmr.data.audit import Audit, audit_split
from nfbmr.data.layouts import load_dataset
from nfbmr.data.splits import make_split
from tests.data.audit_pictures import COPIES, save, split_of

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


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

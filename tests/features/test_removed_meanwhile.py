"""What another machine removes from a shared store while it is read is missing, not damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from nfbmr.features.backends import StoreBackend
from nfbmr.features.files import File
from nfbmr.features.maintenance import verify
from nfbmr.features.mirror import Mirror
from nfbmr.features.store import FeatureStore, Space
from tests.features.s3 import SPEC, stage_folder


class RemovedMeanwhile(StoreBackend):
    """An object store in which another machine removes shards and weights as soon as they were seen."""

    def files(self, folder: str = "") -> dict[str, File]:
        listed = super().files(folder)
        for name in listed:
            if name.endswith(".arrow"):
                self.discard(f"{folder}/{name}")
        return listed

    def stage_sums(self, folder: str) -> dict[str, str] | None:
        sums = super().stage_sums(folder)
        self.discard_folder(folder)
        return sums


def test_what_another_machine_removes_meanwhile_is_missing_and_made_again(
    machine: Callable[[str], FeatureStore], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    a = machine("a")
    a.space(SPEC).append(["x"], torch.ones(1, 4, 3, 3))
    a.publish_stage(stage_folder(a, b"weights"))
    b = machine("b")
    mirror = Mirror(RemovedMeanwhile("s3://parts/shared/store"), b.root)
    space = Space(b.folder(SPEC), SPEC, mirror)
    assert space.missing(["x"]) == ("x",)
    folder = stage_folder(b, None)
    mirror.exchange_stage(folder)
    assert not list(folder.glob("*"))
    assert caplog.text.count("bytes that were written") == 0

    machine("c").space(SPEC).append(["x"], torch.ones(1, 4, 3, 3))  # of the same name as the one removed
    mirror.objects = StoreBackend("s3://parts/shared/store")
    assert space.missing(["x"]) == ()


def test_what_is_removed_while_a_store_is_verified_is_not_damaged(
    machine: Callable[[str], FeatureStore], s3: fs.S3FileSystem
) -> None:
    a = machine("a")
    a.space(SPEC).append(["x"], torch.ones(1, 4, 3, 3))
    a.publish_stage(stage_folder(a, b"weights"))
    checked = verify(RemovedMeanwhile("s3://parts/shared/store"))
    assert (checked.shards, checked.rows, checked.stages, checked.damaged) == (0, 0, 0, ())

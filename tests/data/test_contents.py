"""Contents that are held while a run lasts: the same as on the disk, and no more than was agreed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from nfbmr.data.contents import content_of, held
from nfbmr.data.images import read_image


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two images that have not changed for a while."""
    paths = [tmp_path_factory.mktemp("images") / f"{grey}.png" for grey in (10, 20)]
    for path, grey in zip(paths, (10, 20), strict=True):
        Image.new("L", (8, 8), grey).save(path)
    time.sleep(2.1)
    return paths


def test_a_file_is_held_within_the_block_alone(files: list[Path]) -> None:
    status = files[0].stat()
    assert content_of(files[0], status) is None
    with held():
        content = content_of(files[0], status)
        assert content == files[0].read_bytes()
        with held():
            assert content_of(files[0], status) is content
        assert content_of(files[0], status) is content
    assert content_of(files[0], status) is None


def test_a_file_that_is_written_anew_is_read_anew(files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(files[0].read_bytes())
    with held():
        assert read_image(path)[0, 0, 0] == 10
        path.write_bytes(files[1].read_bytes())
        assert read_image(path)[0, 0, 0] == 20


def test_no_more_is_held_than_was_agreed(files: list[Path]) -> None:
    first, second = (path.stat() for path in files)
    with held(most_bytes=first.st_size + second.st_size - 1):
        assert content_of(files[0], first) is content_of(files[0], first)
        assert content_of(files[1], second) is None

"""Proportions of images, from their headers alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from nfbmr.config import FeatureConfig
from nfbmr.data.images import header_of, read_image, size_seen
from nfbmr.data.proportions import detail_size, sizes_of, typical_aspect, typical_depth
from nfbmr.errors import ImageError


def saved(path: Path, width: int, height: int, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (width, height)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_header_is_that_of_the_image_as_it_is_seen(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = saved(tmp_path / f"a.{suffix}", 30, 20, orientation)
    assert size_seen(path) == read_image(path).shape[:2]


@pytest.mark.parametrize(
    ("sizes", "aspect"),
    [
        ([(20, 10), (40, 20), (30, 30)], 2.0),
        ([(10, 30)] * 3, 0.333),
        ([(105, 100), (100, 95)], 1.0),
        ([(100, 109)], 1.0),
        ([(112, 100)], 1.12),
        ([(2000, 3)], 10.0),
        ([], 1.0),
    ],
)
def test_the_typical_aspect_is_the_median_and_nearly_square_is_square(
    tmp_path: Path, sizes: list[tuple[int, int]], aspect: float
) -> None:
    paths = [saved(tmp_path / f"{i}.png", *size) for i, size in enumerate(sizes)]
    assert typical_aspect(sizes_of(paths)) == aspect


def test_headers_alone_are_read_and_what_has_none_is_left_out(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.png", 300, 100)
    cut = tmp_path / "cut.png"
    content = whole.read_bytes()
    cut.write_bytes(content[: content.index(b"IDAT") + 8])  # no pixel is there
    with pytest.raises(ImageError):
        read_image(cut)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    paths = [cut, tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "none.png"]
    assert typical_aspect(sizes_of(paths)) == 3.0


@pytest.mark.parametrize("size", [64, 96, 250, 256, 384, 1000, 3456])
@pytest.mark.parametrize("aspect", [0.25, 0.75, 1.3333, 3.0])
def test_a_rectangle_keeps_area_and_proportions(size: int, aspect: float) -> None:
    height, width = FeatureConfig(size=size, aspect=aspect).shape
    unit = 32 if size >= 256 else 16
    assert height % unit == width % unit == 0
    least = min(height, width)
    assert width / height == pytest.approx(aspect, rel=unit / least)
    assert height * width == pytest.approx(size**2, rel=unit / least)


@pytest.mark.parametrize("size", [32, 50, 64, 250, 256, 1000])
@pytest.mark.parametrize("aspect", ["auto", 1.0])
def test_a_square_has_exactly_the_size(size: int, aspect: Any) -> None:
    assert FeatureConfig(size=size, aspect=aspect).shape == (size, size)


@pytest.mark.parametrize(
    "turned", [{"views": ("rot90",)}, {"rotations": 4}, {"test_rotations": 2, "pooled": True}]
)
def test_turned_images_are_seen_in_squares(turned: dict[str, Any]) -> None:
    FeatureConfig(**turned), FeatureConfig(aspect=1.0, **turned)
    with pytest.raises(ValidationError, match="a turned image has other proportions"):
        FeatureConfig(aspect=2.0, **turned)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [((64, 48), 64), ((300, 300), 288), ((500, 1250), 640), ((1024, 1024), 640), ((3000, 4000), 1024)],
)
def test_detail_is_never_looked_at_larger_than_it_was_taken(size: tuple[int, int], pixels: int) -> None:
    assert detail_size([size, size]) == pixels


def test_rectangles_lose_no_pixels_by_rounding_twice() -> None:
    """Their sides are rounded to whole steps, which those of 256 x 384 are already."""
    for size in ((256, 384), (384, 256), (320, 640)):
        seen = FeatureConfig(size=detail_size([size], square=False), aspect=typical_aspect([size]))
        assert seen.shape == size


def test_without_images_the_detail_size_is_that_of_large_ones() -> None:
    assert detail_size([]) == 640


def deep(path: Path, highest: int) -> Path:
    values = np.linspace(0, highest, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("highest", "depth"),
    [([200], 8), ([900, 1023], 10), ([900, 3000], 12), ([3000, 16000], 14), ([1, 60000], 16)],
)
def test_the_depth_of_a_set_holds_all_its_images_and_names_the_brightest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, highest: list[int], depth: int
) -> None:
    paths = [deep(tmp_path / f"{i}.png", value) for i, value in enumerate(highest)]
    assert typical_depth([saved(tmp_path / "flat.png", 30, 20), *paths, tmp_path / "missing.png"]) == depth
    if depth == 16:
        assert not caplog.messages
    else:
        (warning,) = caplog.messages
        assert f"up to {highest[-1]} alone ({paths[-1]})" in warning
        assert f"{depth}-bit" in warning
        assert "features.depth" in warning


def deep_colour(path: Path, highest: int) -> Path:
    """A PNG of 16 bits a colour, which Pillow reads and does not write."""
    values = np.linspace(0, highest, 600).reshape(20, 10, 3).astype(">u2")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 20, 16, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_colours_of_fewer_bits_in_16_are_said_to_be_dark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera of 12 bits: what is read of it are sixteen levels."""
    assert typical_depth([deep_colour(tmp_path / "bright.png", 60000)]) == 16
    assert not caplog.messages
    assert typical_depth([deep_colour(tmp_path / "dark.png", 4095)]) == 16
    (warning,) = caplog.messages
    assert f"up to 15 of 255 ({tmp_path / 'dark.png'})" in warning
    assert header_of(tmp_path / "dark.png").mode == "RGB;16"


def test_grey_of_16_bits_and_five_bits_a_colour_are_not_colour_of_16(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packed = tmp_path / "packed.bmp"  # 16 bits a pixel, all black
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    packed.write_bytes(b"BM" + struct.pack("<IHHI", 98, 0, 0, 66) + header + masks + bytes(32))
    assert header_of(packed).mode == "RGB"
    assert typical_depth([deep(tmp_path / "grey.png", 60000), packed]) == 16
    assert not caplog.messages


def test_a_set_of_ordinary_images_has_no_depth_to_ask_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert typical_depth([saved(tmp_path / "flat.png", 30, 20)]) == 16
    assert typical_depth([]) == 16
    assert not caplog.messages

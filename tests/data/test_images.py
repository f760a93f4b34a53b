"""Whatever a file holds, reading it gives pixels or an ImageError that names it."""

import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.data.images import (
    decoded,
    file_digest,
    from_pillow,
    highest_value,
    load_image,
    read_image,
    read_mask,
)
from nfbmr.data.pictures import Picture, picture_from
from nfbmr.data.sources import MAX_PIXELS
from nfbmr.errors import ImageError

RAMP = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # (16, 24): not square, so that turns show


def png_header(width, height):
    """A few bytes that claim to be an image of any size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def saved(path, array, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("L", "tif"),
        ("L", "bmp"),
        ("RGB", "png"),
        ("RGB", "webp"),
        ("CMYK", "tif"),
        ("P", "png"),
    ],
)
def test_every_mode_gives_the_same_rgb_pixels(tmp_path, mode, suffix):
    path = saved(tmp_path / f"a.{suffix}", RAMP, mode, **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_image(path)
    assert pixels.shape == (16, 24, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RAMP[..., None]).max() <= 1


def test_pixels_can_be_written_to(tmp_path):
    pixels = read_image(saved(tmp_path / "a.png", RAMP))
    pixels[:] = 0


def test_grey_files_stay_one_channel_for_speed(tmp_path):
    assert load_image(saved(tmp_path / "grey.png", RAMP)).mode == "L"
    assert load_image(saved(tmp_path / "colour.png", RAMP, "RGB")).mode == "RGB"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[255], [0]]), 8, axis=0).repeat(24, axis=1)))
    pixels = read_image(saved(tmp_path / "a.png", image))
    assert (pixels[:8] == RAMP[:8, :, None]).all()
    assert (pixels[8:] == 255).all()


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.fromarray(np.zeros((16, 24), np.uint8), "P")
    image.putpalette([200, 10, 10])
    assert (read_image(saved(tmp_path / "a.png", image)) == (200, 10, 10)).all()
    assert (read_image(saved(tmp_path / "b.png", image, transparency=0)) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("peak", [255, 4095, 65535])
def test_16_bit_values_are_scaled_by_their_type_not_by_their_contents(tmp_path, suffix, peak):
    values = np.linspace(0, peak, 384).reshape(16, 24).astype(np.uint16)
    pixels = read_image(saved(tmp_path / f"a.{suffix}", values))
    assert np.array_equal(pixels[..., 0], np.rint(values / 257).astype(np.uint8))


def packed_12_bit_tiff(path, values, orientation=1):
    """A TIFF of two values in three bytes, which Pillow reads and does not write."""
    even, odd = values.ravel()[0::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 274: orientation, 277: 1, 278: height}
    tags[279] = len(packed)
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()
    )
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    path.write_bytes(head + packed + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_of_a_known_depth_fill_the_range_from_black_to_white(tmp_path, depth, suffix):
    values = np.linspace(0, 2**depth - 1, 384).reshape(16, 24).astype(np.uint16)
    pixels = read_image(saved(tmp_path / f"a.{suffix}", values), depth)
    assert np.abs(pixels[..., 0] - np.linspace(0, 255, 384).reshape(16, 24)).max() <= 1
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_values_above_the_depth_are_white_and_the_file_is_named_once(tmp_path, caplog):
    values = np.full((16, 24), 1000, np.uint16)
    values[3, 4] = 5000
    for name in ("a.png", "b.png"):
        pixels = read_image(saved(tmp_path / name, values), 12)
        assert pixels[3, 4].tolist() == [255] * 3
        assert pixels[0, 0].tolist() == [62] * 3
    (warning,) = caplog.messages
    assert "a.png has values up to 5000, more than 12 bits hold" in warning
    assert "features.depth" in warning


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_a_negative_is_seen_as_a_positive_whatever_its_depth(tmp_path, dtype, white, orientation):
    def negative(name, seen):
        values = (seen / 255 * white).astype(dtype)
        # Pillow turns 8 bits over itself as it writes, deeper values not.
        stored = values if dtype is np.uint8 else (white - values).astype(dtype)
        return saved(tmp_path / name, stored, tiffinfo={262: 0, 274: orientation})

    path = negative("radiograph.tif", RAMP)
    seen = RAMP if orientation == 1 else np.rot90(RAMP, -1)
    assert np.abs(read_image(path)[..., 0].astype(int) - seen).max() <= 1
    assert np.abs(read_image(from_pillow(Image.open(path)))[..., 0].astype(int) - seen).max() <= 1
    marked = np.where(RAMP > 100, 255, 0)
    assert np.array_equal(read_mask(negative("mask.tif", marked)), seen > 100)
    # Features that were stored when deep negatives were not heeded are not those of this picture.
    picture = picture_from(path)
    assert picture.is_negative == (dtype is not np.uint8)
    assert (picture.key == Picture(path, picture.digest).key) == (dtype is np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_turned_tiff_that_pillow_opened_is_read_as_its_file_is(tmp_path, dtype):
    path = saved(tmp_path / "turned.tif", RAMP.astype(dtype), tiffinfo={274: 6})
    assert np.array_equal(read_image(from_pillow(Image.open(path))), read_image(path))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_packed_12_bit_tiff_says_its_depth(tmp_path, orientation):
    values = np.linspace(0, 4095, 384).reshape(16, 24).astype(np.uint16)
    path = packed_12_bit_tiff(tmp_path / "a.tif", values, orientation)
    pixels = read_image(path)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert highest_value(path) == 4095


@pytest.mark.parametrize("highest", [1023, 4095, 65535])
def test_a_pgm_file_says_what_its_values_may_be_whatever_the_depth(tmp_path, highest):
    path = tmp_path / "a.pgm"
    values = np.linspace(0, highest, 384).astype(">u2")
    path.write_bytes(b"P5 24 16 %d\n" % highest + values.tobytes())
    for depth in (None, 10, 16):
        pixels = read_image(path, depth)
        assert (pixels.min(), pixels.max()) == (0, 255)
    assert highest_value(path) is None


def test_the_highest_value_is_of_deep_integers_alone(tmp_path):
    assert highest_value(saved(tmp_path / "deep.png", RAMP.astype(np.uint16) * 16)) == 230 * 16
    assert highest_value(saved(tmp_path / "flat.png", RAMP)) is None
    assert highest_value(saved(tmp_path / "float.tif", RAMP.astype(np.float32) / 255)) is None


def test_float_images_are_read_from_0_to_1_and_refused_elsewhere(tmp_path):
    assert read_image(saved(tmp_path / "a.tif", np.full((4, 5), 0.5, np.float32))).max() == 128
    for bad in (2.0, -0.1, np.nan):
        with pytest.raises(ImageError, match="outside 0 to 1"):
            read_image(saved(tmp_path / "b.tif", np.full((4, 5), bad, np.float32)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", RAMP, exif=exif)
    k = {3: 2, 6: 3, 8: 1, 5: 3, 7: 1}.get(orientation, 0)
    seen = np.rot90(RAMP, k)
    seen = {2: seen[:, ::-1], 4: seen[::-1], 5: seen[:, ::-1], 7: seen[:, ::-1]}.get(orientation, seen)
    pixels = read_image(path)[..., 0].astype(int)
    assert pixels.shape == seen.shape
    assert np.abs(pixels - seen).max() < 4
    assert read_mask(path).shape == seen.shape
    assert decoded(path).pixels.shape == seen.shape
    assert decoded(decoded(path)).pixels is not None


def test_a_damaged_exif_block_does_not_lose_the_image(tmp_path):
    path = saved(tmp_path / "a.png", RAMP, exif=b"Exif\0\0II*\0garbage")
    assert np.array_equal(read_image(path)[..., 0], RAMP)


@pytest.mark.parametrize(
    "name", ["a b.png", 'it\'s "x".png', "new\nline.png", "零件é.png", "no extension", "-x.png"]
)
def test_odd_names(tmp_path, name):
    path = saved(tmp_path / name, RAMP, format="PNG")
    assert read_image(path).shape == (16, 24, 3)
    assert len(file_digest(path)) == 64


def bad_file(tmp_path, kind):
    path = tmp_path / "part 7.png"
    whole = saved(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    ).read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "truncated": whole[: len(whole) // 2],
                "header only": whole[:30],
                "flipped bytes": whole[:100] + bytes(200) + whole[300:],
                "text": b"this is a letter, not an image\n" * 50,
                "nul bytes": bytes(5000),
                "huge": png_header(60_000, 60_000),
                "limit": png_header(MAX_PIXELS + 1, 1),
            }[kind]
        )
    return path


KINDS = {
    "missing": "no such file",
    "folder": "not a file",
    "empty": "empty",
    "truncated": "truncated or damaged",
    "header only": "truncated or damaged|not an image",
    "flipped bytes": "truncated or damaged",
    "text": "not an image",
    "nul bytes": "not an image",
    "huge": "60000 x 60000 pixels",
    "limit": "absurdly large",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_bad_file_is_an_image_error_that_names_it_and_the_mend(tmp_path, kind, read):
    path = bad_file(tmp_path, kind)
    with pytest.raises(ImageError, match=KINDS[kind]) as caught:
        read(path)
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = saved(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path / "pipe.png")


def test_large_images_within_the_limit_neither_warn_nor_fail_from_several_threads(tmp_path):
    path = tmp_path / "line-scan.png"
    saved(path, Image.new("1", (100_000, 1000)))  # 100 million pixels: Pillow alone would warn
    limit = Image.MAX_IMAGE_PIXELS
    sizes = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=lambda: sizes.append(load_image(path).size)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sizes == [(100_000, 1000)] * 2
    assert limit == Image.MAX_IMAGE_PIXELS


def test_masks_are_true_wherever_not_black(tmp_path):
    values = np.zeros((16, 24), np.uint8)
    values[2, 3], values[4, 5] = 1, 255
    for i, image in enumerate(
        [values, values.astype(np.uint16) * 3, np.stack([values] * 3, 2), Image.fromarray(values > 0)]
    ):
        mask = read_mask(saved(tmp_path / f"{i}.png", image))
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, values > 0)


def test_a_transparent_background_is_no_defect(tmp_path):
    image = Image.new("RGBA", (24, 16), (255, 255, 255, 0))
    image.putpixel((3, 2), (255, 255, 255, 255))
    assert read_mask(saved(tmp_path / "a.png", image)).sum() == 1


def test_digest_is_of_the_bytes_alone(tmp_path):
    a = saved(tmp_path / "a.png", RAMP)
    b = Path(tmp_path / "b.jpg")
    b.write_bytes(a.read_bytes())
    assert file_digest(a) == file_digest(b)
    b.write_bytes(a.read_bytes() + b"\0")
    assert file_digest(a) != file_digest(b)
    with pytest.raises(ImageError, match="no such file"):
        file_digest(tmp_path / "gone.png")

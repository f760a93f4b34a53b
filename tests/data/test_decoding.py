"""Whatever a caller hands over as an image becomes one, or an ImageError that says why not."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.data.decoding import decode_input, decode_inputs
from nfbmr.data.images import check_size, file_digest, read_image
from nfbmr.data.pictures import ViewOp, picture_from, prepare
from nfbmr.data.sources import Decoded, Encoded
from nfbmr.errors import ImageError

RAMP = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000"])
def test_base64_text_of_any_format_is_told_from_a_path(kind):
    content = encoded(COLOUR, kind)
    for text in (
        base64.b64encode(content).decode(),
        base64.encodebytes(content).decode(),
        base64.urlsafe_b64encode(content).decode(),
        base64.b64encode(content).decode().rstrip("="),
        "data:image/x;base64," + base64.b64encode(content).decode(),
    ):
        source = decode_input(text, paths=False)
        assert isinstance(source, Encoded)
        assert source.content == content
    assert isinstance(decode_input(content), Encoded)
    assert isinstance(decode_input(bytearray(content)), Encoded)


@pytest.mark.parametrize("path", ["parts/1.png", "/9j/4AAQ.jpg", "iVBORw0KGgo.png", "a", "Größe.tif", "P5/x"])
def test_other_text_is_a_path(path):
    assert decode_input(path) == Path(path)
    assert decode_input(Path(path)) == Path(path)
    for item in (path, Path(path)):
        with pytest.raises(ImageError, match="paths are not read"):
            decode_input(item, paths=False)


@pytest.mark.parametrize("pixels", [RAMP, COLOUR], ids=["grey", "colour"])
def test_pixels_bytes_and_file_give_the_same_picture(tmp_path, pixels):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels))
    forms = [path, path.read_bytes(), pixels, pixels.tolist(), pixels.astype(float), tuple(pixels.tolist())]
    seen = [picture_from(decode_input(form)) for form in forms]
    values = [prepare(one, size=32, photometric="none", mean=(0.5,) * 3, std=(0.5,) * 3) for one in seen]
    for value, picture in zip(values, seen, strict=True):
        assert np.array_equal(value, values[0])
        assert np.array_equal(picture.pixels(), read_image(path))
        assert np.array_equal(picture.then(ViewOp("flip-h")).pixels(), read_image(path)[:, ::-1])


def deep(bits):
    """A camera's values of so many bits in a 16-bit image."""
    return Image.fromarray(RAMP.astype(np.uint16) << (bits - 8))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RAMP),
        Image.fromarray(COLOUR),
        Image.fromarray(COLOUR).convert("P"),
        Image.fromarray(RAMP > 90),
        Image.merge("RGBA", [*Image.fromarray(COLOUR).split(), Image.fromarray(RAMP)]),
        Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1])]),
        deep(10),
        deep(12),
    ],
    ids=["L", "RGB", "P", "1", "RGBA", "LA", "10 bits", "12 bits"],
)
@pytest.mark.parametrize("turn", [1, 6])
def test_a_pillow_image_is_seen_as_its_file(image, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        held = decode_input(opened)
        for depth in (None, 12):
            assert np.array_equal(read_image(held, depth), read_image(tmp_path / "a.png", depth))


def test_a_pillow_image_that_cannot_be_decoded_or_is_huge(png_claiming):
    damaged = Image.open(io.BytesIO(encoded(np.tile(COLOUR, (9, 9, 1)), "JPEG")[:-900]))
    with pytest.raises(ImageError, match="truncated"):
        decode_input(damaged, name="image 3")
    with pytest.raises(ImageError, match="absurdly large"):
        decode_input(Image.open(io.BytesIO(png_claiming(3000, 3000))), limit=1_000_000)


def test_one_image_or_many_of_any_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "AAAA").write_bytes(encoded(RAMP))
    batch, grey = np.stack([COLOUR, COLOUR]), np.stack([RAMP, RAMP, RAMP])[..., None]
    for one in (RAMP, COLOUR, RAMP[..., None], Image.fromarray(RAMP), encoded(RAMP), "AAAA", Path("AAAA")):
        assert len(decode_inputs(one)) == len(decode_inputs([one])) == 1
    assert decode_inputs("AAAA") == [Path("AAAA")]
    assert [source.pixels.shape for source in decode_inputs(batch)] == [COLOUR.shape] * 2
    assert [source.pixels.shape for source in decode_inputs([grey, RAMP])] == [RAMP.shape] * 4
    assert len(decode_inputs(frame for frame in batch)) == 2
    broken, last = decode_inputs([RAMP / 300, COLOUR])
    assert isinstance(broken, ImageError)
    assert "whole numbers" in broken.what
    assert isinstance(last, Decoded)
    long = base64.b64encode(encoded(COLOUR)).decode()
    assert isinstance(decode_inputs(long)[0], Encoded)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (7, "a int instead of images"),
        (None, "a NoneType instead of images"),
        ({"image": RAMP}, "a dict instead of images"),
        ([RAMP, 7], "a int instead of an image: image 1"),
        ([None], "a NoneType instead of an image: image 0"),
        ([COLOUR, {"image": RAMP}], "a dict instead of an image: image 1"),
        (np.zeros((3, 16, 16), np.uint8), r"shape \(3, 16, 16\)"),
        (np.zeros((2, 3, 16, 16), np.uint8), "channels come last"),
        (np.zeros(16, np.uint8), r"shape \(16,\)"),
        (np.uint8(3), "instead of images"),
    ],
)
def test_a_wrong_type_is_refused_at_once(images, what):
    with pytest.raises(ImageError, match=what):
        decode_inputs(images)


def test_digests_are_of_what_is_seen(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(RAMP))
    assert file_digest(path) == file_digest(Encoded(path.read_bytes()))
    assert file_digest(Decoded(RAMP)) == file_digest(Decoded(RAMP.copy()))
    assert file_digest(Decoded(RAMP)) != file_digest(Decoded(RAMP.T))


@pytest.mark.parametrize(
    ("item", "what"),
    [
        (None, "nothing"),
        (float("nan"), "nothing"),
        ("", "neither"),
        ("x" * 5000, "neither"),
        ("a\0b", "neither"),
        ("data:image/png;base64,???", "data:"),
        ("data:text/plain,hello", "data:"),
        (7, "a int"),
        ({"image": "x"}, "a dict"),
        ([], "no image"),
        ([[1, 2], [3]], "no image"),
        ([["a"]], "no image"),
        ([[True, False]], "no image"),
        ([[1, 300]], "from 1 to 300"),
        ([[-1, 3]], "from -1"),
        ([[0.5, 3]], "whole numbers"),
        ([[float("nan"), 3]], "whole numbers"),
        ([1, 2, 3], "shape"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "no image"),
    ],
)
def test_what_is_no_image_is_said(item, what):
    with pytest.raises(ImageError, match=what) as caught:
        decode_input(item, name="image 3")
    assert caught.value.where == "image 3"


def test_a_file_that_claims_to_be_huge_costs_nothing(png_claiming):
    bomb = png_claiming(60_000, 60_000)
    with pytest.raises(ImageError, match="absurdly large"):
        read_image(decode_input(bomb))
    with pytest.raises(ImageError, match="absurdly large"):
        decode_input(png_claiming(3000, 3000), limit=1_000_000)
    with pytest.raises(ImageError, match="absurdly large"):
        decode_input(np.zeros((200, 200), np.uint8), limit=10_000)
    check_size(Encoded(png_claiming(100, 100)), 10_000)


@pytest.mark.parametrize("content", [b"", b"hello", encoded(RAMP)[:50]], ids=["empty", "text", "truncated"])
def test_bytes_that_hold_no_image_are_an_error_with_the_images_name(content):
    with pytest.raises(ImageError) as caught:
        read_image(decode_input(content, name="image 7"))
    assert caught.value.where == "image 7"

"""Pictures: an image file and what is done to it, named by content, ready for the backbone.

A :class:`Picture` is a recipe, not pixels: it can be stored, sent to another process and compared for
nothing. Its :attr:`~Picture.key` depends on the file's bytes and on the operations, never on where the file
lies, so a moved data set finds its features again and a changed image does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from nfbmr.config import View
from nfbmr.data.images import file_digest, header_of, load_image
from nfbmr.data.pasting import Kind, paste_defect
from nfbmr.data.samples import Sample
from nfbmr.data.sources import Decoded, Encoded, Source
from nfbmr.errors import ConfigError, ImageError

Pixels = NDArray[np.uint8]
"""Values of a picture, 8 bits."""
_Mask = NDArray[np.bool_]
Photometric = Literal["none", "brightness", "standardize"]
"""What is done to a picture's brightness and contrast."""
Size = int | tuple[int, int]
"""(H, W) in pixels, or the side of a square."""

_VERSION = 1  # raised when an operation gives other pixels than before: old features are then not found
_PASTED_VERSION = 3  # the same for defects that are pasted: features of whole images stay
_TURNS = {
    "flip-h": Transpose.FLIP_LEFT_RIGHT,
    "flip-v": Transpose.FLIP_TOP_BOTTOM,
    "rot90": Transpose.ROTATE_90,
    "rot180": Transpose.ROTATE_180,
    "rot270": Transpose.ROTATE_270,
}
_GAINS = {
    "darker": 2 ** (-1 / 3),
    "brighter": 2 ** (1 / 3),
}  # a third of a stop; values saturate as a camera's


@dataclass(frozen=True, slots=True)
class ViewOp:
    """A training augmentation: a flip, a turn (anticlockwise), or an exposure a third of a stop off.

    Args:
        name: flip-h, flip-v, rot90, rot180, rot270, darker (values times 0.794) or brighter (times 1.260).

    Raises:
        ConfigError: There is no such view.
    """

    name: View

    def __post_init__(self) -> None:
        if self.name not in get_args(View):
            raise ConfigError("no such view", where=self.name, fix=f"use one of {', '.join(get_args(View))}")

    def as_json(self) -> dict[str, object]:
        """What goes into the key."""
        return {"op": "view", "name": self.name}

    def apply(self, image: Image.Image) -> Image.Image:
        """The image seen this way."""
        if self.name in _TURNS:
            return image.transpose(_TURNS[self.name])
        return _scaled(image, _GAINS[self.name])

    def turn(self, mask: _Mask) -> _Mask:
        """The mask of the image seen this way."""
        return np.asarray(self.apply(Image.fromarray(mask))) if self.name in _TURNS else mask


@dataclass(frozen=True, slots=True)
class PasteDefect:
    """A synthetic defect (:mod:`nfbmr.data.pasting`).

    Args:
        kind: cutpaste, blend or scratch.
        seed: Decides the place, shape and strength.
        donor: File that foreign texture is taken from.
        donor_digest: SHA-256 of the donor's bytes; stands for it in the key.
    """

    kind: Kind
    seed: int
    donor: Path
    donor_digest: str

    def as_json(self) -> dict[str, object]:
        """What goes into the key."""
        return {
            "op": "paste",
            "version": _PASTED_VERSION,
            "kind": self.kind,
            "seed": self.seed,
            "donor": self.donor_digest,
        }

    def draw(self, image: Image.Image, depth: int | None = None) -> tuple[Image.Image, _Mask]:
        """The defective image and the defect's mask (H, W)."""
        donor = load_image(self.donor, depth)
        pixels_HWC = np.asarray(image).reshape(image.height, image.width, -1)
        donor_HWC = np.asarray(donor.convert(image.mode)).reshape(donor.height, donor.width, -1)
        defective_HWC, mask = paste_defect(pixels_HWC, donor_HWC, self.kind, self.seed)
        return Image.fromarray(defective_HWC.squeeze(2) if image.mode == "L" else defective_HWC), mask


@dataclass(frozen=True, slots=True)
class Rotate:
    """A turn by any angle, anticlockwise about the middle; corners that come into view are black.

    It is done on the resized square, as DifferNet does it: an oblong image turned at its full size would lose
    its ends, and so would a rectangle. Images are turned in squares alone.

    Args:
        degrees: Angle of the turn, in degrees.
    """

    degrees: float

    def as_json(self) -> dict[str, object]:
        """What goes into the key."""
        return {"op": "rotate", "degrees": self.degrees}

    def apply(self, pixels_SSC: Pixels) -> Pixels:
        """The square turned; bilinear."""
        image = Image.fromarray(pixels_SSC.squeeze(2) if pixels_SSC.shape[2] == 1 else pixels_SSC)
        turned = image.rotate(self.degrees, resample=Image.Resampling.BILINEAR)
        return np.asarray(turned).reshape(pixels_SSC.shape)


_Op = ViewOp | PasteDefect | Rotate


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, and the operations on it in order.

    Args:
        path: The file.
        digest: SHA-256 of its bytes, 64 hexadecimal digits.
        ops: What is done to the pixels, first to last.
        held: The image, where it is in memory; `path` is then a mere name.
        is_negative: Whether zero is white in its deep values. It was not heeded before: features that were
            stored then are not found.

    Example:
        >>> a = Picture(Path("here/1.png"), "5e" * 32)
        >>> b = Picture(Path("there/2.png"), "5e" * 32)
        >>> a.key == b.key, a.key == a.then(ViewOp("flip-h")).key
        (True, False)
    """

    path: Path
    digest: str
    ops: tuple[_Op, ...] = ()
    held: Encoded | Decoded | None = None
    is_negative: bool = False

    @property
    def key(self) -> str:
        """32 hexadecimal digits over the file's content and the operations."""
        recipe = {"version": _VERSION, "content": self.digest, "ops": [op.as_json() for op in self.ops]}
        if self.is_negative:
            recipe["zero_is_white"] = True
        text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def then(self, *ops: _Op) -> Picture:
        """The same picture with more done to it."""
        return replace(self, ops=(*self.ops, *ops))

    def turned(self, parts: int) -> tuple[Picture, ...]:
        """The picture turned by each of so many parts of a full turn, beginning with itself.

        Example:
            >>> [one.ops for one in Picture(Path("1.png"), "5e" * 32).turned(2)]
            [(), (Rotate(degrees=180.0),)]
        """
        return (self, *(self.then(Rotate(360.0 * k / parts)) for k in range(1, parts)))

    def pixels(self) -> Pixels:
        """The pixels (H, W, 3), after all operations but rotations, which are of the resized square.

        Raises:
            ImageError: The file, or a defect's donor, cannot be read.
        """
        return np.array(self.image().convert("RGB"))

    def mask(self) -> _Mask | None:
        """Where synthetic defects lie, (H, W), after all operations; None where none was pasted.

        Raises:
            ImageError: The file, or a defect's donor, cannot be read.
        """
        if not any(isinstance(op, PasteDefect) for op in self.ops):
            return None
        return self._render()[1]

    def image(self, depth: int | None = None) -> Image.Image:
        """As :meth:`pixels`, but a Pillow image, of one channel (L) where the file is greyscale.

        Args:
            depth: Bits of the values of deep files, as :func:`~nfbmr.data.images.read_image` has them.
        """
        return self._render(depth)[0]

    def _render(self, depth: int | None = None) -> tuple[Image.Image, _Mask | None]:
        image, mask = load_image(self.path if self.held is None else self.held, depth), None
        for op in self.ops:
            if isinstance(op, Rotate):
                continue
            if isinstance(op, PasteDefect):
                image, pasted = op.draw(image, depth)
                mask = pasted if mask is None else mask | pasted
            else:
                image = op.apply(image)
                mask = None if mask is None else op.turn(mask)
        return image, mask


def picture_of(sample: Sample) -> Picture:
    """The picture of a sample, as it is.

    Raises:
        ImageError: The file cannot be read.
    """
    return _of_file(sample.path)


def picture_from(source: Source) -> Picture:
    """The picture of an image that is no sample, wherever it is.

    Raises:
        ImageError: The file cannot be read.
    """
    if isinstance(source, Path):
        return _of_file(source)
    return Picture(Path(source.name), file_digest(source), held=source)


def _of_file(path: Path) -> Picture:
    digest, negative = file_digest(path), False
    with suppress(ImageError):  # said by whoever decodes it
        negative = header_of(path).is_negative
    return Picture(path, digest, is_negative=negative)


def sides(size: Size) -> tuple[int, int]:
    """(H, W) of a size that may be a square's side.

    Example:
        >>> sides(64), sides((48, 96))
        ((64, 64), (48, 96))
    """
    return (size, size) if isinstance(size, int) else size


def prepare(
    picture: Picture,
    *,
    size: Size,
    photometric: Photometric,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int | None = None,
) -> NDArray[np.float32]:
    r"""What the backbone sees: operations, photometric normalisation, resizing, rotations, normalisation.

    .. math:: x_c = (\mathrm{resize}(p)_c / 255 - \mu_c) / \sigma_c

    Resizing is bicubic and antialiased, whatever the image's aspect. Photometric normalisation works on
    the image at its full size: ``brightness`` is a gain that sets the mean grey value to 0.5 (at most 8,
    for images that are nearly black), ``standardize`` an affine map to mean 0.5 and standard deviation 0.2;
    both saturate at 0 and 1, as a camera does.

    Args:
        picture: The picture.
        size: (H, W) in pixels, or the side S of a square.
        photometric: ``"none"``, ``"brightness"`` or ``"standardize"``.
        mean: Channel means mu of the backbone, for values in 0..1.
        std: Channel standard deviations sigma.
        depth: Bits of the values of deep files, as :func:`~nfbmr.data.images.read_image` has them.

    Returns:
        Values (3, H, W), float32; channels-last in memory, so that stacking into a channels-last batch is a
        copy.

    Raises:
        ImageError: The file, or a defect's donor, cannot be read.
    """
    return normalised(picture, resized(exposed(picture, photometric, depth), size), mean=mean, std=std)


def exposed(picture: Picture, photometric: Photometric, depth: int | None = None) -> Image.Image:
    """The first step of :func:`prepare`: the image at its full size, which no rotation has seen yet.

    Raises:
        ImageError: The file, or a defect's donor, cannot be read.
    """
    return _photometric(picture.image(depth), photometric)


def normalised(
    picture: Picture, pixels_SSC: Pixels, *, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """The last step of :func:`prepare`: the resized pixels, turned as `picture` says; (3, H, W)."""
    height, width = pixels_SSC.shape[:2]
    for op in picture.ops:
        if isinstance(op, Rotate):
            pixels_SSC = op.apply(pixels_SSC)
    scale, shift = _affine(tuple(mean), tuple(std), width)
    if pixels_SSC.shape[2] == 1:
        out_SS3 = np.empty((height, width, 3), np.float32)
        for c in range(3):
            np.multiply(pixels_SSC[..., 0], scale[c], out=out_SS3[..., c])
            out_SS3[..., c] += shift[c]
    else:
        rows = np.multiply(pixels_SSC.reshape(height, 3 * width), scale, dtype=np.float32)
        rows += shift
        out_SS3 = rows.reshape(height, width, 3)
    return out_SS3.transpose(2, 0, 1)


@lru_cache(maxsize=8)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift of a row of `width` interleaved RGB pixels."""
    scale = 1.0 / (255.0 * np.asarray(std, dtype=np.float64))
    shift = -np.asarray(mean, dtype=np.float64) / np.asarray(std, dtype=np.float64)
    return np.tile(scale, width).astype(np.float32), np.tile(shift, width).astype(np.float32)


def resized(image: Image.Image, size: Size) -> Pixels:
    """The second step of :func:`prepare`: bicubic, antialiased, to (H, W, C).

    Torch's 8-bit kernel is two to five times as fast as Pillow's.
    """
    pixels_HWC = np.array(image).reshape(image.height, image.width, -1)
    height, width = sides(size)
    if image.size == (width, height):
        return pixels_HWC
    import torch
    from torch.nn.functional import interpolate

    x_1CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
    x_1CSS = interpolate(x_1CHW, size=(height, width), mode="bicubic", antialias=True)
    return x_1CSS[0].permute(1, 2, 0).contiguous().numpy()


def _photometric(image: Image.Image, how: Photometric) -> Image.Image:
    if how == "none":
        return image
    counts = np.asarray(image.convert("L").histogram(), dtype=np.float64)
    levels = np.arange(256)
    mean = float(levels @ counts / counts.sum())
    if how == "brightness":
        return _scaled(image, min(8.0, 127.5 / max(mean, 1.0)))
    spread = float(np.sqrt((levels - mean) ** 2 @ counts / counts.sum()))
    gain = 0.2 * 255 / max(spread, 2.0)  # a blank image is centred, its noise not blown up
    return _scaled(image, gain, 127.5 - gain * mean)


def _scaled(image: Image.Image, gain: float, shift: float = 0.0) -> Image.Image:
    """``gain * value + shift`` in every channel, rounded and saturated."""
    table = np.rint(np.clip(gain * np.arange(256) + shift, 0, 255)).astype(int).tolist()
    return image.point(table * len(image.getbands()))

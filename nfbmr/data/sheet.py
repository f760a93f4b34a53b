"""A picture sheet of a data set as it was understood: pictures by kind, with their masks' outlines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.files import shown_below
from nfbmr.data.images import read_image, read_mask, read_masks
from nfbmr.data.samples import Dataset, Sample, Unused
from nfbmr.errors import ImageError
from nfbmr.paths import atomic
from nfbmr.text import as_text, count

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

TILE = 168
"""Pixels a side of a thumbnail."""
CAPTION = 18
"""Pixels below a thumbnail, for its name."""
HEAD = 30
"""Pixels above a row, for its title."""
GAP = 8
"""Pixels between thumbnails."""
COLUMNS = 6
"""Thumbnails in a row, and so of a side and kind."""
_NAME = 30
_Item = TypeVar("_Item")
OUTLINE = (0, 225, 255)
"""Colour of a mask's outline, red, green and blue."""
_RIM = (20, 20, 20)


def draw_sheet(datasets: Sequence[Dataset], path: Path) -> Path:
    """Draw up to :data:`COLUMNS` pictures of each side and kind, evenly taken, and files that are not used.

    A mask is drawn as a bright outline with a dark rim; where several masks are of a picture, their union is.

    Args:
        datasets: In the order in which they are drawn.
        path: The picture; its ending says the format.

    Returns:
        `path`.

    Raises:
        OutputError: It cannot be written.
    """
    from PIL import Image, ImageDraw

    rows = [row for dataset in datasets for row in _rows(dataset)]
    width, height = GAP + COLUMNS * (TILE + GAP), HEAD + TILE + CAPTION + GAP
    sheet = Image.new("RGB", (width, height * len(rows) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, shown, root) in enumerate(rows):
        top = number * height + GAP
        draw.text((GAP, top + 6), _letters(title, 150), fill="black", font_size=14)
        for column, item in enumerate(shown):
            x, y = GAP + column * (TILE + GAP), top + HEAD
            _paste(sheet, draw, item, (x, y))
            name = shown_below(item.path, root)
            shown_name = name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"
            draw.text((x, y + TILE + 2), _letters(shown_name, _NAME), fill="black", font_size=10)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with atomic(path) as temporary:
        sheet.save(temporary, kind)
    return path


def _rows(dataset: Dataset) -> Iterator[tuple[str, Sequence[Sample | Unused], Path]]:
    """A title, what is drawn below it, and what names are relative to."""
    by_kind: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        by_kind[sample.subset or "", sample.defect].append(sample)
    order = ("train", "validation", "test", "")
    for side, kind in sorted(by_kind, key=lambda key: (order.index(key[0]), key[1] != "good", key[1])):
        samples = by_kind[side, kind]
        masked = sum(bool(s.masks) for s in samples)
        masks = "" if samples[0].is_good else f", {masked} with a mask"
        head = " / ".join(part for part in (dataset.name, side, kind) if part)
        yield f"{head}: {count(len(samples), 'image')}{masks}", _some(samples), dataset.root
    for is_mask, what in ((True, "mask"), (False, "image")):
        unused = [u for u in dataset.unused if u.is_mask is is_mask]
        if unused:
            title = f"{dataset.name} / NOT USED: {count(len(unused), what)}, {unused[0].why}"
            yield title, _some(unused), dataset.root


def _some(items: Sequence[_Item]) -> Sequence[_Item]:
    step = max(1.0, len(items) / COLUMNS)
    return [items[int(i * step)] for i in range(min(COLUMNS, len(items)))]


def _paste(sheet: Image, draw: ImageDraw, item: Sample | Unused, place: tuple[int, int]) -> None:
    """Draw one picture, or why it cannot be."""
    from PIL import Image

    x, y = place
    try:
        if isinstance(item, Unused) and item.is_mask:
            pixels_HWC = np.repeat(read_mask(item.path)[..., None] * np.uint8(255), 3, axis=2)
        else:
            pixels_HWC = read_image(item.path)
        mask_HW = read_masks(item.masks) if isinstance(item, Sample) and item.masks else None
    except ImageError as error:
        draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline="grey")
        draw.text((x + 4, y + 4), _letters(error.what, 28), fill="black", font_size=10)
        return
    height, width = pixels_HWC.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BOX)
    if mask_HW is not None:
        # Whatever part of a cell is marked: a defect of a few pixels is not lost.
        small = np.asarray(Image.fromarray(mask_HW.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
        tile = Image.fromarray(_outlined(np.array(tile), small > 0))
    sheet.paste(tile, (x + (TILE - size[0]) // 2, y + (TILE - size[1]) // 2))
    draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=(210, 210, 210))


def _outlined(pixels_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The outline of a mask drawn outside of it, so that what is marked stays visible."""
    from scipy.ndimage import binary_dilation

    inner = binary_dilation(mask_HW, iterations=1) & ~mask_HW
    outer = binary_dilation(mask_HW, iterations=2) & ~mask_HW & ~inner
    pixels_HWC[outer], pixels_HWC[inner] = _RIM, OUTLINE
    return pixels_HWC


def _letters(text: str, most: int) -> str:
    """Text in letters that Pillow's own font has."""
    plain = as_text(text).encode("ascii", "replace").decode().replace("\n", " ")
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."

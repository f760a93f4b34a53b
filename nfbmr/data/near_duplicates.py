"""A picture of an audit: test images beside the training images most like them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nfbmr.data.images import read_image
from nfbmr.paths import atomic

if TYPE_CHECKING:
    from PIL.Image import Image

    from nfbmr.data.audit import Match
    from nfbmr.data.samples import Sample

_TILE = 160
_CAPTION = 26
_COLUMNS = 4


def draw_matches(matches: Sequence[Match], path: Path, *, count: int = 24) -> Path:
    """Draw pairs, test image on the left, with their similarity.

    Where there are more than `count`, pairs are taken evenly from the most to the least similar.

    Args:
        matches: In order of similarity.
        path: The picture; its ending says the format.
        count: Pairs to draw.

    Returns:
        `path`.

    Raises:
        OutputError: It cannot be written.
    """
    from PIL import Image, ImageDraw

    step = max(1.0, len(matches) / count)
    shown = [matches[int(i * step)] for i in range(min(count, len(matches)))]
    rows = max(1, -(-len(shown) // _COLUMNS))
    width, height = 2 * _TILE + 12, _TILE + _CAPTION
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, match in enumerate(shown):
        x, y = place % _COLUMNS * width, place // _COLUMNS * height
        sheet.paste(_thumbnail(match.test), (x, y + _CAPTION))
        sheet.paste(_thumbnail(match.train), (x + _TILE + 2, y + _CAPTION))
        kind = "" if match.test.is_good else f" ({match.test.defect})"
        caption = (
            f"{match.similarity:.2f} {match.verdict}  {_short(match.test)}{kind} | {_short(match.train)}"
        )
        draw.text((x, y + 6), caption, fill="black")
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with atomic(path) as temporary:
        sheet.save(temporary, kind)
    return path


def _thumbnail(sample: Sample) -> Image:
    from PIL import Image

    return Image.fromarray(read_image(sample.path)).resize((_TILE, _TILE), Image.Resampling.BOX)


def _short(sample: Sample) -> str:
    """The end of a name, in letters that Pillow's own font has."""
    stem = sample.path.stem.encode("ascii", "replace").decode().replace("\n", " ")
    return stem[-18:]

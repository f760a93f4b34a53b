"""The picture sheet: what is drawn of a data set, and what of files that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.layouts import load_dataset
from nfbmr.data.sheet import CAPTION, COLUMNS, GAP, HEAD, OUTLINE, TILE, draw_sheet
from tests.data.drawn import SIZE, bad, flawed, good, save

ROW = HEAD + TILE + CAPTION + GAP


def tile(sheet: Path, row: int, column: int) -> NDArray[np.uint8]:
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    top, left = row * ROW + GAP + HEAD, GAP + column * (TILE + GAP)
    return pixels[top : top + TILE, left : left + TILE]


def test_a_row_a_kind_with_outlines_around_masks(tmp_path: Path) -> None:
    good(tmp_path / "set/good", COLUMNS + 2)
    bad(tmp_path / "set/dent/000.jpg", tmp_path / "set/masks/000.png", tmp_path / "set/masks/000_1.png")
    save(flawed(5)[1], tmp_path / "set/masks/900.png")
    sheet = draw_sheet([load_dataset(tmp_path / "set")], tmp_path / "sheet.png")
    with Image.open(sheet) as image:
        assert image.size == (GAP + COLUMNS * (TILE + GAP), 3 * ROW + GAP)
    outline = (tile(sheet, 1, 0) == OUTLINE).all(axis=2)
    assert not (tile(sheet, 0, 0) == OUTLINE).all(axis=2).any()
    mask = np.asarray(flawed(0)[1]) > 0
    ys, xs = np.nonzero(mask | mask[::-1])
    scale, above = TILE / SIZE[0], (TILE - SIZE[1] * TILE / SIZE[0]) / 2
    rows, columns = np.nonzero(outline)
    assert abs(columns.min() - xs.min() * scale) < 4
    assert abs(columns.max() - (xs.max() + 1) * scale) < 4
    assert abs(rows.min() - (above + ys.min() * scale)) < 4
    assert abs(rows.max() - (above + (ys.max() + 1) * scale)) < 4


def test_what_cannot_be_read_is_said_in_its_place(tmp_path: Path) -> None:
    good(tmp_path / "good", 3)
    (tmp_path / "good/000.png").write_bytes(b"nothing")
    sheet = draw_sheet([load_dataset(tmp_path)], tmp_path / "sheet.jpg")
    with Image.open(sheet) as image:
        assert image.format == "JPEG"

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.data.inspect import inspect_dataset
from nfbmr.data.layouts import load_dataset


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 24), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (32, 24), value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def huge_png(path: Path, side: int) -> None:
    """A valid header that claims side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_a_sound_set_has_no_problems(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"good/{i}.png", i)
    picture(tmp_path / "dent/0.png", 9)
    mask(tmp_path / "ground_truth/dent/0_mask.png")
    inspection = inspect_dataset(load_dataset(tmp_path))
    assert inspection.problems == ()
    assert inspection.counts == {"all": {"dent": 1, "good": 4}}
    assert (inspection.sizes, inspection.modes, inspection.masks, inspection.groups) == (
        {(32, 24): 5},
        {"L": 5},
        1,
        None,
    )
    assert "no problems found" in inspection.render()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with one of everything that can be wrong."""
    good = tmp_path / "good"
    for i in range(3):
        picture(good / f"{i}.png", i)
    (good / "twice.png").write_bytes((good / "0.png").read_bytes())
    (good / "empty.png").touch()
    (good / "text.jpg").write_text("not an image")
    whole = picture(good / "cut.png", 5, (64, 64)).read_bytes()
    (good / "cut.png").write_bytes(whole[: len(whole) // 2])
    huge_png(good / "huge.png", 60_000)
    picture(good / "colour.png", 6, (40, 40), "RGB")
    for i in range(4):
        picture(tmp_path / f"dent/{i}.png", 20 + i)
    (tmp_path / "dent/label.png").write_bytes((good / "1.png").read_bytes())
    truth = tmp_path / "ground_truth/dent"
    mask(truth / "0_mask.png", (16, 16))
    mask(truth / "1_mask.png", value=0)
    mask(truth / "2_mask.png").write_bytes(b"")
    mask(truth / "orphan_mask.png")
    picture(tmp_path / "elsewhere.png", 50)
    return tmp_path


def test_everything_wrong_is_listed_at_once(broken: Path) -> None:
    inspection = inspect_dataset(load_dataset(broken))
    problems = {(p.kind, p.name) for p in inspection.problems}
    assert problems == {
        ("unreadable image", "good/empty.png"),
        ("unreadable image", "good/text.jpg"),
        ("unreadable image", "good/cut.png"),
        ("unreadable image", "good/huge.png"),
        ("same content twice", "good/twice.png"),
        ("same content twice", "good/1.png"),
        ("mask of another size", "ground_truth/dent/0_mask.png"),
        ("mask that marks nothing", "ground_truth/dent/1_mask.png"),
        ("unreadable mask", "ground_truth/dent/2_mask.png"),
        ("mask without image", "ground_truth/dent/orphan_mask.png"),
    }
    details = {p.name: p.detail for p in inspection.problems}
    assert "60000" in details["good/huge.png"]
    assert "16 x 16, its image is 32 x 24" in details["ground_truth/dent/0_mask.png"]
    assert "one is good and the other defective" in details["good/1.png"]
    text = inspection.render()
    assert all(repr(name) in text for _, name in problems)
    notes = " ".join(inspection.notes)
    assert "different sizes" in notes
    assert "several modes" in notes
    assert "elsewhere.png" in notes


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"good/{i}.png", i)
    (tmp_path / "good/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "scratch").symlink_to(tmp_path / "unmounted")
    picture(tmp_path / "good/folder.png/inside.png", 7)
    (tmp_path / "good/circle").symlink_to(tmp_path / "good")
    os.mkfifo(tmp_path / "good/pipe.png")  # whoever opens it waits for ever
    (tmp_path / "good/.hidden.png").symlink_to(tmp_path / "nowhere.png")
    with socket.socket(socket.AF_UNIX) as listener:
        # a short name: the address of a socket is limited to about a hundred bytes
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
        inspection = inspect_dataset(load_dataset(tmp_path))
    assert {(p.kind, p.name) for p in inspection.problems} == {
        ("link that leads nowhere", "good/gone.png"),
        ("link that leads nowhere", "scratch"),
        ("folder named like an image", "good/folder.png"),
        ("pipe, socket or device", "good/pipe.png"),
        ("pipe, socket or device", "socket.jpg"),
    }


def test_a_pipe_where_dagm_keeps_its_labels_is_not_waited_for(tmp_path: Path) -> None:
    for side in ("Train", "Test"):
        for i in range(3):
            picture(tmp_path / f"Class1/{side}/{i}.png", i + 10 * (side == "Test"))
        (tmp_path / f"Class1/{side}/Label").mkdir()
        os.mkfifo(tmp_path / f"Class1/{side}/Label/Labels.txt")
    inspection = inspect_dataset(load_dataset(tmp_path / "Class1"))
    assert [p.kind for p in inspection.problems] == ["pipe, socket or device"] * 2


def test_one_image_is_one_image(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"good/{i}.png", i)
    picture(tmp_path / "dent/0.png", 9)
    (tmp_path / "dent/0.png").write_bytes(b"")
    picture(tmp_path / "elsewhere.png", 50)
    text = inspect_dataset(load_dataset(tmp_path)).render()
    assert "1 problem\n" in text
    assert "1 image is not used: straight in the folder" in text


def test_the_json_is_json_and_whole(broken: Path) -> None:
    inspection = inspect_dataset(load_dataset(broken))
    parsed = json.loads(json.dumps(inspection.as_json()))
    assert len(parsed["problems"]) == len(inspection.problems)
    assert parsed["counts"] == {"all": {"dent": 5, "good": 9}}


def test_a_set_with_one_good_image(tmp_path: Path) -> None:
    picture(tmp_path / "good/only.png", 0)
    inspection = inspect_dataset(load_dataset(tmp_path))
    assert [p.kind for p in inspection.problems] == ["too few normal images"]
    assert any("no defective images" in note for note in inspection.notes)

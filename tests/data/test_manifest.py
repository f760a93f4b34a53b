"""A table with a row an image: written from what was understood, read back as the same data set."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.config import DataConfig
from nfbmr.data.layouts import categories, load_dataset
from nfbmr.data.manifest import read_manifest, write_manifest
from nfbmr.data.splits import make_split
from nfbmr.errors import DataError, OutputError
from tests.data.drawn import bad, flawed, good, save


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of one's own with everything that a manifest can say."""
    root = tmp_path / "parts"
    good(root / "good", 6)
    for i in range(3):
        bad(root / f"scratch/{i:03}.jpg", root / f"masks/{i:03}.png", root / f"masks/{i:03}_1.png", seed=i)
    save(flawed(9)[1], root / "masks/900.png")
    return root


def mvtec(root: Path, *names: str) -> Path:
    for name in names:
        good(root / name / "train/good", 5)
        good(root / name / "test/good", 2, first=20)
        bad(root / name / "test/hole/000.png", root / name / "ground_truth/hole/000_mask.png")
    return root


def write(file: Path, *rows: dict[str, Any]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return file


class TestRoundTrip:
    @pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
    @pytest.mark.parametrize("inside", [True, False])
    def test_training_on_it_is_training_on_the_folder(
        self, parts: Path, tmp_path: Path, ending: str, inside: bool
    ) -> None:
        dataset = load_dataset(parts)
        folder = parts if inside else tmp_path / "elsewhere"
        again = load_dataset(write_manifest([dataset], folder / f"parts.{ending}"))
        assert again.layout == "manifest"
        assert [(s.name, s.defect, len(s.masks)) for s in again.samples] == [
            (s.name, s.defect, len(s.masks)) for s in dataset.samples
        ]
        assert [m.resolve() for s in again.samples for m in s.masks] == [
            m.resolve() for s in dataset.samples for m in s.masks
        ]
        assert [(u.path.name, u.why) for u in again.unused] == [("900.png", dataset.unused[0].why)]
        config = DataConfig(seed=3)
        assert make_split(again, config).digest == make_split(dataset, config).digest

    def test_sides_and_groups_and_categories_come_along(self, tmp_path: Path) -> None:
        root = mvtec(tmp_path / "set", "bolt", "nut")
        datasets = [load_dataset(root, category=n, group_by=r"(\d+)\.png") for n in categories(root)]
        file = write_manifest(datasets, tmp_path / "all.csv")
        assert categories(file) == ("bolt", "nut")
        for dataset in datasets:
            again = load_dataset(file, category=dataset.category)
            assert [(s.subset, s.group) for s in again.samples] == [
                (s.subset, s.group) for s in dataset.samples
            ]
            split = make_split(again, DataConfig())
            assert (split.name, split.digest) == ("official", make_split(dataset, DataConfig()).digest)
        with pytest.raises(DataError, match="2 categories and none is named"):
            load_dataset(file)

    def test_somebody_s_corrections_are_not_overwritten(self, parts: Path, tmp_path: Path) -> None:
        file = write_manifest([load_dataset(parts)], tmp_path / "parts.csv")
        with pytest.raises(OutputError, match="somebody may have corrected"):
            write_manifest([load_dataset(parts)], file)

    @given(name=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=15))
    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_any_name(self, tmp_path_factory: pytest.TempPathFactory, ending: str, name: str) -> None:
        root = tmp_path_factory.mktemp("names")
        good(root / "good", 1)
        (root / "good" / f"x{name}.png").touch()
        dataset = load_dataset(root)
        again = load_dataset(write_manifest([dataset], root / f"all.{ending}"))
        assert [(s.name, s.path.resolve()) for s in again.samples] == [
            (s.name, s.path.resolve()) for s in dataset.samples
        ]


class TestWrittenByHand:
    def test_path_and_label_suffice(self, tmp_path: Path) -> None:
        good(tmp_path / "shots", 5)
        rows = [{"image": f"shots/{i:03}.png", "label": label} for i, label in enumerate("0110")]
        dataset = read_manifest(write(tmp_path / "m.csv", *rows))
        assert [s.defect for s in dataset.samples] == ["good", "defect", "defect", "good"]
        assert [s.name for s in dataset.samples] == [f"shots/{i:03}.png" for i in range(4)]

    def test_a_spreadsheet_s_semicolons_and_byte_order_mark(self, tmp_path: Path) -> None:
        good(tmp_path / "shots", 2)
        file = tmp_path / "m.csv"
        file.write_text("Path;Label;Kind\nshots/000.png;OK;\nshots/001.png;NG;dent\n", encoding="utf-8-sig")
        assert read_manifest(file).counts() == {"dent": 1, "good": 1}

    def test_masks_of_json_are_a_list_or_a_name(self, tmp_path: Path) -> None:
        good(tmp_path, 2)
        bad(tmp_path / "b.jpg", tmp_path / "b1.png", tmp_path / "b2.png")
        rows = [
            {"path": "000.png", "kind": "good"},
            {"path": "b.jpg", "kind": "dent", "mask": ["b1.png", "b2.png"]},
            {"path": "001.png", "kind": "dent", "mask": "b1.png"},
        ]
        file = tmp_path / "m.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        assert [len(s.masks) for s in read_manifest(file).samples] == [0, 1, 2]

    def test_names_as_spreadsheets_and_other_systems_leave_them(self, tmp_path: Path) -> None:
        good(tmp_path / "good", 1)
        bad(tmp_path / "bad/b.jpg", tmp_path / "bad/b|1.png", tmp_path / "bad/b 2.png")
        file = tmp_path / "m.csv"
        file.write_text(
            "path,kind,mask\ngood\\000.png ,good,\nbad\\b.jpg,dent,bad/b|1.png\n", encoding="utf-8"
        )
        dataset = read_manifest(file)
        assert [[m.name for m in s.masks] for s in dataset.samples] == [["b|1.png"], []]

    def test_validation_of_its_own(self, tmp_path: Path) -> None:
        good(tmp_path, 6)
        sides = ("train", "train", "val", "validation", "test", "test")
        rows = [{"path": f"{i:03}.png", "kind": "ok", "split": side} for i, side in enumerate(sides)]
        split = make_split(read_manifest(write(tmp_path / "m.csv", *rows)), DataConfig())
        assert [len(part) for part in (split.train, split.validation, split.test)] == [2, 2, 2]

    @pytest.mark.parametrize(
        ("rows", "what"),
        [
            ([{"path": "000.png", "kind": "dent"}], "no normal images to learn from"),
            ([{"path": "gone.png", "kind": "good"}], r"row 2: no such file: gone\.png"),
            ([{"path": "000.png", "kind": ""}], "row 2: neither kind nor label"),
            (
                [{"path": "000.png", "label": "ok", "kind": "dent"}],
                "the label 'ok' and the kind 'dent' disagree",
            ),
            ([{"path": "000.png", "kind": "good", "split": "left"}], "none of train, validation and test"),
            ([{"path": "000.png", "kind": "good"}] * 2, "1 path stand there twice"),
            ([{"picture": "000.png", "kind": "good"}], "no column path"),
            (
                [{"path": "000.png", "kind": "good", "group": "a"}, {"path": "001.png", "kind": "good"}],
                "1 of 2 rows name a group",
            ),
            ([{"path": "000.png", "kind": "dent", "mask": "m.png"}], r"no such file: m\.png"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, rows: list[dict[str, Any]], what: str) -> None:
        good(tmp_path, 2)
        with pytest.raises(DataError, match=what):
            read_manifest(write(tmp_path / "m.csv", *rows))

    @pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
    def test_files_that_are_none(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\xff\xfe{[nothing\n\x00")
        with pytest.raises(DataError):
            load_dataset(tmp_path / name)

    def test_a_manifest_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such"):
            load_dataset(tmp_path / "m.csv")

"""What a folder's names say. Layouts open no file, so empty files do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.layouts import categories, detect_layout, load_dataset
from nfbmr.errors import DataError


def make(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def mvtec(root: Path, category: str = "bottle") -> Path:
    return make(
        root,
        *(f"{category}/train/good/{i:03d}.png" for i in range(3)),
        f"{category}/test/good/000.png",
        f"{category}/test/broken large/000.png",
        f"{category}/test/broken large/001.png",
        f"{category}/ground_truth/broken large/000_mask.png",
    )


def dagm(root: Path, labels: str | None) -> Path:
    make(root, *(f"Class1/{side}/000{i}.PNG" for side in ("Train", "Test") for i in range(1, 5)))
    for side in ("Train", "Test"):
        make(root, f"Class1/{side}/Label/0002_label.PNG")
        if labels is not None:
            (root / f"Class1/{side}/Label/Labels.txt").write_text(labels)
    return root


class TestMvtec:
    def test_a_category_is_read_with_sides_defects_and_masks(self, tmp_path: Path) -> None:
        dataset = load_dataset(mvtec(tmp_path), category="bottle")
        assert (dataset.name, dataset.layout, dataset.root) == ("mvtec/bottle", "mvtec", tmp_path / "bottle")
        assert dataset.counts() == {"broken large": 2, "good": 4}
        by_name = {s.name: s for s in dataset.samples}
        assert list(by_name) == sorted(by_name)
        assert by_name["test/broken large/000.png"].masks == (
            tmp_path / "bottle/ground_truth/broken large/000_mask.png",
        )
        assert by_name["test/broken large/001.png"].masks == ()
        assert {s.subset for s in dataset.samples if s.name.startswith("train")} == {"train"}

    def test_the_folder_of_the_category_itself_gives_the_same(self, tmp_path: Path) -> None:
        mvtec(tmp_path)
        assert load_dataset(tmp_path / "bottle") == load_dataset(tmp_path, category="bottle")
        assert categories(tmp_path / "bottle") == ()

    def test_one_category_needs_no_naming(self, tmp_path: Path) -> None:
        assert load_dataset(mvtec(tmp_path)).name == "mvtec/bottle"

    def test_several_categories_are_listed_where_none_is_named(self, tmp_path: Path) -> None:
        mvtec(mvtec(tmp_path), "cable")
        assert categories(tmp_path) == ("bottle", "cable")
        with pytest.raises(DataError, match="2 categories") as error:
            load_dataset(tmp_path)
        assert "bottle, cable" in str(error.value)

    def test_an_unknown_category_gets_the_nearest_name(self, tmp_path: Path) -> None:
        mvtec(mvtec(tmp_path), "cable")
        with pytest.raises(DataError, match="did you mean bottle"):
            load_dataset(tmp_path, category="botle")

    def test_no_normals_is_refused(self, tmp_path: Path) -> None:
        make(tmp_path, "bottle/test/good/0.png", "bottle/test/cut/0.png")
        (tmp_path / "bottle/train/good").mkdir(parents=True)
        with pytest.raises(DataError, match="train/good"):
            load_dataset(tmp_path, category="bottle")


class TestDagm:
    LABELS = (
        "1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t1\t0002_label.PNG\n"
        "3\t0\t0003.PNG\t0\t0\n4\t1\t0004.PNG\t0\t0\n"
    )

    def test_labels_say_what_is_defective(self, tmp_path: Path) -> None:
        dataset = load_dataset(dagm(tmp_path, self.LABELS))
        assert (dataset.name, dataset.layout) == ("dagm/Class1", "dagm")
        defective = [s for s in dataset.samples if not s.is_good]
        assert [s.path.stem for s in defective if s.subset == "train"] == ["0002", "0004"]
        assert [[m.name for m in s.masks] for s in defective if s.subset == "test"] == [
            ["0002_label.PNG"],
            [],
        ]

    def test_without_labels_the_mask_files_say_it(self, tmp_path: Path) -> None:
        dataset = load_dataset(dagm(tmp_path, None))
        assert [s.path.stem for s in dataset.samples if not s.is_good] == ["0002", "0002"]

    def test_classes_are_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        make(tmp_path, *(f"Class{k}/{side}/1.PNG" for k in (1, 2, 10) for side in ("Train", "Test")))
        assert categories(tmp_path) == ("Class1", "Class2", "Class10")
        assert detect_layout(tmp_path / "Class10") == "dagm"


class TestMtd:
    def test_tiles_masks_and_blank_masks_of_good_ones(self, tmp_path: Path) -> None:
        make(
            tmp_path,
            *(f"MT_Free/Imgs/exp{e}_num_{20 * e}.{end}" for e in (1, 2) for end in ("jpg", "png")),
            "MT_Crack/Imgs/exp3_num_60.jpg",
            "MT_Crack/Imgs/exp3_num_60.png",
            "MT_Crack/Imgs/exp1_num_90000.png",
        )
        dataset = load_dataset(tmp_path)
        assert (dataset.layout, dataset.counts()) == ("mtd", {"crack": 1, "good": 2})
        assert {s.group for s in dataset.samples} == {"tile-20"}
        assert [[m.name for m in s.masks] for s in dataset.samples] == [["exp3_num_60.png"], [], []]
        orphan = tmp_path / "MT_Crack/Imgs/exp1_num_90000.png"
        assert [(u.path, u.is_mask) for u in dataset.unused] == [(orphan, True)]


class TestOwnFolder:
    def test_good_and_defect_folders_with_masks_in_any_of_three_places(self, tmp_path: Path) -> None:
        make(
            tmp_path,
            "Good/a.JPG",
            "Good/deeper/b.tiff",
            "scratch/1.png",
            "scratch/2.webp",
            "scratch/3.bmp",
            "scratch/3_mask.png",
            "scratch/4.jpeg",
            "ground_truth/scratch/1_mask.png",
            "masks/2.png",
            "notes.txt",
            "scratch/._1.png",
        )
        dataset = load_dataset(tmp_path)
        assert dataset.layout == "folder"
        assert dataset.counts() == {"good": 2, "scratch": 4}
        masks = {s.path.stem: [m.relative_to(tmp_path).as_posix() for m in s.masks] for s in dataset.samples}
        assert masks == {
            "a": [],
            "b": [],
            "1": ["ground_truth/scratch/1_mask.png"],
            "2": ["masks/2.png"],
            "3": ["scratch/3_mask.png"],
            "4": [],
        }

    def test_images_straight_in_the_folder_are_normals(self, tmp_path: Path) -> None:
        dataset = load_dataset(make(tmp_path, "a.png", "b.png", "dent/c.png", "face_mask.jpg"))
        assert dataset.counts() == {"dent": 1, "good": 3}

    def test_defect_folders_alone_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no normal images.*dent") as error:
            load_dataset(make(tmp_path, "dent/a.png"))
        assert "good/" in str(error.value.fix)

    def test_group_by_names_the_part(self, tmp_path: Path) -> None:
        make(tmp_path, "good/p1_a.png", "good/p1_b.png", "good/p2_a.png")
        dataset = load_dataset(tmp_path, group_by=r"(p\d+)_")
        assert [s.group for s in dataset.samples] == ["p1", "p1", "p2"]

    def test_group_by_that_misses_an_image_is_refused(self, tmp_path: Path) -> None:
        make(tmp_path, "good/p1_a.png", "good/other.png")
        with pytest.raises(DataError, match=r"1 of 2 images: 'good/other\.png'"):
            load_dataset(tmp_path, group_by=r"(p\d+)_")

    def test_links_in_a_circle_end(self, tmp_path: Path) -> None:
        make(tmp_path, "good/a.png")
        (tmp_path / "good/again").symlink_to(tmp_path / "good", target_is_directory=True)
        assert load_dataset(tmp_path).counts() == {"good": 1}


class TestNames:
    NAMES = ("with space.png", 'it\'s "quoted".png', "new\nline.png", "磁瓦.png", "größe.png", "مغناطيس.png")

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name_is_kept(self, tmp_path: Path, name: str) -> None:
        dataset = load_dataset(make(tmp_path, f"good/{name}"))
        assert [s.name for s in dataset.samples] == [f"good/{name}"]
        assert dataset.samples[0].path.is_file()

    def test_bytes_that_are_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "good").mkdir()
        raw = os.path.join(os.fsencode(tmp_path / "good"), b"caf\xe9.png")  # noqa: PTH118
        try:
            os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
        except OSError:
            pytest.skip("the file system takes only UTF-8 names")
        dataset = load_dataset(tmp_path)
        assert os.fsencode(dataset.samples[0].path) == raw

    @settings(max_examples=30)
    @given(
        st.sets(
            st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20),
            min_size=1,
        )
    )
    def test_whatever_can_be_a_file_name_is_read(
        self, tmp_path_factory: pytest.TempPathFactory, stems: set[str]
    ) -> None:
        root = tmp_path_factory.mktemp("names")
        kept = {f"good/{s}.png" for s in stems if not s.startswith(".") and not s.lower().endswith("_mask")}
        make(root, "good/x.png", *kept)
        assert {s.name for s in load_dataset(root).samples} == kept | {"good/x.png"}


class TestBadInput:
    def test_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such folder"):
            load_dataset(tmp_path / "nowhere")

    def test_a_file_instead_of_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a file, not a folder"):
            load_dataset(make(tmp_path, "a.png") / "a.png")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no images"):
            load_dataset(tmp_path)

    def test_a_path_with_a_null_byte_or_too_long(self, tmp_path: Path) -> None:
        for path in ("a\0b", "x" * 5000):
            with pytest.raises(DataError):
                load_dataset(tmp_path / path)

    def test_a_layout_there_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="mvtec, dagm, mtd, folder"):
            load_dataset(make(tmp_path, "a.png"), layout="coco")

    def test_a_layout_that_does_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not laid out as mvtec"):
            load_dataset(make(tmp_path, "a.png"), layout="mvtec")

    def test_a_category_where_there_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has no categories"):
            load_dataset(make(tmp_path, "good/a.png"), category="bottle")

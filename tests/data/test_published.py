"""The field's data sets, each as a small copy in the layout in which it is published."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfbmr.config import DataConfig
from nfbmr.data.images import read_masks
from nfbmr.data.inspect import inspect_dataset
from nfbmr.data.layouts import LAYOUTS, categories, detect_layout, load_dataset
from nfbmr.data.samples import Dataset
from nfbmr.data.splits import make_split
from nfbmr.errors import DataError
from tests.data.drawn import SIZE, bad, flawed, good, part, save


def sides(dataset: Dataset) -> dict[str | None, dict[str, int]]:
    """Kinds by side."""
    counts: dict[str | None, Counter[str]] = {}
    for sample in dataset.samples:
        counts.setdefault(sample.subset, Counter())[sample.defect] += 1
    return {side: dict(kinds) for side, kinds in counts.items()}


def all_masked(dataset: Dataset) -> None:
    """Every defective image has its mask, which marks something, and nothing is left over."""
    defective = [s for s in dataset.samples if not s.is_good]
    assert defective
    assert all(read_masks(s.masks).any() for s in defective)
    assert not any(s.masks for s in dataset.samples if s.is_good)
    assert not [u for u in dataset.unused if u.is_mask]
    assert inspect_dataset(dataset).problems == ()


def test_every_layout_has_a_name_that_the_configuration_takes() -> None:
    for name in ("auto", *LAYOUTS):
        assert DataConfig(layout=name).layout == name


def visa(root: Path, *, split: bool = True) -> Path:
    rows = []
    for i in range(8):
        name = f"candle/Data/Images/Normal/{i:04}.JPG"
        save(part(i), root / name)
        rows.append(("candle", "train" if i < 6 else "test", "normal", name, ""))
    for i in range(3):
        name, truth = f"candle/Data/Images/Anomaly/{i:03}.JPG", f"candle/Data/Masks/Anomaly/{i:03}.png"
        bad(root / name, root / truth, seed=i, value=i + 1)
        rows.append(("candle", "test", "anomaly", name, truth))
    (root / "candle/image_anno.csv").write_text("image,label,mask\n")
    good(root / "cashew/Data/Images/Normal", 3, ending=".JPG")
    if split:
        (root / "split_csv").mkdir()
        for name in ("1cls.csv", "2cls_fewshot.csv"):
            with (root / "split_csv" / name).open("w", newline="") as file:
                csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return root


class TestVisa:
    def test_by_its_split_file_with_masks_of_small_values(self, tmp_path: Path) -> None:
        root = visa(tmp_path)
        assert (detect_layout(root), categories(root)) == ("visa", ("candle", "cashew"))
        dataset = load_dataset(root, category="candle")
        assert dataset.name == "visa/candle"
        assert sides(dataset) == {"train": {"good": 6}, "test": {"good": 2, "anomaly": 3}}
        all_masked(dataset)
        assert load_dataset(root / "candle").samples == dataset.samples

    def test_without_it_by_folders(self, tmp_path: Path) -> None:
        dataset = load_dataset(visa(tmp_path, split=False), category="candle")
        assert sides(dataset) == {None: {"good": 8, "anomaly": 3}}
        assert dataset.samples[0].name == "Data/Images/Anomaly/000.JPG"
        all_masked(dataset)

    def test_a_split_file_that_names_what_is_not_there(self, tmp_path: Path) -> None:
        (visa(tmp_path) / "candle/Data/Images/Normal/0003.JPG").unlink()
        with pytest.raises(DataError, match=r"1 images? of the split file do.*0003\.JPG"):
            load_dataset(tmp_path, category="candle")

    def test_as_its_own_script_rearranges_it(self, tmp_path: Path) -> None:
        good(tmp_path / "candle/train/good", 4, ending=".JPG")
        good(tmp_path / "candle/test/good", 2, ending=".JPG", first=40)
        bad(tmp_path / "candle/test/bad/000.JPG", tmp_path / "candle/ground_truth/bad/000.png")
        dataset = load_dataset(tmp_path)
        assert (dataset.layout, dataset.counts()) == ("mvtec", {"bad": 1, "good": 6})
        all_masked(dataset)


@pytest.mark.parametrize(
    ("name", "image", "mask"), [("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")]
)
def test_btad(tmp_path: Path, name: str, image: str, mask: str) -> None:
    root = tmp_path / "BTech_Dataset_transformed"
    good(root / name / "train/ok", 5, ending=f".{image}")
    good(root / name / "test/ok", 3, ending=f".{image}", first=50)
    for i in range(3):
        bad(root / name / f"test/ko/{i:04}.{image}", root / name / f"ground_truth/ko/{i:04}.{mask}", seed=i)
    dataset = load_dataset(root, category=name)
    assert (dataset.name, sides(dataset)) == (
        f"btad/{name}",
        {"train": {"good": 5}, "test": {"good": 3, "ko": 3}},
    )
    all_masked(dataset)


def test_mvtec_loco(tmp_path: Path) -> None:
    box = tmp_path / "breakfast_box"
    good(box / "train/good", 5)
    good(box / "validation/good", 3, first=20)
    good(box / "test/good", 3, first=40)
    for i in range(3):
        for k, (kind, value) in enumerate((("logical_anomalies", 236), ("structural_anomalies", 255))):
            masks = [box / f"ground_truth/{kind}/{i:03}/{n:03}.png" for n in range(2 if i == 0 else 1)]
            bad(box / f"test/{kind}/{i:03}.png", *masks, seed=10 * k + i, value=value)
    (tmp_path / "breakfast_box/defects_config.json").write_text("[]")
    dataset = load_dataset(tmp_path)
    assert dataset.name == "loco/breakfast_box"
    assert sides(dataset) == {
        "train": {"good": 5},
        "validation": {"good": 3},
        "test": {"good": 3, "logical_anomalies": 3, "structural_anomalies": 3},
    }
    all_masked(dataset)
    two = next(s for s in dataset.samples if s.name == "test/logical_anomalies/000.png")
    mask = np.asarray(flawed(0)[1]) > 0
    np.testing.assert_array_equal(read_masks(two.masks), mask | mask[::-1])
    split = make_split(dataset, DataConfig())
    assert {s.subset for s in split.validation} == {"validation"}
    assert (len(split.train), len(split.validation), len(split.test)) == (5, 3, 9)


def ad2(root: Path) -> Path:
    can = root / "can"
    for i in range(5):
        save(part(i), can / f"train/good/{i:03}_regular.png")
    for i in range(2):
        save(part(20 + i), can / f"validation/good/{i:03}_regular.png")
        save(part(30 + i), can / f"test_private/{i:03}_regular.png")
        save(part(40 + i), can / f"test_private_mixed/{i:03}_mixed.png")
        for k, light in enumerate(("regular", "overexposed", "shift_1")):
            save(part(50 + 10 * k + i), can / f"test_public/good/{i:03}_{light}.png")
            mask = can / f"test_public/ground_truth/bad/{i:03}_{light}_mask.png"
            bad(can / f"test_public/bad/{i:03}_{light}.png", mask, seed=10 * k + i)
    return root


class TestMvtecAd2:
    def test_its_public_test_set_is_tested_on(self, tmp_path: Path) -> None:
        dataset = load_dataset(ad2(tmp_path))
        assert dataset.name == "ad2/can"
        assert sides(dataset) == {
            "train": {"good": 5},
            "validation": {"good": 2},
            "test": {"good": 6, "bad": 6},
        }
        split = make_split(dataset, DataConfig())
        assert (split.name, len(split.train), len(split.validation), len(split.test)) == (
            "official",
            5,
            2,
            12,
        )
        assert all(read_masks(s.masks).any() for s in dataset.samples if s.defect == "bad")

    def test_a_scene_in_several_lights_is_one_group(self, tmp_path: Path) -> None:
        dataset = load_dataset(ad2(tmp_path))
        lights = Counter(s.group for s in dataset.samples if s.defect == "bad")
        assert lights == {"test_public/bad/000": 3, "test_public/bad/001": 3}
        assert make_split(dataset, DataConfig()).grouped

    def test_its_private_test_sets_are_named_and_count_nowhere(self, tmp_path: Path) -> None:
        notes = inspect_dataset(load_dataset(ad2(tmp_path))).notes
        assert any(
            "4 images are not used: a test set without labels: nfbmr predict" in note for note in notes
        )

    def test_without_any_test_set_nobody_is_told_to_give_one_up(self, tmp_path: Path) -> None:
        good(tmp_path / "can/train/good", 5)
        good(tmp_path / "can/eval/good", 2)
        with pytest.raises(DataError, match="no test images") as error:
            make_split(load_dataset(tmp_path, layout="mvtec"), DataConfig())
        assert "2 images lie in no place that is read" in str(error.value.fix)
        assert "folder of normals itself" not in str(error.value.fix)


def test_mpdd(tmp_path: Path) -> None:
    root = tmp_path / "bracket_black"
    good(root / "train/good", 5)
    good(root / "test/good", 2, first=20)
    bad(root / "test/hole/000.png", root / "ground_truth/hole/000_mask.png")
    bad(root / "test/scratches/000.png", root / "ground_truth/scratches/000_mask.png", seed=1)
    for dataset in (load_dataset(tmp_path), load_dataset(tmp_path, layout="mpdd")):
        assert sides(dataset) == {"train": {"good": 5}, "test": {"good": 2, "hole": 1, "scratches": 1}}
        all_masked(dataset)


def ksdd_image(file: Path, mask: Path, seed: int, *, defective: bool) -> None:
    picture, truth = flawed(seed) if defective else (part(seed), Image.new("L", SIZE))
    save(picture.convert("L"), file)
    save(truth, mask)


class TestKolektor:
    def test_ksdd_a_blank_mask_is_a_good_part(self, tmp_path: Path) -> None:
        for k in range(1, 5):
            for j in range(3):
                stem = f"kos{k:02}/Part{j}"
                ksdd_image(
                    tmp_path / f"{stem}.jpg", tmp_path / f"{stem}_label.bmp", 10 * k + j, defective=j == 1
                )
        dataset = load_dataset(tmp_path)
        assert (dataset.name, dataset.layout, dataset.counts()) == ("ksdd", "ksdd", {"defect": 4, "good": 8})
        all_masked(dataset)
        assert make_split(dataset, DataConfig()).name == "random"

    def test_ksdd2_keeps_its_sides(self, tmp_path: Path) -> None:
        for side, first in (("train", 10000), ("test", 20000)):
            for i in range(first, first + 6):
                file = tmp_path / side / f"{i}.png"
                ksdd_image(file, file.with_name(f"{i}_GT.png"), i, defective=i % 10 in (2, 5))
        dataset = load_dataset(tmp_path)
        assert dataset.layout == "ksdd2"
        assert sides(dataset) == {"train": {"good": 4, "defect": 2}, "test": {"good": 4, "defect": 2}}
        all_masked(dataset)
        split = make_split(dataset, DataConfig())
        assert (split.name, len(split.test), len(split.dropped)) == ("official", 6, 2)

    def test_an_image_without_a_mask_is_left_out(self, tmp_path: Path) -> None:
        for j in range(4):
            stem = tmp_path / f"kos01/Part{j}"
            ksdd_image(stem.with_suffix(".jpg"), Path(f"{stem}_label.bmp"), j, defective=j == 1)
        (tmp_path / "kos01/Part3_label.bmp").unlink()
        dataset = load_dataset(tmp_path)
        assert dataset.counts() == {"defect": 1, "good": 2}
        assert [u.path.name for u in dataset.unused] == ["Part3.jpg"]


def realiad(root: Path) -> dict[str, list[dict[str, str | None]]]:
    """Three parts by two cameras and two defective ones, of which one camera does not see the defect."""
    listed: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    for s in range(1, 6):
        for c in (1, 2):
            stem = f"OK/S{s:04}/audiojack_{s:04}_OK_C{c}_20231021"
            save(part(10 * s + c), root / f"{stem}.jpg")
            row = {"category": "audiojack", "anomaly_class": "OK", "image_path": f"{stem}.jpg"}
            listed["train" if s < 4 else "test"].append({**row, "mask_path": None})
    for s in (30, 31):
        for c in (1, 2):
            stem = f"NG/BX/S{s:04}/audiojack_{s:04}_NG_BX_C{c}_20231021"
            seen = (s, c) != (31, 2)
            bad(root / f"{stem}.jpg", *([root / f"{stem}.png"] if seen else []), seed=10 * s + c)
            listed["test"].append(
                {
                    "category": "audiojack",
                    "anomaly_class": "BX" if seen else "OK",
                    "image_path": f"{stem}.jpg",
                    "mask_path": f"{stem}.png" if seen else None,
                }
            )
    return listed


class TestRealIad:
    def test_folders_alone_are_split_by_parts(self, tmp_path: Path) -> None:
        realiad(tmp_path / "audiojack")
        dataset = load_dataset(tmp_path)
        assert (dataset.name, dataset.counts()) == ("realiad/audiojack", {"BX": 3, "good": 11})
        all_masked(dataset)
        split = make_split(dataset, DataConfig())
        assert split.name == "group"
        assert not {s.group for s in split.test} & {s.group for s in (*split.train, *split.validation)}

    @pytest.mark.parametrize("place", ["realiad_jsons", "realiad_jsons/realiad_jsons"])
    @pytest.mark.parametrize("prefix", ["", "audiojack/"])
    def test_its_json_says_the_sides(self, tmp_path: Path, place: str, prefix: str) -> None:
        listed = realiad(tmp_path / "realiad_1024/audiojack")
        realiad(tmp_path / "realiad_256/audiojack")
        for row in (*listed["train"], *listed["test"]):
            row |= {key: f"{prefix}{row[key]}" for key in ("image_path", "mask_path") if row[key]}
        meta = {"normal_class": "OK", "prefix": "audiojack/"}
        for folder in (place, "realiad_jsons_sv"):
            file = tmp_path / folder / "audiojack.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"meta": meta, **listed}))
        for path in (tmp_path, tmp_path / "realiad_1024", tmp_path / "realiad_1024/audiojack"):
            dataset = load_dataset(path)
            assert dataset.root == tmp_path / "realiad_1024/audiojack"
            assert sides(dataset) == {"train": {"good": 6}, "test": {"good": 5, "BX": 3}}
            all_masked(dataset)
        assert make_split(dataset, DataConfig()).name == "official"

    def test_a_json_that_leaves_its_folder_is_refused(self, tmp_path: Path) -> None:
        listed = realiad(tmp_path / "audiojack")
        listed["train"][0]["image_path"] = "../../elsewhere.jpg"
        (tmp_path / "realiad_jsons").mkdir()
        (tmp_path / "realiad_jsons/audiojack.json").write_text(json.dumps(listed))
        with pytest.raises(DataError, match="no path below the category"):
            load_dataset(tmp_path)


class TestAnomalibFolder:
    @pytest.fixture
    def bolts(self, tmp_path: Path) -> Path:
        good(tmp_path / "bolts/good", 6)
        for i in range(3):
            bad(tmp_path / f"bolts/crack/{i:03}.jpg", tmp_path / f"bolts/mask/crack/{i:03}.png", seed=i)
            bad(tmp_path / f"bolts/dent/{i:03}.jpg", tmp_path / f"bolts/mask/dent/{i:03}.png", seed=9 + i)
        return tmp_path

    @pytest.mark.parametrize(
        "text",
        [
            "data:\n  class_path: anomalib.data.Folder\n  init_args:\n    name: bolts\n    root: bolts\n"
            "    normal_dir: good\n    abnormal_dir: [crack, dent]\n    mask_dir: [mask/crack, mask/dent]\n",
            "class_path: Folder\ninit_args: {name: bolts, root: bolts, normal_dir: good, "
            "abnormal_dir: [crack, dent], mask_dir: mask, normal_split_ratio: 0.2}\n",
            "dataset: {name: bolts, format: folder, path: ./bolts, normal_dir: good, "
            "abnormal_dir: [crack, dent], mask: mask, task: segmentation}\nmodel: {name: padim}\n",
        ],
    )
    def test_its_folders(self, bolts: Path, text: str) -> None:
        file = bolts / "config.yaml"
        file.write_text(text)
        dataset = load_dataset(file)
        assert (dataset.name, dataset.layout) == ("bolts", "anomalib")
        assert sides(dataset) == {None: {"good": 6, "crack": 3, "dent": 3}}
        all_masked(dataset)
        assert make_split(dataset, DataConfig()).name == "random"

    def test_a_folder_of_normal_test_images_makes_the_split(self, bolts: Path) -> None:
        good(bolts / "bolts/fresh", 2, first=70)
        file = bolts / "config.yaml"
        file.write_text(
            "class_path: anomalib.data.Folder\ninit_args: {root: bolts, normal_dir: good, "
            "normal_test_dir: fresh, abnormal_dir: crack, extensions: [.png, .jpg]}\n"
        )
        assert sides(load_dataset(file)) == {"train": {"good": 6}, "test": {"good": 2, "crack": 3}}

    def test_its_modules_of_known_sets(self, tmp_path: Path) -> None:
        ad2(tmp_path / "AD2")
        file = tmp_path / "ad2.yaml"
        file.write_text("class_path: anomalib.data.MVTecAD2\ninit_args: {root: AD2, category: can}\n")
        assert load_dataset(file).name == "ad2/can"

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("a: 1\n", "no data module of anomalib's"),
            ("class_path: anomalib.data.Avenue\n", "data module 'avenue' is not read here"),
            ("class_path: Folder\ninit_args: {root: nowhere, normal_dir: good}\n", "no such folder"),
            ("class_path: Folder\ninit_args: {root: bolts}\n", "no normal_dir"),
            ("[1, 2", "cannot be read"),
        ],
    )
    def test_what_is_wrong_is_said(self, bolts: Path, text: str, what: str) -> None:
        file = bolts / "config.yaml"
        file.write_text(text)
        with pytest.raises(DataError, match=what):
            load_dataset(file)

"""data.layout as patterns: where guessing ends, three regular expressions say what is what."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfbmr.config import DataConfig, LayoutPatterns
from nfbmr.data.layouts import categories, load_dataset
from nfbmr.data.splits import make_split
from nfbmr.errors import ConfigError, DataError
from nfbmr.layers import Layer, set_layer
from nfbmr.resolve import dump_yaml, load_config, resolve
from tests.data.drawn import bad, good, part, save


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A camera's folder as nobody would guess it."""
    for name in ("a", "b"):
        good(tmp_path / f"line_{name}/serial", 6)
        for i in range(3):
            bad(
                tmp_path / f"line_{name}/returned/{i:03}-dent.jpg",
                tmp_path / f"drawings/{name}/{i:03}-dent.marked.png",
                seed=i,
            )
    save(part(99), tmp_path / "overview.png")
    return tmp_path


PATTERNS = LayoutPatterns(
    good=r"^line_(?P<category>\w)/serial/",
    defect=r"^line_(?P<category>\w)/returned/\d+-(?P<kind>\w+)\.",
    mask=r"^drawings/\w/(.+)\.marked\.png$",
)


def test_kinds_masks_and_categories_by_groups(line: Path) -> None:
    assert categories(line, PATTERNS) == ("a", "b")
    plain = LayoutPatterns(
        good="^line_a/serial/", defect=r"^line_a/returned/\d+-(\w+)\.", mask=r"^drawings/a/(.+)\.m"
    )
    dataset = load_dataset(line, layout=plain)
    assert (dataset.layout, dataset.counts()) == ("patterns", {"dent": 3, "good": 6})
    assert all(s.masks == (line / f"drawings/a/{s.path.stem}.marked.png",) for s in dataset.samples[:3])
    assert (line / "overview.png") in {u.path for u in dataset.unused}
    with pytest.raises(DataError, match="2 categories and none is named"):
        load_dataset(line, layout=PATTERNS)
    assert load_dataset(line, layout=PATTERNS, category="b").counts() == {"dent": 3, "good": 6}


def test_the_stem_may_name_folders(line: Path) -> None:
    layout = LayoutPatterns(
        good=PATTERNS.good, defect=PATTERNS.defect, mask=r"^drawings/(?P<line>\w)/(?P<stem>.+)\.marked"
    )
    dataset = load_dataset(line, layout=layout, category="a")
    # Both lines have a drawing of each name, and the pattern says nothing of the line: in doubt none is used.
    assert {u.why for u in dataset.unused if u.is_mask} == {"several images have its name"}


def test_sides_and_groups(tmp_path: Path) -> None:
    for side, first in (("train", 0), ("test", 50)):
        good(tmp_path / f"{side}-fine", 4, first=first)
    bad(tmp_path / "test-torn/000.png")
    layout = LayoutPatterns(
        good=r"^(?P<split>\w+)-fine/(?P<group>\d+)", defect=r"^(?P<split>\w+)-(?P<kind>torn)/(?P<group>\d+)"
    )
    dataset = load_dataset(tmp_path, layout=layout)
    split = make_split(dataset, DataConfig())
    assert (split.name, split.grouped, len(split.test)) == ("official", True, 5)


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        (
            LayoutPatterns(good="^nowhere/"),
            r"fits no image to learn from; the first path here is 'overview\.png'",
        ),
        (LayoutPatterns(good="serial", defect="line"), "fits no image to learn from"),
        (LayoutPatterns(good="x", defect=r"_a/(?P<kind>\w+)", mask="^l"), "fits no image to learn from"),
    ],
)
def test_patterns_that_fit_no_good_part(line: Path, layout: LayoutPatterns, what: str) -> None:
    with pytest.raises(DataError, match=what):
        load_dataset(line, layout=layout)


def test_a_defect_pattern_that_fits_the_good_ones(tmp_path: Path) -> None:
    good(tmp_path / "ok", 3)
    with pytest.raises(DataError, match=r"fits 'ok/000\.png' and calls its kind 'ok'"):
        load_dataset(tmp_path, layout=LayoutPatterns(good="^ok/", defect="^([^/]+)/"))


class TestInTheConfiguration:
    def test_from_yaml_and_set_and_back(self, tmp_path: Path) -> None:
        text = r"data.layout={good: '^ok/', defect: '^ng/(?P<kind>\w+)/', mask: '_gt\.png$'}"
        config = resolve([set_layer([text])]).config
        assert config.data.layout == LayoutPatterns(
            good="^ok/", defect=r"^ng/(?P<kind>\w+)/", mask=r"_gt\.png$"
        )
        file = tmp_path / "config.yaml"
        file.write_text(dump_yaml(config))
        assert load_config(file) == config

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            ({"good": "("}, "not a regular expression"),
            ({"defect": "x"}, "good is missing"),
            ({"good": "x", "masks": "y"}, "masks is no pattern: there are good, defect and mask"),
            ("mvtek", "mvtec"),
        ],
    )
    def test_what_is_wrong_is_said(self, value: object, what: str) -> None:
        with pytest.raises(ConfigError, match=what):
            resolve([Layer("a.yaml", {"data": {"layout": value}})])

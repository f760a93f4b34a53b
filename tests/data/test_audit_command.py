"""``nfbmr data audit``, ``inspect`` and ``synthesize``: what they show, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nfbmr.cli.data import data
from nfbmr.errors import ConfigError, DataError
from tests.data.audit_pictures import save, surface


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight parts, each photographed twice."""
    for i in range(16):
        save(tmp_path / f"parts/good/p{i // 2}_{i % 2}.png", (1 - 0.3 * (i % 2)) * surface(i // 2))
    return tmp_path / "parts"


def invoke(*arguments: str) -> object:
    result = CliRunner().invoke(data, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_audit_shows_the_leak_of_a_random_split_and_that_groups_mend_it(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pairs.png"
    leaky = invoke("audit", str(folder), "--split", "random", "--pictures", str(pictures))
    assert leaky["leaks"] is True  # type: ignore[index]
    assert pictures.stat().st_size > 0
    mended = invoke("audit", str(folder), "--group-by", r"(p\d+)_")
    assert mended["leaks"] is False  # type: ignore[index]
    assert mended["datasets"][0]["split"] == "group"  # type: ignore[index]


def test_as_many_twins_are_drawn_as_are_asked_for(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pairs.png"
    for pairs, drawn in ((1, 1), (2, 2)):
        arguments = ("--split", "random", "--pictures", str(pictures), "--twins", "--pairs", str(pairs))
        assert len(invoke("audit", str(folder), *arguments)["datasets"][0]["twins"]) > 1  # type: ignore[index]
        with Image.open(pictures) as image:
            columns = np.array_split(np.asarray(image.convert("L"))[30:], 4, axis=1)
        assert sum(bool((column < 250).mean() > 0.5) for column in columns) == drawn


def test_inspect_lists_every_category(tmp_path: Path) -> None:
    for category in ("bolt", "nut"):
        for i in range(3):
            save(tmp_path / category / f"train/good/{i}.png", surface(i, 32))
        save(tmp_path / category / "test/good/0.png", surface(9, 32))
    found = invoke("inspect", str(tmp_path))
    assert [d["name"] for d in found["datasets"]] == ["mvtec/bolt", "mvtec/nut"]  # type: ignore[index]
    assert found["problems"] == 0  # type: ignore[index]


def test_text_for_people_survives_names_that_are_not_text(tmp_path: Path) -> None:
    root = tmp_path / "with\nnewline"
    save(root / "good/磁瓦 'x'.png", surface(0, 32))
    result = CliRunner().invoke(data, ["inspect", str(root)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "too few normal images" in result.stdout


def test_bad_input_is_an_error_of_ours(tmp_path: Path, folder: Path) -> None:
    for command in ("inspect", "audit"):
        with pytest.raises(DataError):
            CliRunner().invoke(data, [command, str(tmp_path / "nowhere")], catch_exceptions=False)
    with pytest.raises(ConfigError, match="no split"):
        CliRunner().invoke(data, ["audit", str(folder), "--split", "fair"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="does not fit"):
        CliRunner().invoke(data, ["audit", str(folder), "--split", "legacy"], catch_exceptions=False)


def test_synthesize_makes_a_set_that_does_not_leak(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    made = invoke(
        "synthesize", str(out), "--class", "knurled", "--train", "8", "--test-good", "3",
        "--test-defective", "5", "--size", "128",
    )  # fmt: skip
    assert made["counts"]["knurled"]["good"] == 11  # type: ignore[index]
    assert invoke("inspect", str(out))["problems"] == 0  # type: ignore[index]
    assert invoke("audit", str(out))["leaks"] is False  # type: ignore[index]

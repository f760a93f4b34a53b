from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nfbmr.errors import CheckpointError, OutputError
from nfbmr.training.checkpoints import check_identity, exists, load, save

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.uint8)}


def files(folder: Path) -> set[str]:
    return {path.name.split("-")[0] for path in folder.iterdir()}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    channels_last = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    meta = {"epoch": 3, "loss": 0.1 + 0.2, "history": [{"loss": 1e-300}], "none": None}
    save(tmp_path, "last", TENSORS | {"c": channels_last, "d": torch.ones(3, dtype=torch.bfloat16)}, meta)
    tensors, found = load(tmp_path, "last")
    assert found == meta
    assert torch.equal(tensors["c"], channels_last)
    assert tensors["d"].dtype == torch.bfloat16
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)


def test_nothing_is_pickled_and_nothing_is_left_over(tmp_path: Path) -> None:
    for epoch in range(5):
        save(tmp_path, "last", TENSORS, {"epoch": epoch})
    suffixes = sorted(path.suffix for path in tmp_path.iterdir())
    assert suffixes == [".json", ".json", ".safetensors", ".safetensors"], "the newest and the one before"
    save(tmp_path, "last", TENSORS, {"epoch": 5}, previous=False)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".last-0a1b2c3d.safetensors.xyz.tmp").write_bytes(b"half")
    (tmp_path / "last-0a1b2c3d.safetensors").write_bytes(b"whole, but never named")
    (tmp_path / "other-0a1b2c3d.safetensors").write_bytes(b"somebody else's")
    save(tmp_path, "last", TENSORS, {})
    assert files(tmp_path) == {"last.json", "last", "other"}


@pytest.mark.parametrize("part", ["json", "tensors"])
@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "gone"])
def test_a_damaged_one_falls_back_to_the_one_before(
    tmp_path: Path, part: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "last", TENSORS, {"epoch": 1})
    first = set(tmp_path.glob("*.safetensors"))
    save(tmp_path, "last", TENSORS, {"epoch": 2})
    (second,) = set(tmp_path.glob("*.safetensors")) - first
    path = tmp_path / "last.json" if part == "json" else second
    content = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[harm])
    assert load(tmp_path, "last")[1] == {"epoch": 1}
    if (part, harm) != ("json", "gone"):
        assert "damaged checkpoint" in caplog.text


def test_with_nothing_whole_left_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load(tmp_path, "last")
    assert not exists(tmp_path, "last")
    save(tmp_path, "last", TENSORS, {})
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"rubbish")
    assert exists(tmp_path, "last")
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load(tmp_path, "last")
    assert "delete the folder" in str(caught.value)


def test_every_difference_is_named(tmp_path: Path) -> None:
    found = {"flow": {"blocks": 4, "kernels": [3, 5]}, "gone": 1}
    check_identity(found, {"gone": 1, "flow": {"kernels": (3, 5), "blocks": 4}}, where=tmp_path)
    with pytest.raises(CheckpointError) as caught:
        check_identity(found, {"flow": {"blocks": 8, "kernels": (3, 5)}, "new": True}, where=tmp_path)
    text = str(caught.value)
    assert "flow.blocks was 4, is 8" in text
    assert "gone was 1, is absent" in text
    assert "new was absent, is True" in text
    assert "kernels" not in text


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from nfbmr.errors import OutputError
from nfbmr.training.checkpoints import load, save
folder = Path(sys.argv[1])
save(folder, "last", {"a": torch.zeros(100)}, {"epoch": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for tensors, text in ((1_000_000, ""), (10, "x" * 200_000)):
    try:
        save(folder, "last", {"a": torch.zeros(tensors)}, {"epoch": 2, "text": text})
    except OutputError as error:
        print(error)
        print("left:", load(folder, "last")[1], len(list(folder.iterdir())))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit on a file's size")
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """Full while the tensors are written, then while the JSON is."""
    completed = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert completed.stdout.count("cannot write") == 2, completed.stderr
    assert completed.stdout.count("free some space") == 2
    assert completed.stdout.count("left: {'epoch': 1} 2") == 2


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save(tmp_path / "file" / "below", "last", TENSORS, {})

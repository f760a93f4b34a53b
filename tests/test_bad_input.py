"""What a user can get wrong: each ends with exit code 2, a message that says what to do, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfbmr.cli.main import main

TINY = [
    "features.size=64",
    "features.scales=[1.0]",
    "features.detail.taps=[]",
    "features.taps=[blocks.2]",
    "flow.blocks=2",
    "flow.hidden=8",
    "flow.kernels=[3]",
    "mapping.latent=8",
    "mapping.residual_blocks=1",
    "train.flow.epochs=2",
    "train.mapping.epochs=2",
    "train.precision=fp32",
    "evaluation.bootstrap=20",
    "evaluation.heatmaps=1",
    "tracking.kind=none",
]


@pytest.fixture
def train(tmp_path, capsys):
    """Runs ``nfbmr train`` on tiny settings; gives the exit code and what was printed as JSON."""

    def run(*arguments, settings=()):
        pairs = [part for setting in [*TINY, *settings] for part in ("--set", setting)]
        folders = ["--output", str(tmp_path / "runs"), "--store", str(tmp_path / "store")]
        code = main(["train", "--json", *folders, *pairs, *map(str, arguments)])
        out, err = capsys.readouterr()
        answer = json.loads(out)
        if code == 2:
            assert answer["error"]["what"]
            assert answer["error"]["fix"], "an error says what to do"
            assert "Traceback" not in err
        return code, answer

    return run


@pytest.fixture
def parts(tmp_path, textures):
    """A copy of the synthetic set that may be spoiled; its single category."""
    shutil.copytree(textures, tmp_path / "data")
    (category,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    return category


def test_missing_path(train, tmp_path):
    code, answer = train("--data", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in answer["error"]["where"]


def test_empty_folder(train, tmp_path):
    (tmp_path / "empty").mkdir()
    assert train("--data", tmp_path / "empty")[0] == 2


def test_no_normals(train, parts):
    folder = parts.parent / "own"
    shutil.copytree(next(p for p in (parts / "test").iterdir() if p.name != "good"), folder / "crack")
    assert train("--data", folder, settings=["data.layout=folder"])[0] == 2


def _huge_png() -> bytes:
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_unusable_training_images_are_all_named_and_the_others_are_kept(train, parts, tmp_path):
    spoiled = sorted((parts / "train" / "good").glob("*.png"))[:4]
    spoiled[0].write_bytes(b"")
    spoiled[1].write_bytes(spoiled[1].read_bytes()[:300])
    spoiled[2].write_text("hello")
    spoiled[3].write_bytes(_huge_png())
    code, answer = train("--data", parts)
    assert code == 2
    for path in spoiled:
        assert path.name in answer["error"]["what"]
    for path in spoiled:
        path.unlink()
    assert list((tmp_path / "store").rglob("*.arrow")), "features of the good ones are stored"
    assert train("--data", parts)[0] == 0


def test_unusable_test_images_are_named_after_the_others_are_scored(train, parts, tmp_path):
    broken = sorted((parts / "test" / "good").glob("*.png"))[0]
    broken.write_bytes(b"")
    (tmp_path / "runs").mkdir()
    pairs = [part for setting in TINY for part in ("--set", setting)]
    code = main(
        [
            "train",
            "--data",
            str(parts),
            "--output",
            str(tmp_path / "runs"),
            "--store",
            str(tmp_path / "store"),
            *pairs,
        ]
    )
    assert code == 2
    (summary,) = (tmp_path / "runs").glob("*/summary.json")
    assert broken.name in next(iter(json.loads(summary.read_text())["unreadable"]))


def test_one_image_category(train, tmp_path):
    (tmp_path / "one" / "good").mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "one" / "good" / "a.png")
    assert train("--data", tmp_path / "one")[0] == 2


def test_unknown_key_names_the_nearest(train, parts):
    code, answer = train("--data", parts, settings=["flow.block=3"])
    assert code == 2
    assert "flow.blocks" in json.dumps(answer)


def test_impossible_value(train, parts):
    assert train("--data", parts, settings=["flow.blocks=-1"])[0] == 2


@pytest.mark.parametrize("tap", ["[blocks.99]", "[1000]", "[blocks.2.nothing]"])
def test_tap_that_does_not_exist(train, parts, tap):
    code, answer = train("--data", parts, settings=[f"features.taps={tap}"])
    assert code == 2
    assert "tap" in json.dumps(answer).lower()


def test_backbone_that_does_not_exist(train, parts):
    code, answer = train("--data", parts, settings=["features.backbone=tf_efficientnet_lite_0"])
    assert code == 2
    assert "tf_efficientnet_lite0" in json.dumps(answer)


def test_shard_corrupted_on_disk(train, parts, tmp_path, capsys):
    assert train("--data", parts)[0] == 0
    shard = max((tmp_path / "store").rglob("*.arrow"), key=lambda path: path.stat().st_size)
    raw = bytearray(shard.read_bytes())
    del raw[len(raw) // 2 :]
    shard.write_bytes(raw)
    code, answer = train("--data", parts, settings=["mapping.latent=4"])
    assert code == 2
    assert "verify" in answer["error"]["fix"]
    assert main(["features", "verify", "--repair", "--store", str(tmp_path / "store")]) == 0
    capsys.readouterr()
    assert train("--data", parts, settings=["mapping.latent=4"])[0] == 0


def test_checkpoint_of_another_configuration_names_what_differs(train, parts):
    code, answer = train("--data", parts)
    assert code == 0
    run = Path(answer["run_dir"])
    (run / "summary.json").unlink()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("latent: 8", "latent: 4"))
    code, answer = train("--resume", run)
    assert code == 2
    assert "latent" in json.dumps(answer)


def test_selecting_on_a_test_set_without_defects(train, parts):
    for folder in (parts / "test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)
    assert train("--data", parts, settings=["selection.on=test"])[0] == 2
    assert train("--data", parts)[0] == 0


def test_weight_on_a_part_that_the_method_does_not_have(train, parts):
    code, answer = train("--data", parts, "--method", "nf", settings=["scoring.weights=[1,0,0]"])
    assert code == 2
    assert "norm" in answer["error"]["fix"]


def test_weights_of_another_model(train, parts, tmp_path):
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    code, answer = train("--data", parts, settings=[f"features.weights={tmp_path / 'other.pth'}"])
    assert code == 2
    assert "other.pth" in json.dumps(answer)


def test_weights_that_execute_code_are_refused(train, parts, tmp_path):
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    assert train("--data", parts, settings=[f"features.weights={tmp_path / 'trap.pth'}"])[0] == 2
    assert not marker.exists()


def test_output_that_cannot_be_written(train, parts):
    code, answer = train("--data", parts, "--output", "/proc/nfbmr-runs")
    assert code == 2
    assert "/proc" in answer["error"]["where"]


def test_a_device_that_does_not_exist_is_named_as_the_command_names_it(tmp_path, capsys):
    assert main(["predict", str(tmp_path), str(tmp_path), "--device", "bogus", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)["error"]
    assert answer["where"] == "--device"
    assert "bogus" in answer["what"]
    assert "train.device" not in json.dumps(answer)


def test_file_names_with_spaces_quotes_newlines_and_other_scripts(train, parts):
    names = [
        "a b.png",
        'it\'s "so".png',
        "line\nbreak.png",
        "Bauteil-Größe-β-部品.png",
        b"\xff\xfe.png".decode("utf-8", "surrogateescape"),
    ]
    for side in ("train/good", "test/good"):
        files = sorted((parts / side).glob("*.png"))
        for path, name in zip(files, names, strict=False):
            path.rename(path.with_name(name))
    code, answer = train("--data", parts)
    assert code == 0, answer
    run = Path(answer["run_dir"])
    assert (run / "report.html").exists()
    assert main(["predict", str(run), str(parts / "test" / "good"), "--out", str(run / "out")]) == 0
    assert len(list((run / "out" / "heatmaps").glob("*.png"))) == len(
        list((parts / "test" / "good").iterdir())
    )


def test_full_disk_keeps_what_is_finished(parts, tmp_path):
    """A limit on file size stands for a full disk: the run stops with 2, and goes on where it stopped."""
    pairs = [part for setting in [*TINY, "flow.hidden=256"] for part in ("--set", setting)]
    arguments = [
        "--data",
        str(parts),
        "--output",
        str(tmp_path / "runs"),
        "--store",
        str(tmp_path / "store"),
        *pairs,
    ]
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from nfbmr.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY)); "
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    full = subprocess.run(
        [sys.executable, "-c", limited, "train", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert full.returncode == 2, full.stderr
    assert "cannot write" in full.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["train", "--resume", str(run)]) == 0

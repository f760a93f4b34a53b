"""Exported models against the product: every score, on every test image, in the runtime itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from PIL import Image

import nfbmr
from nfbmr.cli.main import main
from nfbmr.data.pictures import resized
from nfbmr.data.sources import Decoded
from nfbmr.errors import CheckpointError, ConfigError, ExportError, MissingPackageError, OutputError
from nfbmr.export.check import TOLERANCE, Sample, check
from nfbmr.export.export_model import Export, export_model, in_float32, sample_of
from nfbmr.export.exported import ExportedModel
from nfbmr.methods.detector import Detector
from nfbmr.methods.registry import METHODS
from nfbmr.paths import RunPaths, read_json, write_json
from nfbmr.prediction import Predictor
from tests.methods.settings import TINY

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(small: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a method in its tiny settings, once; gives the run's folder."""
    root = tmp_path_factory.mktemp("exported")
    runs: dict[str, Path] = {}

    def run(method: str, **more: Any) -> Path:
        settings = {**TINY[method], "features.compute": "fp32", **more, "method": method}
        key = json.dumps(settings, sort_keys=True)
        if key not in runs:
            config = small(root, **{name.replace(".", "__"): value for name, value in settings.items()})
            runs[key] = Path(nfbmr.train(config)["run_dir"])
        return runs[key]

    return run


@pytest.fixture(scope="module")
def patchcore(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Export:
    """PatchCore as ONNX; read only."""
    return export_model(trained("patchcore"), tmp_path_factory.mktemp("onnx") / "patchcore")


def changed(model: Path, copy: Path, **features: Any) -> Path:
    """A copy of a model that says that its features were made in another way."""
    shutil.copytree(model, copy)
    meta = read_json(copy / "model.json")
    meta["config"]["features"] |= features
    write_json(copy / "model.json", meta)
    return copy


def in_runtime(folder: Path, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime alone says of a batch of images of any one size."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": np.stack(images)}), strict=True))


def test_scores_maps_and_decisions_are_those_of_predict(
    trained: Callable[..., Path], patchcore: Export
) -> None:
    run = trained("patchcore")
    files = sample_of(run, (), None).files
    predictor = Predictor(Detector.load(RunPaths(run).model), "cpu")
    found = [scored for _, scored in predictor(files)]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    spread = np.std([one.score for one in found])
    for number in (1, len(files)):  # a batch of one, and all of them at once
        outputs = in_runtime(patchcore.folder, images[:number])
        assert outputs["score"].shape == outputs["decision"].shape == (number,)
        assert outputs["map"].shape[0] == number
        for i, one in enumerate(found[:number]):
            assert abs(outputs["score"][i] - one.score) < TOLERANCE * spread
            assert outputs["decision"][i] == (one.score > predictor.limit())
            assert np.allclose(outputs["map"][i], one.map_HW.numpy(), rtol=1e-3)


def test_images_of_any_size_are_resized_inside_as_in_training(
    trained: Callable[..., Path], patchcore: Export
) -> None:
    predictor = Predictor(Detector.load(RunPaths(trained("patchcore")).model), "cpu")
    for height, width in ((64, 64), (31, 200), (240, 150)):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        (right,) = predictor.score([Decoded(pixels)])
        given = in_runtime(patchcore.folder, [pixels])
        assert given["score"][0] == pytest.approx(right.score, rel=1e-4)


def test_what_is_told_of_an_exported_model(trained: Callable[..., Path], patchcore: Export) -> None:
    about = read_json(patchcore.folder / "model.json")
    assert about == json.loads(json.dumps(patchcore.about))
    assert about["labels"] == ["good", "defective"]
    assert about["sizes"] == [[64, 64]]
    summary = read_json(RunPaths(trained("patchcore")).summary)
    assert about["threshold"] == summary["threshold"]
    assert about["checked"]["images"] == 12
    assert about["checked"]["sample"] == "the run's test images, all 12"
    assert about["checked"]["largest"] <= TOLERANCE
    assert {"nfbmr", "torch", "onnx", "onnxruntime"} <= about["versions"].keys()
    assert {file.name for file in patchcore.folder.iterdir()} == {"model.onnx", "model.json"}
    onnx.checker.check_model(patchcore.folder / "model.onnx")
    # The exporter's own notes hold the source paths of the machine that exported.
    assert str(Path(nfbmr.__file__).parent).encode() not in (patchcore.folder / "model.onnx").read_bytes()


def test_openvino_takes_images_at_the_models_sizes(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained("nf-bmr")
    exported = export_model(run, tmp_path / "out", form="openvino", limit=6)
    assert [one["size"] for one in exported.about["inputs"]] == [[64, 64], [96, 96]]
    assert {file.name for file in exported.folder.iterdir()} == {"model.xml", "model.bin", "model.json"}
    assert exported.check.largest <= TOLERANCE
    assert exported.check.images == 6
    files = sample_of(run, (), None).files[:2]
    model = ExportedModel.load(exported.folder)
    alone = [model.score(file) for file in files]
    together = model.score(*files)
    for i, one in enumerate(alone):
        assert together["score"][i] == pytest.approx(one["score"][0], rel=1e-5)
    with pytest.raises(ConfigError, match="OpenVINO"):
        export_model(run, tmp_path / "other", form="openvino", resize="inside")


def test_a_model_with_other_scores_is_refused_and_the_image_named(
    trained: Callable[..., Path], patchcore: Export
) -> None:
    other = in_float32(Detector.load(RunPaths(trained("patchcore", seed=1)).model))
    sample = sample_of(trained("patchcore"), (), None)
    with pytest.raises(ExportError, match=r"differ from nfbmr predict's.*nothing is written") as refusal:
        check(ExportedModel.load(patchcore.folder), Predictor(other, "cpu"), sample)
    assert refusal.value.where in {file.name for file in sample.files}


def test_a_run_in_bfloat16_is_told_what_to_do(trained: Callable[..., Path], tmp_path: Path) -> None:
    rough = changed(RunPaths(trained("patchcore")).model, tmp_path / "rough", compute="bf16")
    with pytest.raises(ConfigError, match=r"bfloat16.*\n.*features.compute=fp32"):
        export_model(rough, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [rough]


def test_what_cannot_be_exported_is_said_before_anything_is_done(
    trained: Callable[..., Path], patchcore: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("patchcore")
    with pytest.raises(OutputError, match="something is there already"):
        export_model(run, patchcore.folder)
    bright = changed(RunPaths(run).model, tmp_path / "bright", photometric="brightness")
    images = sample_of(run, (), None).files
    with pytest.raises(ConfigError, match="photometric"):
        export_model(bright, tmp_path / "out", resize="outside", images=images)
    with pytest.raises(CheckpointError, match="no exported model"):
        ExportedModel.load(RunPaths(run).model)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    with pytest.raises(MissingPackageError, match=r"nfbmr\[export\]"):
        export_model(run, tmp_path / "out")


def test_the_command(
    trained: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "line-7"
    turned = trained("differnet", **{"features.test_rotations": 16})  # as many as it has by default
    command = ["export", str(turned), "--out", str(out), "--limit", "4", "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(out)
    assert answer["checked"]["images"] == 4
    assert [one["name"] for one in answer["outputs"]] == ["score", "decision"]  # its maps have no positions
    assert main(command) == 2
    assert "something is there already" in capsys.readouterr().err


@SLOW
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_differnet_leaves_with_all_its_turns(form: Any, trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained("differnet", **{"features.test_rotations": 16})
    exported = export_model(run, tmp_path / "out", form=form)
    assert exported.check.images == 12
    assert exported.check.largest <= TOLERANCE


def test_the_pages_python_runs(
    trained: Callable[..., Path],
    patchcore: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    run = trained("patchcore")
    file = sample_of(run, (), None).files[0]
    shutil.copytree(patchcore.folder, tmp_path / "line-7")
    shutil.copy(file, tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/export.md", "exec"), {})
    (prediction,) = nfbmr.predict(run, [file], device="cpu")
    label = "defective" if prediction.rejected else "good"
    assert capsys.readouterr().out.strip() == f"{prediction.score:.4g} {label}"


PROGRAM = """
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>
{includes}

int main(int, char** argv) {{
    size_t height = 64, width = 64;
    std::ifstream file(argv[1], std::ios::binary);
    std::vector<char> pixels((std::istreambuf_iterator<char>(file)), {{}});
    {lines}
    std::printf("%.9g %d", score, int(defective));
}}
"""


@SLOW
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_the_pages_cpp_runs_in_openvino(trained: Callable[..., Path], tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```cpp\n") if "openvino.hpp" in block).partition("```")[0]
    includes, _, lines = code.partition("\n\n")
    (tmp_path / "line.cpp").write_text(PROGRAM.format(includes=includes, lines=lines))
    home = Path(openvino.__file__).parent
    (library,) = home.glob("libs/libopenvino.so.*")
    binary = tmp_path / "line"
    command = ["g++", "-std=c++17", f"-I{home / 'include'}", str(tmp_path / "line.cpp"), str(library)]
    subprocess.run([*command, f"-Wl,-rpath,{library.parent}", "-o", str(binary)], check=True)
    run = trained("patchcore")
    exported = export_model(run, tmp_path / "line-8", form="openvino")
    file = sample_of(run, (), None).files[0]
    (tmp_path / "part.raw").write_bytes(resized(Image.open(file).convert("RGB"), (64, 64)).tobytes())
    completed = subprocess.run(
        [str(binary), "part.raw"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.split()
    (prediction,) = nfbmr.predict(run, [file], device="cpu")
    assert abs(float(completed[0]) - prediction.score) < TOLERANCE * exported.check.spread
    assert bool(int(completed[1])) == prediction.rejected


@SLOW
@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_with_its_own_scores(
    method: str, form: Any, trained: Callable[..., Path], tmp_path: Path
) -> None:
    exported = export_model(trained(method), tmp_path / "out", form=form)
    assert exported.check.images == 12
    assert exported.check.largest <= TOLERANCE


@SLOW
@pytest.mark.parametrize(
    "settings",
    [
        {"features.photometric": "standardize"},
        {"features.tile": 128, "features.size": 256},
        {"features.symmetry": "square"},
        {"features.dtype": "bfloat16"},
        {"scoring.smooth": 2.0, "scoring.weights": "auto", "scoring.reduction": "topk"},
        {"scoring.weights": "auto", "scoring.normalise": "position"},
        {"features.aspect": 2.0},
        {
            "features.backbone": "resnet18",
            "features.weights": "random",
            "features.taps": ["layer1", "layer2"],
        },
    ],
    ids=lambda settings: next(reversed(settings)),
)
def test_settings_leave_as_well(
    settings: dict[str, Any], trained: Callable[..., Path], tmp_path: Path
) -> None:
    exported = export_model(trained("patchcore", **settings), tmp_path / "out", resize="inside")
    assert exported.check.largest <= TOLERANCE


def test_a_sample_is_drawn_evenly_and_named(trained: Callable[..., Path], textures: Path) -> None:
    run = trained("patchcore")
    some = sample_of(run, (), 3)
    assert len(some.files) == 3
    assert some.what == "3 of the run's test images, evenly drawn of 12"
    given = sample_of(run, [textures], None)
    assert isinstance(given, Sample)
    assert given.what.startswith("the images given, all")

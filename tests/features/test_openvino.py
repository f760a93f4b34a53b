"""Features by OpenVINO: torch's up to rounding, part of key and model, done without where it is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

import nfbmr
from nfbmr.config import FeatureConfig
from nfbmr.data.pictures import Picture, picture_of
from nfbmr.data.samples import Sample
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.errors import BackboneError
from nfbmr.features import choosing
from nfbmr.features.backbone import Backbone, load_backbone
from nfbmr.features.choosing import arithmetic_for, choose_library
from nfbmr.features.engine import Engine
from nfbmr.features.extraction import extract
from nfbmr.features.reader import FeatureReader
from nfbmr.features.store import FeatureStore
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths
from nfbmr.prediction import Predictor

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

CONFIG = FeatureConfig(backbone="test_efficientnet", weights="random", taps=(1, "blocks.2"), size=64)
BY_OPENVINO = CONFIG.model_copy(update={"engine": "openvino"})
ONE_STEP = 1 / 512
"""Of a 16-bit number whose last digit falls the other way, with room for one more."""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return [picture_of(Sample(path, path.name)) for path in paths]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on OpenVINO is not installed."""
    find = choosing.importlib.util.find_spec  # type: ignore[attr-defined]

    def without() -> None:
        monkeypatch.setattr(
            choosing.importlib.util,  # type: ignore[attr-defined]
            "find_spec",
            lambda name: None if name == "openvino" else find(name),
        )

    return without


@pytest.mark.parametrize("size", [(64, 64), (75, 75), (64, 96)])
@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("tf_efficientnet_lite0", "blocks.3"),  # TensorFlow's padding
        ("tf_efficientnet_b0", "blocks.2"),  # squeeze and excitation
        ("resnet10t", "layer3"),
        ("convnext_atto", "stages.1"),  # read as (B, H, W, C)
    ],
)
def test_features_are_those_of_torch(name: str, tap: str, size: tuple[int, int]) -> None:
    backbone = load_backbone(FeatureConfig(backbone=name, weights="random", taps=(tap,)))
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    engine = Engine(backbone, compute="fp32", size=size, library="openvino")
    with torch.inference_mode():
        (expected,) = backbone(x)
    (y,) = engine(x)
    assert y.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(engine(x[2:])[0], y[2:])  # alone as in a batch


def test_tiles_are_joined_as_torch_joins_them() -> None:
    backbone = load_backbone(FeatureConfig(backbone="resnet10t", weights="random", taps=("layer1",)))
    x = torch.randn(1, 3, 256, 384, generator=torch.Generator().manual_seed(0))
    ours, its = (
        Engine(backbone, compute="fp32", size=(256, 384), tile=256, library=library)(x)[0]
        for library in ("torch", "openvino")
    )
    torch.testing.assert_close(ours, its, rtol=1e-4, atol=1e-4)


def test_it_is_part_of_the_key_and_torch_keeps_its_own(tmp_path: Path, pictures: list[Picture]) -> None:
    store = FeatureStore(tmp_path / "store")
    by_torch = extract(pictures, CONFIG.model_copy(update={"engine": "torch", "compute": "fp32"}), store)
    its = extract(pictures, BY_OPENVINO, store)
    assert (by_torch.engine, its.engine, its.compute, its.computed) == ("torch", "openvino", "fp32", 5)
    for ours, other in zip(by_torch.tables, its.tables, strict=True):
        assert ours.space_key != other.space_key
        a, b = ours.gather(range(5)).float(), other.gather(range(5)).float()
        torch.testing.assert_close(a, b, rtol=ONE_STEP, atol=1e-4)
    assert "engine" not in by_torch.specs[0].fields  # what was stored before there was a choice is found
    assert its.made(BY_OPENVINO).engine == "openvino"


def test_auto_takes_what_is_stored(tmp_path: Path, pictures: list[Picture]) -> None:
    store = FeatureStore(tmp_path / "store")
    extract(pictures, BY_OPENVINO, store)
    auto = CONFIG.model_copy(update={"compute": "fp32"})
    again = extract(pictures, auto, store)
    assert (again.engine, again.computed) == ("openvino", 0)


def test_what_is_stored_is_read_where_it_cannot_be_computed(
    tmp_path: Path, pictures: list[Picture], missing: Callable[[], None]
) -> None:
    store = FeatureStore(tmp_path / "store")
    extract(pictures, BY_OPENVINO, store)
    missing()
    for config in (BY_OPENVINO, CONFIG):
        again = extract(pictures, config, store)
        assert (again.engine, again.computed) == ("openvino", 0)


def test_it_is_no_choice_where_one_of_several_processes_lacks_it(
    tmp_path: Path, pictures: list[Picture], caplog: pytest.LogCaptureFixture
) -> None:
    store, keys = FeatureStore(tmp_path / "store"), [picture.key for picture in pictures]
    made = arithmetic_for(BY_OPENVINO, store, keys, "cpu", None, openvino=False)
    assert made.library == "torch"
    assert "another process of this run has no OpenVINO" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are not to be seen here")
def test_its_threads_are_not_pinned_to_the_first_cores() -> None:
    before = {task.name for task in Path("/proc/self/task").iterdir()}  # other tests run OpenVINO as it comes
    engine = Engine(load_backbone(CONFIG), compute="fp32", size=256, library="openvino")
    ended, seen = threading.Event(), set()

    def look() -> None:
        while not ended.is_set():
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # a thread that has just ended
                    if task.name in before:
                        continue
                    seen.add(frozenset(os.sched_getaffinity(int(task.name))))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(5):
        engine(torch.randn(4, 3, 256, 256))
    ended.set()
    looking.join()
    assert seen == {frozenset(os.sched_getaffinity(0))}


def test_auto_measures_once_where_there_are_enough_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))
    caplog.set_level("INFO")
    enough = choosing.PIXELS_THAT_PAY // 64**2
    assert choose_library(CONFIG, enough - 1) == "torch"
    assert not list(tmp_path.glob("machine-*.json"))
    first = choose_library(CONFIG, enough)
    (memory,) = tmp_path.glob("machine-*.json")
    ((key, seconds),) = json.loads(memory.read_text()).items()
    assert set(seconds) == {"torch", "openvino"}
    for faster in ("torch", "openvino"):  # what is remembered counts, whatever a stopwatch would say now
        memory.write_text(json.dumps({key: {"torch": 1.0, "openvino": 1.0, faster: 0.5}}))
        assert choose_library(CONFIG, enough) == faster
    assert caplog.text.count("whether torch or OpenVINO is faster") == 1
    assert first in ("torch", "openvino")
    assert choose_library(CONFIG, enough - 1) == "torch"  # the number decides, not what has been measured


class Strange(nn.Module):
    """Traced to other numbers than it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen += 1
        return (x * self.seen,)


def test_a_network_with_other_numbers_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(CONFIG.model_copy(update={"taps": (1,)}))
    backbone.net = Strange()
    with pytest.raises(BackboneError, match=r"other numbers in OpenVINO(.*\n)*.*features.engine=torch"):
        Engine(backbone, compute="fp32", size=64, library="openvino")
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))

    def cannot(backbone: Backbone, size: object) -> None:
        raise BackboneError("the backbone cannot be brought into OpenVINO (no such operator)")

    monkeypatch.setattr("nfbmr.features.engine.OpenVinoPass", cannot)
    enough = choosing.PIXELS_THAT_PAY // 64**2
    assert choose_library(CONFIG, enough) == "torch"
    monkeypatch.undo()
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))
    choose_library(CONFIG, enough)  # asked again: it may have failed for want of memory
    (memory,) = tmp_path.glob("machine-*.json")
    ((key, seconds),) = json.loads(memory.read_text()).items()
    assert None not in seconds.values()
    memory.write_text(json.dumps({key: dict.fromkeys(seconds)}))  # as failures were kept before
    choose_library(CONFIG, enough)
    assert None not in json.loads(memory.read_text())[key].values()


def test_of_two_that_measure_at_once_the_first_decides_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFBMR_CACHE", str(tmp_path))
    enough = choosing.PIXELS_THAT_PAY // 64**2
    both_measured = threading.Barrier(2)

    def compared(passes: object, stop: object) -> dict[str, float]:
        """What a stopwatch says, in the first process for OpenVINO and in the second against it."""
        both_measured.wait(60)
        return {"torch": 1.0, "openvino": 0.5 if threading.current_thread().name == "one" else 2.0}

    monkeypatch.setattr(choosing, "compared", compared)
    monkeypatch.setattr(choosing, "_passes", lambda *_: None)
    chosen: dict[str, str] = {}

    def choose() -> None:
        chosen[threading.current_thread().name] = choose_library(CONFIG, enough)

    threads = [threading.Thread(target=choose, name=name) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chosen["one"] == chosen["two"] == choose_library(CONFIG, enough)


def test_where_it_is_missing_torch_does_it_and_says_so(
    tmp_path: Path,
    pictures: list[Picture],
    missing: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing()
    store = FeatureStore(tmp_path / "store")
    extraction = extract(pictures, BY_OPENVINO.model_copy(update={"compute": "fp32"}), store)
    assert extraction.engine == "torch"
    assert extraction.made(BY_OPENVINO).engine == "torch"
    assert 'features.engine=openvino: OpenVINO is not installed (pip install "nfbmr[export]")' in caplog.text


def test_settings_that_do_not_go_together_are_refused() -> None:
    for more in ({"compute": "bf16"}, {"compile": True}):
        with pytest.raises(ValidationError, match="engine=openvino needs"):
            FeatureConfig(engine="openvino", **more)


def test_a_reader_of_an_old_model_is_torchs() -> None:
    reader = FeatureReader(CONFIG.model_copy(update={"compute": "fp32"}), torch.device("cpu"))
    (x,) = reader.noise(1)[0]
    (expected, _) = (table.gather([0]) for table in reader([(x,)]).tables)
    (exact, _) = Engine(load_backbone(CONFIG), compute="fp32", size=64)(x)
    assert torch.equal(expected, exact.to(expected.dtype))


def test_a_model_keeps_its_library_and_its_scores_are_torchs_up_to_rounding(
    tmp_path: Path, missing: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    data = synthesize(
        tmp_path / "data", classes=CLASSES[:1], train=12, test_good=4, test_defective=4, size=64
    )
    scores = {}
    for library in ("torch", "openvino"):
        config = nfbmr.configure(
            settings={
                "data.path": str(data),
                "method": "padim",
                "features.backbone": "test_efficientnet",
                "features.weights": "random",
                "features.taps": [1, 2],
                "features.size": 64,
                "features.compute": "fp32",
                "features.engine": library,
                "store": str(tmp_path / "store"),
                "output": str(tmp_path / "runs"),
                "evaluation.bootstrap": 0,
                "evaluation.heatmaps": 0,
                "tracking.kind": "none",
            }
        )
        run = RunPaths(Path(nfbmr.train(config)["run_dir"]))
        assert Detector.load(run.model).config.features.engine == library
        images = sorted(data.rglob("test/*/*.png"))
        scores[library] = [one.score for one, _ in Predictor.load(run.root, "cpu")(images)]
    spread = np.std(scores["torch"])
    assert np.abs(np.subtract(scores["torch"], scores["openvino"])).max() < 0.01 * spread
    missing()
    without = [one.score for one, _ in Predictor.load(run.root, "cpu")(images)]
    assert without == pytest.approx(scores["torch"], abs=0.01 * spread)
    assert "features were made by OpenVINO; here torch makes them" in caplog.text


def test_it_sends_no_word_home() -> None:
    program = (
        "import sys\n"
        "from nfbmr.runtimes import import_openvino\n"
        "import_openvino()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"

"""What holds for every method in the table, whatever it does: one suite over all of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nfbmr
from nfbmr.config import Config
from nfbmr.features.table import Features, TensorTable, ViewedFeatures
from nfbmr.methods.detector import Detector, build, shapes_read
from nfbmr.methods.forward import maps_of
from nfbmr.methods.registry import METHODS, trained_sections
from nfbmr.prediction import Predictor
from nfbmr.run import Run, execute_run, journal_only, new_run, open_run
from nfbmr.scoring.fusion import IMAGE
from nfbmr.stopping import StopRequest
from tests.methods.settings import TINY


@pytest.fixture(scope="module")
def configured(
    small: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Config]:
    """Makes a method's tiny configuration; all share a store."""
    root = tmp_path_factory.mktemp("methods")

    def make(method: str, **more: Any) -> Config:
        settings = {**TINY[method], **more, "method": method, "features.compute": "fp32"}
        return small(root, **{key.replace(".", "__"): value for key, value in settings.items()})

    return make


@pytest.fixture(scope="module")
def wide(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set with the lower half of each image and mask cut off: twice as wide as high."""
    from PIL import Image

    root = tmp_path_factory.mktemp("wide") / "wide"
    shutil.copytree(textures, root)
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            upper = image.crop((0, 0, image.width, image.height // 2))
        upper.save(path)
    return root


@pytest.fixture(scope="module", params=METHODS)
def finished(request: pytest.FixtureRequest, configured: Callable[..., Config]) -> dict[str, Any]:
    """A run of each method, to its end."""
    return nfbmr.train(configured(request.param))


@pytest.fixture(scope="module", params=METHODS)
def detector(request: pytest.FixtureRequest, configured: Callable[..., Config]) -> Detector:
    """Each method's networks, measured and not trained, on random features."""
    config = configured(request.param)
    made = build(config, shapes_read(config), "")
    for stage in made.networks.stages:
        stage.prepare(ViewedFeatures.of(features_for(made, 12)).select(stage.tables))
    return made.eval()


def features_for(detector: Detector, images: int, seed: int = 0) -> Features:
    """Random features of the right shapes."""
    generator = torch.Generator().manual_seed(seed)
    return Features(
        [TensorTable(torch.randn(images, *shape, generator=generator).half()) for shape in detector.shapes]
    )


def batch_for(detector: Detector, judge: Any, images: int = 3) -> tuple[Tensor, ...]:
    """What a stage, or the whole method, reads, in float32."""
    networks = detector.networks
    y = tuple(one.float() for one in features_for(detector, images).gather(range(images)))
    tables = getattr(judge, "tables", None)
    read = y if tables is None else tuple(y[number] for number in tables)
    wants_latents = judge is not networks.stages[0] and getattr(judge, "reads_latents", True)
    if networks.caches_latents and wants_latents:
        return (*read, networks.latents(*y).detach())
    return read


def test_every_method_has_a_tiny_configuration_here() -> None:
    assert set(TINY) == set(METHODS)


# -- a whole run


def test_a_run_ends_with_scores_intervals_and_a_model(finished: dict[str, Any]) -> None:
    auroc = finished["metrics"]["test"]["image_auroc"]
    assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
    assert finished["selection"]["parts"]
    assert Path(finished["report"]).exists()
    assert all(finished["reused"].values()) in (True, False)


def test_the_same_command_gives_the_same_numbers(finished: dict[str, Any], tmp_path: Path) -> None:
    config = Config.model_validate(finished["config"]).model_copy(update={"store": tmp_path / "store"})
    again = nfbmr.train(config)
    assert again["metrics"] == finished["metrics"]


def test_no_test_image_is_read_before_every_choice_is_made(
    finished: dict[str, Any], textures: Path, tmp_path: Path
) -> None:
    """With test images that nobody can read, a method makes the same choices and the same model."""
    data = tmp_path / "data"
    shutil.copytree(textures, data)
    for image in data.glob("*/test/*/*.png"):
        image.write_bytes(b"not an image")
    seeing = Config.model_validate(finished["config"])
    blind = seeing.model_copy(
        update={"data": seeing.data.model_copy(update={"path": data}), "store": tmp_path / "store"}
    )
    run = new_run(blind, folder=tmp_path / "run")
    summary = execute_run(run, journal_only, StopRequest(), test=False).as_json()
    for choice in ("threshold", "selection"):
        assert summary[choice] == finished[choice]
    weights = {file.name: file.read_bytes() for file in run.paths.model.glob("*.safetensors")}
    assert weights
    for name, content in weights.items():
        assert (Path(finished["run_dir"]) / "model" / name).read_bytes() == content


def test_prediction_gives_the_scores_of_the_evaluation(finished: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(Path(finished["run_dir"]) / "scores.parquet").to_pylist()
    known = {row["path"]: row["score"] for row in rows if row["side"] == "test"}
    predictions = nfbmr.predict(finished["run_dir"], [path.decode() for path in known])
    assert len(predictions) == len(known)
    for prediction in predictions:
        score = known[str(prediction.path).encode()]
        assert prediction.score == pytest.approx(score, rel=1e-3, abs=1e-3 * max(1.0, abs(score)))


def test_a_saved_model_gives_the_same_maps(finished: dict[str, Any]) -> None:
    detector = Detector.load(Path(finished["run_dir"]) / "model")
    again = Detector.load(Path(finished["run_dir"]) / "model")
    seen = ViewedFeatures.of(features_for(detector, 4), detector.config.features.test_rotations)
    torch.testing.assert_close(maps_of(detector, seen), maps_of(again, seen), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_wide_images_keep_their_proportions_to_the_end(
    method: str, wide: Path, configured: Callable[..., Config], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    config = configured(method, **{"data.path": str(wide)}, output=tmp_path / "runs")
    summary = nfbmr.train(config)
    assert 0 <= summary["metrics"]["test"]["image_auroc"]["value"] <= 1
    detector = Detector.load(Path(summary["run_dir"]) / "model")
    features = detector.config.features
    if config.features.turns:  # a turned rectangle is another rectangle
        assert features.aspect == 1.0
    else:
        assert features.aspect == 2.0
        assert features.shape in ((48, 96), (96, 176))
    rows = pq.read_table(Path(summary["run_dir"]) / "scores.parquet").to_pylist()
    known = {Path(row["path"].decode()): row["score"] for row in rows if row["side"] == "test"}
    predictor = Predictor(detector)
    for score, (prediction, scored) in zip(known.values(), predictor(list(known)), strict=True):
        map_HW = scored.map_HW
        assert prediction.score == pytest.approx(score, rel=1e-3, abs=1e-3 * max(1.0, abs(score)))
        assert map_HW is not None
        if detector.networks.has_pixel_maps and not config.features.turns:
            height, width = map_HW.shape
            assert (height, width) == max((shape[1:] for shape in detector.shapes), key=math.prod)
            assert height < width
        assert predictor.heatmap(prediction.path, map_HW).size == (96, 48)


class StopAfter(StopRequest):
    """Asks for a stop after it was looked at a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    finished: dict[str, Any], configured: Callable[..., Config], tmp_path: Path
) -> None:
    config = configured(finished["method"], output=tmp_path / "runs", store=tmp_path / "store")
    run, stops = new_run(config), 0
    for looks in (2, 4, 7, 11, 16, 10**9):
        try:
            summary = carry_on(open_run(run.paths.root), StopAfter(looks))
            break
        except nfbmr.errors.Interrupted:
            stops += 1
    assert stops
    assert summary["metrics"] == finished["metrics"]


def carry_on(run: Run, stop: StopRequest) -> dict[str, Any]:
    return execute_run(run, journal_only, stop).as_json()


# -- its networks


def test_maps_are_a_part_each_and_finite(detector: Detector) -> None:
    networks = detector.networks
    maps = networks.maps(*batch_for(detector, networks))
    assert maps.shape[:2] == (3, len(networks.components))
    assert torch.isfinite(maps).all()
    assert len(networks.paper_weights) == len(networks.components)
    assert sum(networks.paper_weights) > 0
    assert networks.has_pixel_maps == (maps[0, 0].numel() > 1)
    if IMAGE in networks.components:
        whole_image = maps[:, networks.components.index(IMAGE)].flatten(1)
        assert torch.equal(whole_image.amin(1), whole_image.amax(1))
        assert networks.paper_weights[networks.components.index(IMAGE)] == 0


def test_an_image_is_scored_alone_as_among_others(detector: Detector) -> None:
    networks = detector.networks
    together = networks.maps(*batch_for(detector, networks))
    alone = networks.maps(*(one[:1] for one in batch_for(detector, networks)))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


def test_every_trained_number_has_a_gradient_and_the_loss_goes_down(detector: Detector) -> None:
    for stage in detector.networks.stages:
        if not stage.trained:
            continue
        module, batch = stage.module.train(), batch_for(detector, stage, images=6)
        adam = torch.optim.Adam(module.parameters(), lr=1e-3)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        before, losses = {name: p.detach().clone() for name, p in trained.items()}, []
        for _ in range(8):
            adam.zero_grad()
            loss = stage.loss(*batch)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        assert not [name for name, p in trained.items() if torch.equal(p.detach(), before[name])]
        module.eval()


def test_its_stages_are_those_of_the_table(detector: Detector) -> None:
    method = METHODS[detector.config.method]
    assert tuple(stage.name for stage in detector.networks.stages) == method.stages
    validated = {stage.name for stage in detector.networks.stages if stage.trained and stage.validated}
    assert set(trained_sections(detector.config)) == validated
    assert method.shares is None or detector.networks.stages[0].cacheable

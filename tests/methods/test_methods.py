"""What holds for every method in the table, whatever it does: one suite over all of them."""

from __future__ import annotations

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
from nfbmr.methods.fitting import maps_of
from nfbmr.methods.table import METHODS, trained_sections
from nfbmr.run import Run, carry_out, journal_only, new_run, open_run
from nfbmr.scoring.fusion import IMAGE
from nfbmr.training.stopping import StopRequest
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


@pytest.fixture(scope="module", params=METHODS)
def finished(request: pytest.FixtureRequest, configured: Callable[..., Config]) -> dict[str, Any]:
    """A run of each method, to its end."""
    return nfbmr.train(configured(request.param))


@pytest.fixture(scope="module", params=METHODS)
def detector(request: pytest.FixtureRequest, configured: Callable[..., Config]) -> Detector:
    """Each method's networks, measured and not trained, on random features."""
    config = configured(request.param)
    made = build(config, shapes_read(config), "")
    made.networks.stages[0].prepare(ViewedFeatures.of(features_for(made, 12)))
    return made.eval()


def features_for(detector: Detector, images: int, seed: int = 0) -> Features:
    """Random features of the right shapes."""
    generator = torch.Generator().manual_seed(seed)
    return Features(
        [TensorTable(torch.randn(images, *shape, generator=generator).half()) for shape in detector.shapes]
    )


def batch_for(detector: Detector, stage: Any, images: int = 3) -> tuple[Tensor, ...]:
    """What a stage reads, in float32."""
    y = tuple(one.float() for one in features_for(detector, images).gather(range(images)))
    if detector.networks.keeps_latents and stage is not detector.networks.stages[0]:
        return (*y, detector.networks.latents(*y).detach())
    return y


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
    summary = carry_out(run, journal_only, StopRequest(), test=False)
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
    found = nfbmr.predict(finished["run_dir"], [path.decode() for path in known])
    assert len(found) == len(known)
    for prediction in found:
        score = known[str(prediction.path).encode()]
        assert prediction.score == pytest.approx(score, rel=1e-3, abs=1e-3 * max(1.0, abs(score)))


def test_a_saved_model_gives_the_same_maps(finished: dict[str, Any]) -> None:
    detector = Detector.load(Path(finished["run_dir"]) / "model")
    again = Detector.load(Path(finished["run_dir"]) / "model")
    seen = ViewedFeatures.of(features_for(detector, 4), detector.config.features.test_rotations)
    torch.testing.assert_close(maps_of(detector, seen), maps_of(again, seen), rtol=0, atol=0)


class StopAfter(StopRequest):
    """Asks for a stop after it was looked at a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    method: str, configured: Callable[..., Config], tmp_path: Path
) -> None:
    config = configured(method, output=tmp_path / "runs", store=tmp_path / "store")
    whole = nfbmr.train(config.model_copy(update={"store": tmp_path / "other"}))
    run, stops = new_run(config), 0
    for looks in (2, 4, 7, 11, 16, 10**9):
        try:
            summary = carry_on(open_run(run.paths.root), StopAfter(looks))
            break
        except nfbmr.errors.Interrupted:
            stops += 1
    assert stops
    assert summary["metrics"] == whole["metrics"]


def carry_on(run: Run, stop: StopRequest) -> dict[str, Any]:
    return carry_out(run, journal_only, stop)


# -- its networks


def test_maps_are_a_part_each_and_finite(detector: Detector) -> None:
    stage = detector.networks.stages[-1]
    maps = stage.maps(*batch_for(detector, stage))
    assert maps.shape[:2] == (3, len(stage.parts))
    assert torch.isfinite(maps).all()
    assert len(stage.published) == len(stage.parts)
    assert sum(stage.published) > 0
    assert detector.networks.localises == (maps[0, 0].numel() > 1)
    if IMAGE in stage.parts:
        own = maps[:, stage.parts.index(IMAGE)].flatten(1)
        assert torch.equal(own.amin(1), own.amax(1))
        assert stage.published[stage.parts.index(IMAGE)] == 0


def test_an_image_is_scored_alone_as_among_others(detector: Detector) -> None:
    stage = detector.networks.stages[-1]
    together = stage.maps(*batch_for(detector, stage))
    alone = stage.maps(*(one[:1] for one in batch_for(detector, stage)))
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
    trained = {stage.name for stage in detector.networks.stages if stage.trained}
    assert set(trained_sections(detector.config)) == trained
    assert (method.shares is not None) == detector.networks.stages[0].shared

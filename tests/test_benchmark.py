"""What a model costs: measured from files, kept beside the run, and honest about size."""

from __future__ import annotations

from pathlib import Path

import pytest

import nfbmr
from nfbmr.benchmark import Cost, measure_cost, read_cost
from nfbmr.errors import NfbmrError
from nfbmr.evaluation.summary import RunSummary
from nfbmr.features.backbone import load_backbone
from nfbmr.methods.detector import Detector
from nfbmr.paths import RunPaths, write_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small):
    """A finished run."""
    root = tmp_path_factory.mktemp("costs")
    summary = nfbmr.train(small(root, method="nf", features__batch=3))
    return Path(summary["run_dir"])


@pytest.fixture(scope="module")
def images(textures):
    return sorted(textures.rglob("test/*/*.png"))[:4]


def test_a_cost_is_of_the_model_as_it_is(trained, images):
    cost = measure_cost(trained, images)
    detector = Detector.load(RunPaths(trained).model)
    assert 0 < cost.one.low <= cost.one.value <= cost.one.high
    assert cost.batched.value > 0
    assert cost.batch == 3
    assert cost.parameters == sum(detector.parameters().values()) > 0
    assert cost.model_bytes == sum(f.stat().st_size for f in RunPaths(trained).model.iterdir() if f.is_file())
    body = load_backbone(detector.config.features)
    assert cost.backbone_parameters == sum(p.numel() for p in body.parameters())
    assert cost.total_bytes > cost.backbone_bytes > 4 * cost.backbone_parameters
    assert Cost.from_json(cost.as_json()) == cost
    assert cost.numbers()["cost/ms_one"] == cost.one.value


def test_what_was_written_down_is_read_back_and_damage_is_nothing(trained, images, tmp_path):
    paths = RunPaths(tmp_path)
    assert read_cost(tmp_path) is None
    cost = measure_cost(trained, images[:1])
    write_json(paths.cost, cost.as_json())
    assert read_cost(tmp_path) == cost
    paths.cost.write_text('{"one": 3}')
    assert read_cost(tmp_path) is None


def test_images_that_cannot_be_read_are_no_measurement(trained, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(NfbmrError, match="cannot be read"):
        measure_cost(trained, [broken])


def test_training_is_what_was_read_and_fitted_wherever_the_flow_came_from(trained):
    summary = RunSummary.read(RunPaths(trained).summary)
    counts = summary.dataset.counts
    train, good = (sum(counts[side].values()) for side in ("train", "validation"))
    per_image = summary.configuration.selection.per_image
    assert summary.training_views == train + good * (1 + per_image)
    assert summary.fitting_seconds == pytest.approx(summary.timings["flow"])
    timings = {**summary.timings, "flow": 0.1}
    reused = summary.model_copy(update={"timings": timings, "saved_seconds": {"flow": 7.0}})
    assert reused.fitting_seconds == pytest.approx(7.1)

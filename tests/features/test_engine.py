"""The engine: any arithmetic, any batch, compiled or not, the same features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import fx, nn

from nfbmr.config import FeatureConfig
from nfbmr.errors import Interrupted
from nfbmr.features.backbone import Backbone, load_backbone, shapes_without_weights
from nfbmr.features.choosing import compared
from nfbmr.features.engine import Compute, Engine
from nfbmr.features.fused import FusedConv, fused

CONFIG = FeatureConfig(backbone="test_efficientnet", weights="random", taps=(2,), size=64)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(CONFIG)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("compute", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_arithmetic_is_the_one_asked_for(
    backbone: Backbone, x: torch.Tensor, compute: Compute, dtype: torch.dtype
) -> None:
    (y,) = Engine(backbone, compute=compute, size=64)(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        (expected,) = backbone(x)
    assert expected.dtype == torch.float32  # the backbone itself is left as it was
    scale = expected.abs().max()
    assert (y.float() - expected).abs().max() < (1e-5 if compute == "fp32" else 0.05) * scale


def test_where_nothing_can_be_compiled_it_runs_all_the_same(
    backbone: Backbone, x: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(backbone, compute="fp32", size=64, compiled=True)

    def no_compiler(_: torch.Tensor) -> None:
        raise RuntimeError("no working C++ compiler")

    engine._compiled = no_compiler
    (y,) = engine(x)
    (plain,) = Engine(backbone, compute="fp32", size=64)(x)
    assert torch.equal(y, plain)
    assert "no working C++ compiler" in caplog.text
    engine(x)
    assert caplog.text.count("cannot be compiled") == 1


@pytest.mark.parametrize("size", [64, 75])  # odd sizes pad otherwise
@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("tf_efficientnet_lite0", "blocks.3"),  # TensorFlow's padding, ReLU6
        ("tf_efficientnet_b0", "blocks.2"),  # SiLU, squeeze and excitation
        ("test_efficientnet", "blocks.4"),
        ("resnet10t", "layer3"),
        ("mobilenetv3_small_050", "blocks.2"),  # Hardswish
        ("gcresnext26ts", "stages.2"),  # parameters that belong to no layer that is called, as in the next
        ("convnext_atto", "stages.1"),
    ],
)
def test_fused_convolutions_give_the_same_numbers(name: str, tap: str, size: int) -> None:
    net = load_backbone(FeatureConfig(backbone=name, weights="random", taps=(tap,))).net
    faster = fused(net, size, torch.float32)
    assert sum(isinstance(module, FusedConv) for module in faster.modules()) > 5
    assert not any(isinstance(module, FusedConv) for module in net.modules())
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(faster(x)[0], net(x)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (50, 75), (65, 64)])
@pytest.mark.parametrize(("name", "tap"), [("tf_efficientnet_lite0", "blocks.3"), ("resnet10t", "layer3")])
def test_fused_convolutions_give_the_same_numbers_of_rectangles(
    name: str, tap: str, size: tuple[int, int]
) -> None:
    backbone = load_backbone(FeatureConfig(backbone=name, weights="random", taps=(tap,)))
    faster = fused(backbone.net, size, torch.float32)
    assert sum(isinstance(module, FusedConv) for module in faster.modules()) > 5
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (expected,) = backbone(x)
        torch.testing.assert_close(faster(x)[0], expected, rtol=1e-3, atol=1e-5)
    assert backbone.shapes(size)[backbone.taps[0]] == tuple(expected.shape[1:])
    assert shapes_without_weights(name, (tap,), size)[backbone.taps[0]] == tuple(expected.shape[1:])


def test_a_network_that_cannot_be_fused_runs_as_it_is_and_says_so_in_our_words(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    net = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 1)))
    with caplog.at_level("INFO"):
        assert fused(net, 64, torch.float32) is net
    records = [record for record in caplog.records if record.name.startswith("nfbmr")]
    said = [record.getMessage() for record in records]
    assert said == ["faster convolutions do not fit this network: it runs with torch's own"]
    assert capsys.readouterr().err == ""


def test_operators_that_give_other_numbers_are_not_used(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FusedConv, "forward", lambda self, x: torch.zeros_like(self.weight[:1]))
    assert fused(backbone.net, 64, torch.float32) is backbone.net


def test_a_batch_is_worked_off_in_parts_and_comes_back_whole() -> None:
    config = CONFIG.model_copy(update={"size": 384})
    engine = Engine(load_backbone(config), compute="fp32", size=384)
    x = torch.randn(5, 3, 384, 384, generator=torch.Generator().manual_seed(0))
    (y,) = engine(x)
    assert y.shape[0] == 5
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(engine(x[4:])[0], y[4:])


class Passes:
    """Passes that take the seconds they are told to, by a clock of their own."""

    def __init__(self, **seconds: list[float]) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self._left = {compute: iter(each) for compute, each in seconds.items()}

    def once(self, compute: str) -> None:
        self.log.append(compute)
        self.now += next(self._left[compute])

    def compare(self, stop: Callable[[], bool] | None = None) -> dict[Compute, float]:
        passes: dict[Compute, Callable[[], None]] = {c: partial(self.once, c) for c in ("fp32", "bf16")}
        return compared(passes, stop, clock=lambda: self.now)


def test_bf16_that_is_many_times_slower_runs_once() -> None:
    passes = Passes(fp32=[1.0], bf16=[17.0])
    best = passes.compare()
    assert passes.log == ["fp32", "bf16"]
    assert best["fp32"] < best["bf16"]


@pytest.mark.parametrize(("fp32", "bf16"), [([30.0, 2.0], [3.0, 1.0]), ([9.0, 1.0], [9.0, 2.0])])
def test_a_plain_difference_is_measured_once_after_warming_up(fp32: list[float], bf16: list[float]) -> None:
    passes = Passes(fp32=fp32, bf16=bf16)
    assert passes.compare() == {"fp32": fp32[1], "bf16": bf16[1]}
    assert len(passes.log) == 4


def test_close_ones_are_measured_again_and_the_best_of_each_counts() -> None:
    passes = Passes(fp32=[9.0, 1.2, 1.1, 1.3], bf16=[9.0, 1.4, 1.3, 1.0])
    assert passes.compare() == pytest.approx({"fp32": 1.1, "bf16": 1.0})


def test_a_stop_is_heard_between_two_passes() -> None:
    passes = Passes(fp32=[1.0], bf16=[1.0])
    with pytest.raises(Interrupted):
        passes.compare(stop=lambda: passes.log == ["fp32"])
    assert passes.log == ["fp32"]


@pytest.mark.slow
def test_compiled_features_are_the_same_and_a_short_last_batch_is_not_compiled_again(
    x: torch.Tensor,
) -> None:
    backbone = load_backbone(CONFIG.model_copy(update={"taps": (0,)}))
    engine = Engine(backbone, compute="fp32", size=64, compiled=True)
    plain = Engine(backbone, compute="fp32", size=64)
    for batch in (x, x[:1]):
        torch.testing.assert_close(engine(batch)[0], plain(batch)[0], rtol=1e-3, atol=1e-4)

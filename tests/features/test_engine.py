"""The engine: any arithmetic, any batch, compiled or not, the same features."""

from __future__ import annotations

import pytest
import torch

from nfbmr.config import FeatureConfig
from nfbmr.features.backbone import Backbone, load_backbone
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


@pytest.mark.slow
def test_compiled_features_are_the_same_and_a_short_last_batch_is_not_compiled_again(
    x: torch.Tensor,
) -> None:
    backbone = load_backbone(CONFIG.model_copy(update={"taps": (0,)}))
    engine = Engine(backbone, compute="fp32", size=64, compiled=True)
    plain = Engine(backbone, compute="fp32", size=64)
    for batch in (x, x[:1]):
        torch.testing.assert_close(engine(batch)[0], plain(batch)[0], rtol=1e-3, atol=1e-4)

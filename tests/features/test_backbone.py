"""The backbone: the right taps, nothing after them, the same numbers as the whole network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from nfbmr.config import FeatureConfig
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import (
    Backbone,
    load_backbone,
    shapes_without_weights,
)
from nfbmr.features.graph import Hooked, cut
from nfbmr.features.models import new_model
from nfbmr.features.taps import flat_blocks, resolve_taps
from nfbmr.features.weights import Weights


def load(backbone: str, *taps: int | str) -> Backbone:
    return load_backbone(FeatureConfig(backbone=backbone, weights="random", taps=taps))


def disturbed(backbone: str) -> nn.Module:
    """The whole model with batch norms as after a training, so that folding them wrongly would show."""
    model = new_model(backbone)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
            module.weight.data = torch.rand(module.num_features, generator=generator) + 0.5
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.1
    return model


def whole(model: nn.Module, taps: tuple[str, ...], x: torch.Tensor) -> list[torch.Tensor]:
    found = {}
    for tap in taps:
        model.get_submodule(tap).register_forward_hook(
            lambda _module, _args, out, tap=tap: found.update({tap: out.clone()})
        )
    with torch.inference_mode():
        model(x)
    return [found[tap] for tap in taps]


def test_the_papers_setting_has_the_papers_shape() -> None:
    backbone = load("tf_efficientnet_b5", 35)
    assert backbone.taps == ("blocks.5.8",)
    assert backbone.shapes(768) == {"blocks.5.8": (304, 24, 24)}
    assert backbone.folded


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("test_efficientnet", (0, "blocks.2")),
        ("test_efficientnet", ("blocks.3", 1)),  # in the order asked for, not the network's
        ("resnet10t", ("layer1", 2, "layer2.0.bn1")),
        ("test_convnext", (1,)),
        ("test_resnet", ("layer2", "layer1")),
        ("alexnet", ("features", 3)),  # torchvision's
    ],
)
def test_taps_give_what_the_whole_network_gives_there(name: str, taps: tuple[int | str, ...]) -> None:
    model = disturbed(name)
    paths = resolve_taps(model, taps, name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = whole(disturbed(name), paths, x)
    backbone = Backbone(model, name, taps, Weights("random", "", "", {}))
    assert backbone.traced
    with torch.inference_mode():
        features = backbone(x)
    for path, y, wanted in zip(paths, features, expected, strict=True):
        assert (1, *backbone.shapes(64)[path]) == tuple(y[:1].shape)
        assert shapes_without_weights(name, taps, 64)[path] == tuple(y.shape[1:])
        torch.testing.assert_close(y, wanted, rtol=1e-3, atol=1e-4)


def test_nothing_after_the_last_tap_is_left() -> None:
    backbone = load("test_efficientnet", "blocks.1")
    names = [name for name, _ in backbone.net.named_modules()]
    assert any(name.startswith("blocks.1") for name in names)
    assert not any(name.startswith(("blocks.2", "conv_head", "classifier")) for name in names)
    assert not any(type(module).__name__.startswith("BatchNorm") for module in backbone.net.modules())


def test_a_network_may_be_cut_while_others_compute_in_other_threads() -> None:
    """As a served model does while the next version is loaded."""
    call = nn.Module.__call__
    models = [new_model("tf_efficientnet_lite0") for _ in range(2)]
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1)))
    x, done = torch.rand(1, 3, 8, 8), threading.Event()
    expected = other(x)

    def answers() -> int:
        answered = 0
        while not done.is_set():
            assert torch.equal(other(x), expected)
            answered += 1
        return answered

    def cuts(model: nn.Module) -> list[tuple[str, ...]]:
        nets = [cut(model, ["blocks.2"]) for _ in range(3)]
        assert all(traced for _, _, traced in nets)
        return [tuple(str(node.target) for node in net.graph.nodes) for net, _, _ in nets]

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(answers) for _ in range(2)]
        cutting = [pool.submit(cuts, model) for model in models]
        try:
            targets = [target for each in cutting for target in each.result()]
        finally:
            done.set()
        assert min(each.result() for each in asking) > 0
    assert len(set(targets)) == 1
    assert "blocks" in str(targets[0])
    assert nn.Module.__call__ is call


def test_a_network_that_cannot_be_traced_is_read_by_hooks_and_broken_off() -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.never = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            if y.sum() > 1e9:
                return y
            self.second(y)
            raise AssertionError("ran on after the last tap")

    net, folded, traced = cut(Untraceable(), ("second", "first"))
    assert isinstance(net, Hooked)
    assert (folded, traced) == (False, False)
    second, first = net(torch.zeros(1, 3, 2, 2))
    assert (second.shape[1], first.shape[1]) == (5, 4)


def test_two_threads_that_read_by_hooks_get_their_own_maps() -> None:
    """Hooks belong to the module, which both run."""
    net = Hooked(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Identity()), ("0", "1"))

    def read(value: int) -> bool:
        x = torch.full((1, 1, 32, 32), float(value))
        expected = [y.clone() for y in net(x)]
        return all(torch.equal(a, b) for _ in range(50) for a, b in zip(net(x), expected, strict=True))

    with torch.inference_mode():
        alone = [y.clone() for y in net(torch.full((1, 1, 32, 32), 1.0))]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    with torch.inference_mode():
        assert all(map(torch.equal, net(torch.full((1, 1, 32, 32), 1.0)), alone))


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("tf_efficientnet_lite0", 16, "blocks.6.0"),
        ("resnet18", 8, "layer4.1"),
        ("test_convnext", 9, "stages.3.blocks.1"),
        ("regnety_002", 13, "s4.b7"),
    ],
)
def test_flat_indices_count_blocks(name: str, count: int, last: str) -> None:
    blocks = flat_blocks(new_model(name))
    assert (len(blocks), blocks[-1]) == (count, last)


@pytest.mark.parametrize(
    ("backbone", "tap", "says"),
    [
        ("test_efficientnet", "block.2", "blocks.2"),
        ("test_efficientnet", "blocks.9", "blocks"),
        ("test_efficientnet", 5, "from 0 to 4"),
        ("test_efficientnet", -1, "from 0 to 4"),
        ("test_efficientnett", 0, "test_efficientnet"),
        ("resnet_18", 0, "resnet18"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_the_nearest(
    backbone: str, tap: int | str, says: str
) -> None:
    with pytest.raises(BackboneError, match=says):
        load(backbone, tap)


def test_one_module_under_two_names_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"same module, blocks\.0\.0"):
        load("test_efficientnet", 0, "blocks.0.0")


def test_normalisation_is_the_models_own() -> None:
    assert load("tf_efficientnet_lite0", 0).mean == (0.5, 0.5, 0.5)
    assert load("resnet10t", 0).std == (0.229, 0.224, 0.225)

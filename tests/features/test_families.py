"""Any backbone that timm has: maps as ``feature_info`` says, two sizes, cut after the tap, fp32 and bf16."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from nfbmr.config import FeatureConfig
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import Backbone, load_backbone, shapes_without_weights
from nfbmr.features.engine import Engine
from nfbmr.features.inputs import input_rule
from nfbmr.features.keys import space_spec
from nfbmr.features.models import blank_model, new_model
from nfbmr.features.overview import taps_of
from nfbmr.features.passes import passes_of
from nfbmr.features.taps import feature_info, feature_names
from nfbmr.features.weights import Weights
from tests.features.timm_families import FAMILIES, OTHERS

DOZEN = (
    "test_efficientnet",
    "resnet10t",
    "test_convnext",
    "test_maxvit",
    "test_mambaout",
    "test_vit",
    "test_vit_relpos",
    "vit_tiny_patch16_dinov3_qkvb",
    "levit_128s",
    "pvt_v2_b0",
    "xcit_nano_12_p16_224",
    "efficientvim_m1",
)
# Their whole is a batch norm's, an averaging's or a padding's business; what feature_info rounds is not.
UNPADDED = ("inception", "nasnet", "pnasnet", "xception", "tresnet", "convmixer", "csatv2", "pit")


def pass_of(name: str, tap: str, size: int, aspect: float = 1.0) -> FeatureConfig:
    config = FeatureConfig(backbone=name, weights="random", taps=(tap,), size=size, aspect=aspect)
    return passes_of(config)[0]


def middle_tap(name: str) -> tuple[str, int]:
    """A feature in the middle of the network, and its place in feature_info."""
    named = feature_names(blank_model(name))
    if not named:  # timm names two alike: whatever is asked for is refused
        load_backbone(FeatureConfig(backbone=name, weights="random", taps=("blocks.0",)))
    place = (len(named) - 1) // 2
    return named[place], place


def both_sizes(name: str, tap: str, at_most: int) -> list[FeatureConfig]:
    """A small square or what a network was made for, and a rectangle; the second only where it is taken."""
    native = min(input_rule(name).native[0], at_most)
    try:
        shapes_without_weights(name, (tap,), pass_of(name, tap, native).shape)
    except BackboneError:
        native = input_rule(name).native[0]
        shapes_without_weights(name, (tap,), pass_of(name, tap, native).shape)
    sizes = [pass_of(name, tap, native)]
    wide = pass_of(name, tap, max(64, native // 64 * 64), 2.0)
    try:
        shapes_without_weights(name, (tap,), wide.shape)
    except BackboneError as error:
        refused = str(error)
    else:
        return [*sizes, wide]
    assert "features.size=" in refused, "a size that is refused comes with one that works"
    return sizes


def check(name: str, at_most: int = 128) -> int:
    """All that a backbone promises; how many sizes it took."""
    tap, place = middle_tap(name)
    about = feature_info(blank_model(name))[place]
    sizes = both_sizes(name, tap, at_most)
    for config in sizes:
        backbone = load_backbone(config)
        (shape,) = backbone.shapes(config.shape).values()
        assert shape[0] == about["num_chs"]
        reduction = about["reduction"]
        assert isinstance(reduction, int)
        slack = 4 if name.startswith(UNPADDED) or "inception" in name or "xception" in name else 0
        for found, side in zip(shape[1:], config.shape, strict=True):
            assert abs(found - -(-side // reduction)) <= slack
        assert shapes_without_weights(name, config.taps, config.shape) == {tap: shape}
        x = torch.randn(2, 3, *config.shape, generator=torch.Generator().manual_seed(0))
        (exact,) = Engine(backbone, compute="fp32", size=config.shape)(x)
        assert tuple(exact.shape) == (2, *shape)
        assert bool(exact.isfinite().all())
        assert_is_cut(backbone, name, last=place == len(feature_info(blank_model(name))) - 1)
    (rough,) = Engine(backbone, compute="bf16", size=config.shape)(x)
    alike = torch.nn.functional.cosine_similarity(exact.flatten(1), rough.float().flatten(1))
    assert alike.min() > 0.98
    return len(sizes)


def assert_is_cut(backbone: Backbone, name: str, *, last: bool) -> None:
    """Fewer numbers than the whole network has: what comes after the tap is gone."""

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    if backbone.traced or not hasattr(backbone.net, "paths"):
        assert last or count(backbone.net) < count(blank_model(name))


@pytest.mark.parametrize("name", DOZEN)
def test_a_backbone_keeps_its_promises(name: str) -> None:
    assert check(name, at_most=64) >= 1


REFUSED = ("coat", "crossvit", "gemma4_vit")
"""Two features under one name, twice; a network that looks at its numbers while it runs."""
TOO_LARGE = ("deepseek_vit",)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_timm(family: str) -> None:
    if family in TOO_LARGE:
        pytest.skip("its smallest member has 400 million parameters")
    if family in REFUSED:
        with pytest.raises(BackboneError):
            check(FAMILIES[family])
        return
    check(FAMILIES[family])


@pytest.mark.slow
def test_families_are_those_that_timm_has() -> None:
    import timm

    assert set(FAMILIES) == set(timm.list_modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_dino(name: str) -> None:
    assert check(name) == 2


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])
def test_tokens_become_maps_row_by_row_without_class_and_register_tokens(name: str) -> None:
    model = new_model(name)
    prefix = int(model.num_prefix_tokens)  # type: ignore[arg-type]
    x_B3HW = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    tokens: list[Tensor] = []
    model.get_submodule("blocks.1").register_forward_hook(lambda _m, _a, out: tokens.append(out))
    with torch.inference_mode():
        model(x_B3HW)
        (y_BCHW,) = Backbone(new_model(name), name, ("blocks.1",), Weights("random", "", "", {}))(x_B3HW)
    _, height, width = y_BCHW.shape[1:]
    assert tokens[0].shape[1] == prefix + height * width
    for row, column in ((0, 0), (1, 2), (height - 1, 0)):
        torch.testing.assert_close(y_BCHW[0, :, row, column], tokens[0][0, prefix + row * width + column])


def test_the_norm_of_a_vision_transformer_is_timms_own() -> None:
    x_B3HW = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        backbone = load_backbone(FeatureConfig(backbone="test_vit", weights="random", taps=("norm", 1)))
        normed, early = backbone(x_B3HW)
        model = new_model("test_vit")
        (expected,) = model.forward_intermediates(  # type: ignore[operator]
            x_B3HW, indices=1, norm=True, intermediates_only=True
        )
    torch.testing.assert_close(normed, expected)
    assert early.shape == normed.shape


def test_sizes_are_rounded_to_the_patch_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        config = pass_of("vit_base_patch14_dinov2", "blocks.3", 256, 1.5)
    assert config.shape == (224, 322)
    assert (
        "patch of 14 px: pictures are seen at 322 x 224 px (width x height), not at 320 x 224" in caplog.text
    )
    assert pass_of("tf_efficientnet_lite0", "blocks.3", 250).shape == (250, 250)


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_r_s16_p8_224", 32), ("sequencer2d_s", 14)])
def test_no_part_of_a_position_is_cut_off(name: str, patch: int) -> None:
    """A stem's maps are cut in patches, and patches are joined two by two."""
    assert input_rule(name).patch == patch
    tap, place = middle_tap(name)
    config = pass_of(name, tap, 176)
    (shape,) = shapes_without_weights(name, (tap,), config.shape).values()
    reduction = feature_info(blank_model(name))[place]["reduction"]
    assert isinstance(reduction, int)
    assert [side * reduction for side in shape[1:]] == list(config.shape)


def test_a_size_that_cannot_be_is_refused_with_the_nearest_that_can() -> None:
    with pytest.raises(
        BackboneError, match=r"cannot work on pictures of 256 x 256 px(.|\n)*features.size=224 "
    ):
        load_backbone(pass_of("levit_128s", "stages.1", 256)).shapes(256)
    with pytest.raises(BackboneError, match=r"features.size=160 "):
        load_backbone(pass_of("test_maxvit", "stages.1", 176)).shapes(176)


def test_what_is_no_map_is_refused_with_the_taps_that_are() -> None:
    with pytest.raises(
        BackboneError, match=r"no feature map(.|\n)*taps that do: stages.0, stages.1, stages.2"
    ):
        load_backbone(FeatureConfig(backbone="levit_128s", weights="random", taps=("stages.0.blocks.0",)))
    with pytest.raises(BackboneError, match="no feature map"):
        load_backbone(FeatureConfig(backbone="crossvit_tiny_240", weights="random", taps=("blocks.1",)))
    with pytest.raises(BackboneError, match="did you mean"):
        load_backbone(FeatureConfig(backbone="mvitv2_tiny", weights="random", taps=("blok.1",)))


def test_channels_that_stand_last_are_told_by_the_axes() -> None:
    """Global-context ViT says nothing of it, and was read as if rows were channels."""
    config = FeatureConfig(backbone="gcvit_xxtiny", weights="random", taps=("stages.1.blocks.0", "stages.1"))
    backbone = load_backbone(config)
    assert backbone.shapes(224) == {"stages.1.blocks.0": (128, 28, 28), "stages.1": (128, 28, 28)}
    keys = [space_spec(backbone, tap, config, "fp32").fields.get("axes") for tap in backbone.taps]
    assert keys == ["corrected", None]  # what was stored of the first is not found again


def test_a_transformer_is_exportable() -> None:
    backbone = load_backbone(FeatureConfig(backbone="test_vit", weights="random", taps=("blocks.2",)))
    x_B3HW = torch.randn(2, 3, 64, 96)
    exported = torch.export.export(backbone, (x_B3HW,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(x_B3HW), backbone(x_B3HW))


def test_the_overview_lists_taps_that_can_be_asked_for() -> None:
    found = taps_of("vit_small_patch14_dinov2", 450)
    assert (found.patch, found.size) == (14, (448, 448))
    assert list(found.shapes) == [*(f"blocks.{n}" for n in range(12)), "norm"]
    assert taps_of("levit_128s").shapes["stages.2"] == (384, 4, 4)

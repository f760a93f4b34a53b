from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nfbmr.config import MappingConfig
from nfbmr.mapping.pfm import BPFM
from nfbmr.methods.detector import build
from nfbmr.training.stages import MappingStage


def pfm(channels: int, latent: int, seed: int = 0) -> BPFM:
    return BPFM(channels, channels, latent, MappingConfig(), seed)


def direction(mapping: BPFM, before: nn.Sequential, after: nn.Sequential) -> list[nn.Module]:
    return [*before, mapping.shared, *after]


@pytest.mark.parametrize(("channels", "latent"), [(6, 4), (304, 400), (192, 200)])
def test_the_layers_are_the_published_ones(channels: int, latent: int) -> None:
    mapping = pfm(channels, latent)
    between = channels // 2 + latent
    widths = [channels, between, 2 * latent, latent, 2 * latent, between, channels]
    for halves in (
        (mapping.target_in, mapping.target_out),
        (mapping.source_in, mapping.source_out),
    ):
        layers = direction(mapping, *halves)
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        assert [(c.in_channels, c.out_channels) for c in convolutions] == list(pairwise(widths))
        assert {c.kernel_size for c in convolutions} == {(1, 1)}
        # batch norm and ReLU after each but the middle and the last
        kinds = "".join(type(layer).__name__[0] for layer in layers)
        assert kinds == "CBRCBR" + "C" + "CBRCBR" + "C"


def test_the_middle_is_one_set_of_parameters() -> None:
    mapping = pfm(4, 3)
    y, z = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    for output in (mapping.target(y), mapping.source(z)):
        mapping.zero_grad()
        output.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in mapping.shared.parameters())
    names = [name for name in mapping.state_dict() if name.startswith("shared")]
    assert names == ["shared.weight", "shared.bias"]


@settings(max_examples=15)
@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_every_position_is_mapped_by_itself(channels: int, latent: int, height: int, width: int) -> None:
    mapping = pfm(channels, latent).eval()
    y, z = torch.randn(2, channels, height, width), torch.randn(2, channels, height, width)
    with torch.no_grad():
        y_hat, z_hat = mapping(y, z)
        assert y_hat.shape == z_hat.shape == y.shape
        other = y.clone()
        other[0, :, 0, 0] += 1.0
        changed = (mapping.target(other) - z_hat).abs().sum(1) > 1e-6
    changed[0, 0, 0] = False
    assert not changed.any()


def test_one_image_scores_alike_alone_and_among_others() -> None:
    """Batch norm must not look at the batch when images are scored."""
    mapping = pfm(4, 3).eval()
    y, z = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    with torch.no_grad():
        together, alone = mapping(y, z), mapping(y[:1], z[:1])
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[:1], one)


def test_a_seed_fixes_the_weights_and_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (pfm(3, 4, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_it_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    y = torch.randn(16, 4, 4, 4)
    z = torch.einsum("dc,bchw->bdhw", torch.linalg.qr(torch.randn(4, 4)).Q, y)
    mapping = pfm(4, 16).train()
    stage = MappingStage(mapping)
    adam = torch.optim.Adam(mapping.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = stage.loss(y, z)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_the_method_builds_it(tiny) -> None:
    detector = build(tiny(method="nf-b-pfm", mapping__pfm_latent=[5]), ((6, 2, 2),), "")
    mapping = detector.networks.modules()["mapping"]
    assert isinstance(mapping, BPFM)
    assert mapping.shared.out_channels == 5

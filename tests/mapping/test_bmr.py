from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.config import MappingConfig
from nfbmr.mapping.bmr import BMR, ResidualBlock


def residual(latent: int) -> int:
    """Parameters of a residual block, counted by hand: 1x1, 3x3, 1x1, each with its bias."""
    return (latent * latent + latent) + (9 * latent * latent + latent) + (latent * latent + latent)


@pytest.mark.parametrize(("channels", "latent", "n"), [(6, 8, 1), (5, 4, 2), (304, 64, 3)])
def test_the_middle_block_is_counted_once(channels: int, latent: int, n: int) -> None:
    bmr = BMR(channels, MappingConfig(residual_blocks=n, latent=latent))
    ends = (channels * latent + latent) + (latent * channels + channels)
    expected = 2 * (ends + 2 * n * residual(latent)) + residual(latent)
    assert sum(p.numel() for p in bmr.parameters()) == expected
    assert sum(t.numel() for t in bmr.state_dict().values()) == expected


def test_both_networks_run_through_the_same_middle_block() -> None:
    bmr = BMR(4, MappingConfig(residual_blocks=1, latent=6))
    y, z = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    gradients = []
    for output in (bmr.target(y), bmr.source(z)):
        bmr.zero_grad()
        output.square().sum().backward()
        gradients.append(
            [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in bmr.shared.parameters()]
        )
    assert all(map(all, gradients))
    before = bmr(y, z)
    with torch.no_grad():
        next(bmr.shared.parameters()).add_(0.5)
    after = bmr(y, z)
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_nothing_else_is_shared() -> None:
    bmr = BMR(4, MappingConfig(residual_blocks=2, latent=6))
    bmr.target(torch.randn(2, 4, 3, 3)).sum().backward()
    for part in (bmr.source_in, bmr.source_out):
        assert all(p.grad is None for p in part.parameters())


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
def test_shapes_are_kept(channels: int, latent: int, n: int, height: int, width: int) -> None:
    bmr = BMR(channels, MappingConfig(residual_blocks=n, latent=latent))
    y, z = torch.randn(2, channels, height, width), torch.randn(2, channels, height, width)
    y_hat, z_hat = bmr(y, z)
    assert y_hat.shape == z_hat.shape == y.shape
    assert torch.equal(y_hat, bmr.source(z))
    assert torch.equal(z_hat, bmr.target(y))


def test_a_residual_block_is_the_papers() -> None:
    block = ResidualBlock(3)
    h = torch.randn(2, 3, 5, 5)
    one, three, last = (block.body[i] for i in (0, 2, 4))
    inner = torch.relu(three(torch.relu(one(h))))
    torch.testing.assert_close(block(h), h + torch.relu(last(inner)))
    assert [layer.kernel_size for layer in (one, three, last)] == [(1, 1), (3, 3), (1, 1)]


def test_outputs_can_be_negative() -> None:
    """Features and latents are unbounded, so nothing may rectify the last convolution."""
    with torch.no_grad():
        y_hat, z_hat = BMR(4, MappingConfig(latent=8))(torch.randn(4, 4, 5, 5), torch.randn(4, 4, 5, 5))
    assert float(y_hat.min()) < 0 < float(y_hat.max())
    assert float(z_hat.min()) < 0 < float(z_hat.max())


def test_a_seed_fixes_the_weights_and_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (BMR(3, MappingConfig(latent=4), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)

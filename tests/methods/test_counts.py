"""Trained numbers against counts by hand, at published settings; these settings can be built as they are."""

from __future__ import annotations

import pytest

import nfbmr
from nfbmr.methods.detector import blueprint, build
from nfbmr.methods.registry import named_configurations


def conv(c_in: int, c_out: int, kernel: int = 1) -> int:
    return c_in * c_out * kernel**2 + c_out


def norm(channels: int) -> int:
    return 2 * channels


def coupling(half: int, hidden: int, kernel: int) -> int:
    """Two subnets of one hidden layer, each of which gives scale and shift."""
    return 2 * (conv(half, hidden, kernel) + conv(hidden, 2 * half, kernel))


def pfm_way(c_in: int, c_out: int, latent: int) -> int:
    """All but the middle: two layers before it, two and a bare one after it."""
    one, other = c_in // 2 + latent, c_out // 2 + latent
    before = conv(c_in, one) + norm(one) + conv(one, 2 * latent) + norm(2 * latent)
    after = conv(latent, 2 * latent) + norm(2 * latent) + conv(2 * latent, other) + norm(other)
    return before + after + conv(other, c_out)


def middle(latent: int) -> int:
    return conv(2 * latent, latent)


def residual(latent: int) -> int:
    return 2 * conv(latent, latent) + conv(latent, latent, 3)


RESNETS = ((64, 64, 64), (128, 32, 32), (256, 16, 16), (256, 64, 64), (512, 32, 32), (1024, 16, 16))
COUNTS = {
    # K = 4, kernels 3, 3, 3, 5; BMR n = 2: 2 (1x1 in and out, 4 blocks) and one shared block.
    "paper": (
        ((304, 24, 24),),
        {
            "flow": 3 * coupling(152, 1024, 3) + coupling(152, 1024, 5),
            "mapping": 2 * (conv(304, 1024) + conv(1024, 304) + 4 * residual(1024)) + residual(1024),
        },
    ),
    "pfm-published": (
        (RESNETS[1], RESNETS[4]),
        {"mapping": pfm_way(128, 512, 400) + middle(400)},
    ),
    "b-pfm-published": (
        (RESNETS[1], RESNETS[4]),
        {"mapping": pfm_way(128, 512, 400) + pfm_way(512, 128, 400) + middle(400)},
    ),
    "mb-pfm-published": (
        RESNETS,
        {
            "mapping": sum(
                pfm_way(s, t, latent) + pfm_way(t, s, latent) + middle(latent)
                for s, t, latent in ((64, 256, 200), (128, 512, 400), (256, 1024, 900))
            )
        },
    ),
    # 8 blocks of two subnets: 384 to 2048, twice 2048 to 2048, and to scale and shift.
    "differnet-published": (
        ((768, 1, 1),),
        {"flow": 16 * (conv(384, 2048) + 2 * conv(2048, 2048) + conv(2048, 768))},
    ),
    # 4 blocks of two subnets: at three sizes in and out, two convolutions up and two down, three factors.
    "cs-flow-published": (
        ((304, 24, 24), (304, 12, 12), (304, 6, 6)),
        {
            "flow": sum(
                2 * (3 * conv(152, 1024, k) + (3 + 2 + 2) * conv(1024, 304, k) + 3) for k in (3, 3, 3, 5)
            )
        },
    ),
    # 8 blocks a layer: half of the channels and the code in, twice as wide, scale and shift of the other;
    # a factor and an offset a channel.
    "cflow-published": (
        ((512, 32, 32), (1024, 16, 16), (2048, 8, 8)),
        {
            "flow": sum(
                8 * (conv(c // 2 + 128, c + 256) + conv(c + 256, c) + 2 * c) for c in (512, 1024, 2048)
            )
        },
    ),
}


@pytest.mark.parametrize("configuration", COUNTS)
def test_parameters_are_those_counted_by_hand(configuration: str) -> None:
    shapes, expected = COUNTS[configuration]
    detector = build(nfbmr.configure(configuration), shapes, "")
    assert detector.parameters() == expected


@pytest.mark.parametrize("configuration", named_configurations())
def test_backbones_and_taps_of_named_configurations_exist(configuration: str) -> None:
    detector = blueprint(nfbmr.configure(configuration))
    if configuration in COUNTS:
        shapes, expected = COUNTS[configuration]
        assert detector.shapes == shapes
        assert detector.parameters() == expected

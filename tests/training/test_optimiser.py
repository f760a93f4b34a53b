from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from nfbmr.config import StageConfig
from nfbmr.training.optimiser import Optimiser, learning_rate

X = torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))


def backward(module: nn.Module) -> None:
    (module(X).square().mean() * 100).backward()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_it_is_torchs_plain_adam_with_clipping_and_schedule(clip: float | None, schedule: str) -> None:
    config = StageConfig(lr=0.01, weight_decay=0.1, clip=clip, schedule=schedule)  # type: ignore[arg-type]
    ours, reference = network(), network()
    optimiser = Optimiser(ours, config, steps=10)
    adam = torch.optim.Adam(reference.parameters(), lr=0.01, weight_decay=0.1, foreach=False, fused=False)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=10)
    for step in range(10):
        backward(ours)
        optimiser.step(step)
        adam.zero_grad()
        backward(reference)
        if clip is not None:
            nn.utils.clip_grad_norm_(reference.parameters(), clip)
        adam.step()
        if schedule == "cosine":
            cosine.step()
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_its_state_goes_through_named_tensors_bit_for_bit() -> None:
    config = StageConfig(lr=0.01)
    one, two = network(), network()
    first = Optimiser(one, config, steps=10)
    assert first.tensors() == {}
    for step in range(4):
        backward(one)
        first.step(step)
    stored = {key: value.clone() for key, value in first.tensors().items()}
    two.load_state_dict(one.state_dict())
    second = Optimiser(two, config, steps=10)
    second.load(stored)
    for step in range(4, 8):
        for module, optimiser in ((one, first), (two, second)):
            backward(module)
            optimiser.step(step)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_rate_falls_from_the_configured_one_to_nearly_nothing() -> None:
    config = StageConfig(lr=0.1, schedule="cosine")
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert all(a > b > 0 for a, b in pairwise(rates))
    assert rates[-1] < 1e-4

"""Our optimiser against torch's own class: the same weights and state, to the last bit."""

from __future__ import annotations

import copy

import torch
from torch import nn

from nfbmr.config import StageConfig
from nfbmr.training.optimiser import Optimiser, learning_rate

_STEPS = 5


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    net[2].requires_grad_(False)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def test_steps_are_those_of_torchs_adam() -> None:
    config = StageConfig(lr=0.01, weight_decay=1e-3, clip=0.5, schedule="cosine", betas=(0.8, 0.95), eps=1e-6)
    ours, theirs = _net(), _net()
    rates = ((0, 1.0), (3, 0.25))
    optimiser = Optimiser(ours, config, _STEPS, [(ours[part], share) for part, share in rates])
    adam = torch.optim.Adam(
        [{"params": list(theirs[part].parameters()), "share": share} for part, share in rates],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    for step in range(_STEPS):
        if step == 3:  # as a run that is gone on with
            kept = {name: tensor.clone() for name, tensor in optimiser.tensors().items()}
            ours = copy.deepcopy(ours)
            optimiser = Optimiser(ours, config, _STEPS, [(ours[part], share) for part, share in rates])
            assert optimiser.tensors() == {}
            optimiser.load(kept)
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for net in (ours, theirs):
            net(x).square().mean().backward()
        optimiser.step(step)
        for group in adam.param_groups:
            group["lr"] = group["share"] * learning_rate(config, step, _STEPS)
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adam.step()
        adam.zero_grad()
        assert all(p.grad is None for p in ours.parameters())
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other), name
        for kind, tensor in adam.state.get(other, {}).items():
            assert torch.equal(optimiser.tensors()[f"{kind}/{name}"], tensor), (kind, name)

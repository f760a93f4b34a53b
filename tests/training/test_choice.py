"""Which epoch is kept."""

from __future__ import annotations

import torch
from torch import nn

from nfbmr.training.choice import BestEpoch, Verdict


def verdict(objective: float, *influences: float) -> Verdict:
    return Verdict({"objective": objective}, torch.tensor(influences))


def test_an_epoch_that_ranks_the_same_images_wrongly_is_told_apart_by_little() -> None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    best.offer(0, verdict(0.80, 0.10, -0.10, 0.00), module)
    best.offer(1, verdict(0.79, 0.10, -0.10, 0.00), module)  # worse, and not by chance
    assert (best.epoch, best.highest) == (0, 0.80)
    best.offer(2, verdict(0.79, -0.10, 0.10, 0.00), module)  # it errs elsewhere: chance may be all there is
    assert (best.epoch, best.highest) == (2, 0.80)


def test_later_epochs_are_compared_with_the_best_not_with_the_one_that_is_kept() -> None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    best.offer(0, verdict(0.80, 0.10, -0.10, 0.00), module)
    for epoch, objective in enumerate((0.75, 0.70, 0.60), 1):
        best.offer(epoch, verdict(objective, 0.05, -0.05, 0.00), module)
    assert best.epoch == 1  # a chain of small steps does not lead far down


def test_weights_are_those_of_the_epoch_that_is_kept() -> None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    best.offer(0, Verdict({"objective": 0.9}), module)
    kept = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    best.offer(1, Verdict({"objective": 0.8}), module)
    assert torch.equal(best.weights["weight"], kept)

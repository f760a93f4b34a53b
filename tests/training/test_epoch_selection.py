"""Which epoch is kept."""

from __future__ import annotations

import torch
from torch import nn

from nfbmr.training.epoch_selection import BestEpoch, ValidationResult

ALIKE = (0.10, -0.10, 0.00)
OTHERWISE = (-0.10, 0.10, 0.00)


def verdict(objective: float, influences: tuple[float, ...], loss: float | None = None) -> ValidationResult:
    metrics = {"objective": objective} | ({} if loss is None else {"validation_loss": loss})
    return ValidationResult(metrics, torch.tensor(influences))


def kept(*results: ValidationResult) -> int | None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    for epoch, one in enumerate(results):
        best.update(epoch, one, module)
    return best.epoch


def test_an_epoch_that_ranks_the_same_images_wrongly_is_told_apart_by_little() -> None:
    assert kept(verdict(0.80, ALIKE), verdict(0.79, ALIKE)) == 0  # worse, and not by chance
    assert kept(verdict(0.80, ALIKE), verdict(0.79, OTHERWISE)) == 1  # it errs elsewhere: chance may be all


def test_of_epochs_that_cannot_be_told_apart_the_one_that_bears_held_out_parts_best_is_kept() -> None:
    early, late = verdict(0.80, ALIKE, loss=0.9), verdict(0.79, OTHERWISE, loss=1.2)
    assert kept(early, late) == 0
    assert kept(late, early) == 1
    assert kept(verdict(0.80, ALIKE, loss=0.9), verdict(0.81, OTHERWISE, loss=1.2)) == 0


def test_a_likely_epoch_does_not_outlive_a_clearly_better_one() -> None:
    assert kept(verdict(0.70, ALIKE, loss=0.9), verdict(0.80, ALIKE, loss=1.2)) == 1


def test_later_epochs_are_compared_with_the_best_not_with_the_one_that_is_kept() -> None:
    steps = [verdict(objective, (0.05, -0.05, 0.00)) for objective in (0.75, 0.70, 0.60)]
    assert kept(verdict(0.80, ALIKE), *steps) == 1  # a chain of small steps does not lead far down


def test_weights_are_those_of_the_epoch_that_is_kept() -> None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    best.update(0, ValidationResult({"objective": 0.9}), module)
    weight = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    best.update(1, ValidationResult({"objective": 0.8}), module)
    assert torch.equal(best.weights["weight"], weight)


def test_it_survives_a_checkpoint() -> None:
    best, module = BestEpoch(), nn.Linear(1, 1)
    best.update(0, verdict(0.80, ALIKE, loss=0.9), module)
    best.update(1, verdict(0.81, OTHERWISE, loss=1.2), module)
    again = BestEpoch.restored(best.state_dict(), best.influences(), best.weights)
    for one in (best, again):
        one.update(2, verdict(0.80, ALIKE, loss=0.8), module)
        assert one.epoch == 2

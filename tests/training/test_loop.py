from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nfbmr.config import TrainConfig
from nfbmr.errors import DivergenceError, OutputError
from nfbmr.training.checkpoints import load
from nfbmr.training.epoch_selection import ValidationResult
from nfbmr.training.stages import Stage

KINDS = ("flow", "mapping")


class Scripted(Stage):
    """A stage whose loss at each step is given."""

    name = "flow"

    def __init__(self, losses: Callable[[int], float]) -> None:
        self.module: nn.Module = nn.Conv2d(5, 1, 1)
        self.losses, self.step = losses, 0

    def maps(self, *batch: Tensor) -> Tensor:
        """Nothing is judged."""
        raise NotImplementedError

    def loss(self, *batch: Tensor) -> Tensor:
        """The next loss, at a gradient of zero."""
        value = self.losses(self.step)
        self.step += 1
        return self.module(batch[0]).sum() * 0.0 + value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_goes_down(trial: Any, kind: str, precision: Any) -> None:
    each = trial(kind, epochs=12, lr=5e-3)
    each.train = TrainConfig(precision=precision, device="cpu")
    losses = [epoch["loss"] for epoch in each.run().history]
    assert losses[-1] < losses[0] - 0.05


def test_every_epoch_is_told_from_one_on_with_its_metrics(trial: Any) -> None:
    reported: list[tuple[int, dict[str, float]]] = []
    result = trial().run(
        on_epoch=lambda epoch, metrics: reported.append((epoch, dict(metrics))),
        validate=lambda: ValidationResult({"objective": 0.25, "validation_auroc": 0.25}),
    )
    assert [epoch for epoch, _ in reported] == [1, 2, 3, 4]
    assert [metrics for _, metrics in reported] == list(result.history)
    assert reported[0][1].keys() == {"epoch", "loss", "lr", "seconds", "objective", "validation_auroc"}
    assert reported[0][1]["lr"] > reported[-1][1]["lr"] > 0


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(trial: Any) -> None:
    each = trial(epochs=1)  # 11 images as 4 + 4 + 3
    each.stage = Scripted(lambda step: [1.0, 2.0, 5.0][step])
    assert each.run().history[0]["loss"] == pytest.approx((4 * 1 + 4 * 2 + 3 * 5) / 11)


def test_the_epoch_that_validates_best_is_kept_and_of_equals_the_latest(trial: Any) -> None:
    snapshots: list[dict[str, Tensor]] = []
    quality = iter([0.1, 0.9, 0.9, 0.2])
    each = trial()

    def validate() -> ValidationResult:
        assert not each.stage.module.training
        assert not torch.is_grad_enabled()
        snapshots.append(each.weights())
        return ValidationResult({"objective": next(quality)})

    result = each.run(validate=validate)
    assert result.epoch == 3
    assert all(torch.equal(each.weights()[key], snapshots[2][key]) for key in snapshots[2])
    assert not each.stage.module.training


def test_the_last_epoch_is_kept_where_asked(trial: Any) -> None:
    quality = iter([0.9, 0.1, 0.1, 0.1])
    assert (
        trial().run(validate=lambda: ValidationResult({"objective": next(quality)}), select="last").epoch == 4
    )


def test_validation_comes_every_so_many_epochs_and_after_the_last(trial: Any) -> None:
    each = trial(epochs=5)
    each.train = TrainConfig(precision="fp32", device="cpu", validate_every=2)
    history = each.run(validate=lambda: ValidationResult({"objective": 0.0})).history
    assert [epoch["epoch"] for epoch in history if "objective" in epoch] == [2, 4, 5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_with_advice(trial: Any, bad: float) -> None:
    each = trial(epochs=4)
    each.stage = Scripted(lambda step: bad if step == 7 else 1.0)
    with pytest.raises(DivergenceError) as caught:
        each.run()
    text = str(caught.value)
    assert "stage flow, epoch 3, step 2" in text
    assert "train.flow.lr" in text
    assert "flow.clamp" in text
    _, meta = load(each.folder, "last")
    assert 1 <= meta["state"]["epoch"] <= 2, "a good checkpoint is left"


def test_a_loss_that_runs_away_stops_the_stage(trial: Any) -> None:
    each = trial(epochs=40)
    each.stage = Scripted(lambda step: 2.0**step)
    with pytest.raises(DivergenceError, match="ran away"):
        each.run()


def test_a_single_wild_batch_does_not(trial: Any) -> None:
    each = trial(epochs=20)
    each.stage = Scripted(lambda step: 1e6 if step == 20 else 1.0)
    assert len(each.run().history) == 20


def test_a_rate_far_too_high_is_noticed_in_real_training(trial: Any) -> None:
    each = trial("mapping", epochs=30, lr=1e6, clip=None)
    with pytest.raises(DivergenceError, match=r"train\.mapping\.lr"):
        each.run()


def test_broken_weights_are_never_checkpointed(trial: Any) -> None:
    each = trial(epochs=3)

    def spoil(epoch: int, _: Any) -> None:
        if epoch == 2:
            next(each.stage.module.parameters()).data.fill_(math.nan)

    with pytest.raises(DivergenceError):
        each.run(on_epoch=spoil)
    tensors, meta = load(each.folder, "last")
    assert meta["state"]["epoch"] == 1
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())


def test_the_callers_random_numbers_are_left_alone(trial: Any) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    trial().run()
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_that_cannot_be_written_is_an_output_error(trial: Any) -> None:
    each = trial()
    each.folder.parent.mkdir(exist_ok=True)
    each.folder.write_text("a file where the folder should be")
    with pytest.raises(OutputError):
        each.run()


def test_standard_output_and_a_log_file_see_no_progress_bar(
    trial: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trial().run()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")

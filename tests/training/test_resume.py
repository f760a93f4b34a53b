"""A stage that is stopped anywhere and run again ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nfbmr.config import TrainConfig
from nfbmr.errors import CheckpointError, Interrupted
from nfbmr.training.checkpoints import load
from nfbmr.training.epoch_selection import ValidationResult

KINDS = ("flow", "mapping")
STEPS = 12  # 11 images in batches of 4, 4 epochs


def without_clock(history: Any) -> list[dict[str, float]]:
    """A history less the seconds, which differ from run to run."""
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, STEPS])
def test_stopped_after_any_step_it_goes_on_bit_for_bit(
    trial: Any, stop_after: Any, kind: str, steps: int
) -> None:
    whole = trial(kind, "whole")
    expected = whole.run()
    stopped = trial(kind, "stopped")
    with pytest.raises(Interrupted) as caught:
        stopped.run(stop=stop_after(steps))
    assert caught.value.exit_code == 130
    assert "same command again" in str(caught.value)
    again = trial(kind, "stopped")  # a new process knows nothing but the folder
    torch.manual_seed(99)
    result = again.run()
    assert same(again.weights(), whole.weights())
    assert without_clock(result.history) == without_clock(expected.history)
    assert result.resumed_from == (steps - 1) // 3
    assert expected.resumed_from is None


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_every_single_step_it_still_ends_the_same(trial: Any, stop_after: Any, kind: str) -> None:
    whole = trial(kind, "whole", epochs=2)
    expected = whole.run()
    for _ in range(6):
        with pytest.raises(Interrupted):
            trial(kind, "stopped", epochs=2).run(stop=stop_after(1))
    again = trial(kind, "stopped", epochs=2)
    assert without_clock(again.run().history) == without_clock(expected.history)
    assert same(again.weights(), whole.weights())


def test_the_best_epoch_survives_a_stop(trial: Any, stop_after: Any) -> None:
    quality = iter([0.1, 0.9, 0.3, 0.2])
    whole = trial("flow", "whole")
    expected = whole.run(validate=lambda: ValidationResult({"objective": next(quality)}))
    assert expected.epoch == 2
    quality = iter([0.1, 0.9, 0.3, 0.2])
    with pytest.raises(Interrupted):
        trial("flow", "stopped").run(
            stop=stop_after(8), validate=lambda: ValidationResult({"objective": next(quality)})
        )
    again = trial("flow", "stopped")
    result = again.run(validate=lambda: ValidationResult({"objective": next(quality)}))
    assert result.epoch == 2
    assert same(again.weights(), whole.weights())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights_and_another_does_not(trial: Any, kind: str) -> None:
    one, two, other = trial(kind, "one"), trial(kind, "two"), trial(kind, "other")
    other.batches.seed = 1
    for each in (one, two, other):
        each.run()
    assert same(one.weights(), two.weights())
    assert not same(one.weights(), other.weights())


def test_a_finished_stage_is_only_loaded(trial: Any) -> None:
    first = trial()
    expected = first.run()
    again = trial()
    epochs: list[int] = []
    result = again.run(on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == []
    assert same(again.weights(), first.weights())
    assert result.history == expected.history
    assert result.resumed_from == 4


def test_going_on_with_another_configuration_names_what_differs(trial: Any, stop_after: Any) -> None:
    with pytest.raises(Interrupted):
        trial().run(stop=stop_after(4), identity={"flow": {"blocks": 2}})
    with pytest.raises(CheckpointError) as caught:
        trial(lr=0.5).run(identity={"flow": {"blocks": 3}})
    assert "train.lr was 0.001, is 0.5" in str(caught.value)
    assert "flow.blocks was 2, is 3" in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(trial: Any, stop_after: Any) -> None:
    with pytest.raises(Interrupted):
        trial("flow").run(stop=stop_after(4))
    other = trial("mapping")
    other.stage.name = "flow"
    with pytest.raises(CheckpointError, match="does not fit"):
        other.run()


def test_damaged_checkpoints_fall_back_and_still_end_the_same(trial: Any, stop_after: Any) -> None:
    whole = trial("flow", "whole")
    whole.run()
    for steps in (4, 3):
        with pytest.raises(Interrupted):
            trial("flow", "damaged").run(stop=stop_after(steps))
    folder = trial("flow", "damaged").folder
    newest = folder / json.loads((folder / "last.json").read_text())["tensors"]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = trial("flow", "damaged")
    again.run()
    assert same(again.weights(), whole.weights())


def test_an_automatic_precision_stays_what_it_was(trial: Any, stop_after: Any) -> None:
    first = trial()
    with pytest.raises(Interrupted):
        first.run(stop=stop_after(4))
    again = trial()
    again.train = TrainConfig(precision="auto", checkpoint_every=1, device="cpu")
    with pytest.raises(Interrupted):
        again.run(stop=stop_after(1))
    assert load(again.folder, "last")[1]["state"]["precision"] == "fp32"


PROGRAM = """
import sys, time
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("parts", sys.argv[1])
parts = importlib.util.module_from_spec(spec)
sys.modules["parts"] = parts
spec.loader.exec_module(parts)
from nfbmr.errors import Interrupted
trial = parts.make(sys.argv[2], Path(sys.argv[3]), epochs=int(sys.argv[4]))
def tell(epoch, metrics):
    print(epoch, flush=True)
    time.sleep(0.1)
with parts.StopRequest() as stop:
    try:
            trial.run(stop=stop, on_epoch=tell)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
"""


def test_a_signal_to_a_real_process_writes_a_checkpoint_that_goes_on(trial: Any, tmp_path: Path) -> None:
    epochs = 25
    conftest = str(Path(__file__).with_name("conftest.py"))
    command = [sys.executable, "-c", PROGRAM, conftest, "flow", str(tmp_path / "signalled"), str(epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "a checkpoint is written" in errors
    again = trial("flow", "signalled", epochs=epochs)
    done = load(again.folder, "last")[1]["state"]
    assert 3 <= done["epoch"] < epochs
    result = again.run()
    whole = trial("flow", "whole", epochs=epochs)
    whole.run()
    assert result.resumed_from == done["epoch"]
    assert same(again.weights(), whole.weights())

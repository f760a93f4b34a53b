"""What a sweep refuses before anything is made, and how many trials a GPU takes."""

from __future__ import annotations

import pytest

from nfbmr.cli.main import main
from nfbmr.errors import NfbmrError
from tests.tune.search.test_sweep import HERE, SPACE
from tune.execution.resources import gpu_share
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan
from tune.search.space import Space
from tune.search.sweep import new_sweep


def test_data_that_is_not_there_does_not_take_the_name(tmp_path, tiny_config):
    config = tiny_config(tmp_path)
    lost = config.model_copy(update={"data": config.data.model_copy(update={"path": tmp_path / "nowhere"})})
    plan = SweepPlan("mistyped", lost, Space.parse(SPACE), trials=1, resources=HERE)
    with pytest.raises(NfbmrError, match="nowhere"):
        new_sweep(plan)
    assert not SweepPaths(config.output / "mistyped").plan.exists()


def call(capsys, *arguments: str) -> tuple[int, str]:
    code = main(["sweep", *arguments])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--space", "SPACE", "--trials", "0"], "--trials"),
        (["--space", "no/such.yaml"], "named space"),
        (["--objective", "auroc,size"], "no size"),
        (["--objective", "auroc,latency", "--prune"], "--prune"),
        (["--sampler", "tpee"], "tpee"),
        (["--resources", "cpus=1"], "cpu=1"),
        (["--resources", "cpu=few"], "no number"),
        (["--resources", "cpu=nan"], "0 or more"),
        (["--time-budget", "soon"], "2h30m"),
        (["--start", "flow.block=4"], "did you mean flow.blocks"),
        (["--start", "flow.blocks"], "KEY=VALUE"),
        (["--name", "../up"], "--name"),
        (["--resume", "nothing"], "no sweep nothing"),
        (["--set", "flow.blocks=0"], "flow.blocks = 0"),
    ],
)
def test_bad_calls_are_refused_before_anything_is_made(capsys, tmp_path, arguments, words):
    output = tmp_path / "runs"
    code, messages = call(capsys, "--output", str(output), "--local", *arguments)
    assert code == 2, messages
    assert words in messages
    assert not output.exists()


def test_a_space_with_mistakes_is_refused_with_all_of_them(capsys, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("flow.block: {int: [1, 2]}\nflow.hidden: {int: [9, 3]}\ndata.path: {choice: [a, b]}\n")
    code, messages = call(capsys, "--space", str(space), "--output", str(tmp_path / "runs"), "--local")
    assert code == 2
    assert all(f"space.yaml:{line}:" in messages for line in (1, 2, 3))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("peak", "total"), [(1e9, 24e9), (3e9, 24e9), (20e9, 24e9), (40e9, 24e9), (1, 80e9)])
def test_trials_of_a_measured_size_fit_their_gpu(peak, total):
    share = gpu_share(peak, total)
    assert 0 < share <= 1
    at_once = int(1 / share + 1e-9)
    assert at_once == 1 or at_once * peak < total
    assert round(share, 4) == share

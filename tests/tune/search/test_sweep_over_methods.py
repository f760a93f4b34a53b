"""A sweep over methods: each runs in its own settings, on features that were extracted before."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import pytest

from nfbmr.api import configure
from nfbmr.cli.main import main
from nfbmr.paths import RunPaths
from nfbmr.resolve import load_config
from tests.tune.search.shards import feature_shards
from tune.execution.resources import Resources
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan
from tune.search.space import Space
from tune.search.sweep import new_sweep
from tune.search.warm_start import trials_of

HERE = Resources(backend="local")
METHODS = """
method: {choice: [nf, patchcore, padim, differnet]}
padim.channels: {choice: [8, 16], when: {method: padim}}
"""


@pytest.fixture(scope="module")
def over_methods(tmp_path_factory, textures):
    """A finished sweep over four methods, of which the user chose little: each runs in its own defaults."""
    root = tmp_path_factory.mktemp("methods")
    chosen = {
        "data.path": str(textures),
        "output": str(root / "runs"),
        "store": str(root / "store"),
        "method": "nf",
        "features.size": 64,
        "features.detail.taps": [],
        "train.flow.epochs": 2,
        "evaluation.bootstrap": 20,
        "evaluation.heatmaps": 1,
        "tracking.kind": "folder",
    }
    methods = ({"method": "patchcore"}, {"method": "padim", "padim.channels": 8}, {"method": "differnet"})
    plan = SweepPlan(
        "methods",
        configure(settings=chosen),
        Space.parse(METHODS),
        trials=4,
        prune=False,
        start=methods,
        resources=HERE,
        chosen=tuple(chosen),
    )
    return plan, SweepPaths(root / "runs" / "methods"), new_sweep(plan).as_json(), chosen


def test_every_method_of_a_sweep_runs_in_its_own_settings(over_methods):
    _, paths, summary, chosen = over_methods
    assert summary["trials"] == {"asked": 4, "finished": 4, "pruned": 0, "failed": 0, "unfinished": 0}
    given: tuple[dict[str, Any], ...] = (
        {},
        {"method": "patchcore"},
        {"method": "padim", "padim.channels": 8},
        {"method": "differnet"},
    )
    for number, settings in enumerate(given):
        assert load_config(RunPaths(paths.trial(number)).config) == configure(settings=chosen | settings)
    assert summary["errors"] == {}
    rows = csv.DictReader(paths.table("csv").read_text().splitlines())
    assert {row["method"]: row["flow"] for row in rows} == {
        "nf": "trained", "differnet": "trained", "patchcore": "", "padim": "",
    }  # fmt: skip


def test_features_of_every_method_are_extracted_before_the_first_trial(over_methods):
    plan, paths, _, _ = over_methods
    first = min(RunPaths(paths.trial(n)).config.stat().st_mtime for n in range(4))
    last = max(RunPaths(paths.trial(n)).fitted.stat().st_mtime for n in range(4))
    written = [path.stat().st_mtime for path in feature_shards(plan.config.store)]
    assert min(written) < first
    assert not any(first < time < last for time in written)


def test_a_sweep_over_methods_can_be_read_back_and_learned_from(over_methods):
    plan, paths, _, _ = over_methods
    assert SweepPlan.read(paths.plan) == plan
    asking = replace(plan, name="next", warm_start=str(paths.root))
    earlier = trials_of(str(paths.root), asking)
    assert [one.settings["method"] for one in earlier] == ["nf", "patchcore", "padim", "differnet"]
    assert all(plan.space.params_of(one.settings) is not None for one in earlier)


def test_methods_that_cannot_run_with_what_was_asked_are_refused_before_anything_is_made(
    capsys, tmp_path, textures
):
    space = tmp_path / "space.yaml"
    space.write_text("method: {choice: [patchcore, padim, cflow]}\n")
    output = tmp_path / "runs"
    arguments = ["--data", str(textures), "--output", str(output), "--space", str(space)]
    arguments += ["--set", "scoring.reduction=image", "--method", "patchcore", "--local"]
    assert main(["sweep", *arguments]) == 2
    messages = capsys.readouterr().err
    assert "method=padim" in messages
    assert "no score of its own for the image" in messages
    assert not output.exists()

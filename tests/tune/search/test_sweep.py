"""A sweep, whole: what is extracted, run, pruned, gone on with after a kill, and scored once."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfbmr.cli.main import main
from nfbmr.errors import ConfigError, NfbmrError
from nfbmr.paths import RunPaths, read_json
from nfbmr.records import read_record
from nfbmr.resolve import dump_yaml, load_config
from nfbmr.scoring.ranking import difference_error
from tests.stored_stages import stored_stages
from tests.tune.search.shards import feature_shards
from tune.execution.resources import Resources
from tune.records.driver import driver_lock
from tune.records.paths import SweepPaths
from tune.records.sweep_summary import SweepSummary
from tune.search.plan import SweepPlan
from tune.search.report import headline
from tune.search.space import Space
from tune.search.sweep import execute_sweep, find_sweep, new_sweep
from tune.search.warm_start import trials_of
from tune.verify import verify

HERE = Resources(backend="local")
SPACE = """
mapping.latent: {choice: [4, 8]}
flow.hidden: {choice: [4, 8]}
features.taps: {choice: [[blocks.1], [blocks.2]]}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_config):
    """A finished sweep of five trials, without pruning, and its summary."""
    config = tiny_config(tmp_path_factory.mktemp("sweep"))
    plan = SweepPlan("tiles", config, Space.parse(SPACE), trials=5, prune=False, resources=HERE)
    return plan, SweepPaths(config.output / "tiles"), new_sweep(plan).as_json()


def test_summary_says_what_was_found(swept):
    _, paths, summary = swept
    assert json.loads(paths.summary.read_text()) == json.loads(json.dumps(summary))
    assert summary["name"] == "tiles"
    assert summary["trials"] == {"asked": 5, "finished": 5, "pruned": 0, "failed": 0, "unfinished": 0}
    best, highest = summary["best"], summary["highest"]
    fitted = [read_json(RunPaths(paths.trial(n)).fitted) for n in range(5)]
    values = [one["metrics"]["validation"]["image_auroc"]["value"] for one in fitted]
    assert highest["values"]["validation/image_auroc"] == max(values)
    assert best["values"]["validation/image_auroc"] == values[best["number"]]
    assert set(best["params"]) == {"mapping.latent", "flow.hidden", "features.taps"}
    assert 0 <= best["test"]["image_auroc"]["value"] <= 1
    assert summary["pareto"] == []
    assert summary["hits"]["features"] == 5
    assert summary["seconds"] > 0


def test_summary_says_how_far_the_choice_can_be_trusted(swept):
    _, paths, summary = swept
    trust, best = summary["trust"], summary["highest"]["number"]
    assert (trust["finished"], trust["error"]) == (5, "paired")
    influences = [read_json(RunPaths(paths.trial(n)).influence) for n in range(5)]
    assert len({tuple(sorted(one)) for one in influences}) == 1  # the same parts in every trial
    values = [read_json(RunPaths(paths.trial(n)).fitted) for n in range(5)]
    values = [one["metrics"]["validation"]["image_auroc"]["value"] for one in values]
    near = []
    for number, influence in enumerate(influences):
        pair = (torch.tensor([one[unit] for unit in sorted(one)]) for one in (influences[best], influence))
        if values[best] - values[number] <= 2 * difference_error(*pair):
            near.append(number)
    assert sorted(trust["trials"]) == near
    assert trust["trials"][0] == best
    assert trust["within_error"] == len(near)


def test_it_begins_with_the_base_configuration_which_is_chosen_where_it_is_as_good(swept):
    plan, paths, summary = swept
    assert load_config(RunPaths(paths.trial(0)).config) == plan.config
    trust = summary["trust"]
    assert trust["best"] == summary["highest"]["number"]
    assert summary["best"]["number"] == (0 if 0 in trust["trials"] else trust["best"]) == trust["chosen"]
    assert f"Trial {trust['chosen']:04d}" in trust["why"]


def test_everybody_is_told_what_it_is_worth_and_what_is_missing(swept):
    _, paths, summary = swept
    record = read_record(paths.journal)
    trust = summary["trust"]
    sentences = (trust["sentence"], summary["importance"]["missing"], trust["why"])
    assert summary["importance"]["finished"] == 5
    assert summary["importance"]["needed"] == 20
    assert sentences[1].endswith(f"nfbmr sweep --resume {paths.root} --trials 20")
    for text in (
        headline(SweepSummary.from_json(summary)),
        paths.table("md").read_text(),
        record.tags["mlflow.note.content"],
    ):
        for sentence in sentences:
            assert text.count(sentence) == 1
    assert record.tags["nfbmr.within_error"] == f"{summary['trust']['within_error']} of 5"
    assert {path.stem for path in paths.pictures.glob("*.png")} == {"history", "timeline"}  # nobody is pruned


def test_only_the_chosen_trial_ever_read_its_test_set(swept):
    _, paths, summary = swept
    tested = [n for n in range(5) if RunPaths(paths.trial(n)).summary.exists()]
    assert tested == [summary["best"]["number"]]
    best = RunPaths(paths.trial(tested[0]))
    assert best.report.exists()
    record = read_record(best.journal)
    assert record.status == "finished"
    assert "test/image_auroc" in record.metrics
    assert "model" in record.models


def test_every_trial_is_a_run_of_its_own_below_the_sweep(swept):
    _, paths, _ = swept
    for number in range(5):
        record = read_record(RunPaths(paths.trial(number)).journal)
        assert (record.run_id, record.parent_id) == (f"tiles-{number:04d}", "tiles")
        assert record.status == "finished"
        assert [point.step for point in record.metrics["flow/loss"]][:2] == [1, 2]
    parent = read_record(paths.journal)
    assert parent.status == "finished"
    assert parent.metrics["trials/finished"][-1].value == 5


def test_flows_that_several_trials_want_are_trained_once(swept):
    plan, paths, summary = swept
    fitted = [read_json(RunPaths(paths.trial(n)).fitted) for n in range(5)]
    wanted = {(one["config"]["flow"]["hidden"], str(one["config"]["features"]["taps"])) for one in fitted}
    # Of mappings the store has that of the chosen trial alone, which went on to the test set.
    assert stored_stages(plan.config.store) == {"flow": len(wanted), "mapping": 1}
    assert summary["hits"]["flows"] == 5 - len(wanted)
    assert summary["saved_seconds"]["stages"] > 0


def test_features_of_all_trials_were_extracted_before_the_first(swept):
    plan, paths, _ = swept
    first = min(RunPaths(paths.trial(n)).config.stat().st_mtime for n in range(5))
    last = max(RunPaths(paths.trial(n)).fitted.stat().st_mtime for n in range(5))
    shards = feature_shards(plan.config.store)
    assert len({path.parent for path in shards}) == 2  # a space a tap
    written = [path.stat().st_mtime for path in shards]
    assert min(written) < first
    assert not any(first < time < last for time in written)  # later ones are of the best's test images


def test_tables_list_every_trial_the_best_first(swept):
    _, paths, summary = swept
    rows = list(csv.DictReader(paths.table("csv").read_text().splitlines()))
    assert sorted(row["trial"] for row in rows) == [f"{n:04d}" for n in range(5)]
    assert float(rows[0]["auroc"].split()[0]) == round(
        summary["highest"]["values"]["validation/image_auroc"], 4
    )
    assert {"latent", "hidden", "taps"} <= rows[0].keys()
    lines = paths.table("md").read_text().splitlines()
    assert sum(line.startswith("|") for line in lines) == 7  # below it stands what to make of it


def test_the_plan_is_read_back_as_it_was(swept):
    plan, paths, _ = swept
    assert SweepPlan.read(paths.plan) == plan


def test_going_on_with_a_finished_sweep_runs_nothing_again(swept):
    _, paths, summary = swept
    before = {path: path.stat().st_mtime_ns for path in paths.root.glob("trials/*/*.json")}
    again = execute_sweep(SweepPlan.read(paths.plan), paths).as_json()
    assert again["best"] == summary["best"]
    assert again["trials"] == summary["trials"]
    assert {path: path.stat().st_mtime_ns for path in paths.root.glob("trials/*/*.json")} == before


def test_a_sweep_is_found_by_name_and_by_folder(swept):
    plan, paths, _ = swept
    assert find_sweep("tiles", plan.config.output) == paths
    assert find_sweep(str(paths.root), Path("elsewhere")).root == paths.root
    with pytest.raises(ConfigError, match="did you mean tiles"):
        find_sweep("tile", plan.config.output)


def test_a_name_that_is_taken_is_refused(swept):
    plan, paths, _ = swept
    before = paths.plan.read_text()
    with pytest.raises(ConfigError, match="--resume tiles"):
        new_sweep(plan)
    assert paths.plan.read_text() == before


def test_two_drivers_of_one_sweep_are_refused(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    with driver_lock(paths), pytest.raises(ConfigError, match=f"pid {os.getpid()}"), driver_lock(paths):
        pass
    with driver_lock(paths):
        pass


def test_several_objectives_end_in_a_pareto_front(tmp_path, tiny_config, swept):
    config = tiny_config(tmp_path).model_copy(update={"store": swept[0].config.store})
    plan = SweepPlan(
        "front",
        config,
        Space.parse("mapping.latent: {choice: [4, 8]}"),
        trials=2,
        objectives=("auroc", "latency", "parameters"),
        sampler="nsga2",
        start=({"mapping.latent": 4}, {"mapping.latent": 8}),
        resources=HERE,
    )
    summary = new_sweep(plan).as_json()
    assert summary["objective"] == ["validation/image_auroc", "cost.latency_ms", "cost.parameters"]
    assert summary["pareto"]
    for point in summary["pareto"]:
        assert point["values"]["cost.latency_ms"] > 0
        assert point["values"]["cost.parameters"] > 100


def test_a_sweep_learns_from_an_earlier_one(tmp_path, tiny_config, swept):
    earlier, paths, _ = swept
    config = tiny_config(tmp_path).model_copy(update={"store": earlier.config.store})
    plan = SweepPlan("next", config, Space.parse(SPACE), trials=1, warm_start=str(paths.root), resources=HERE)
    summary = new_sweep(plan).as_json()
    assert summary["trials"]["finished"] == 1
    assert summary["best"]["number"] == 5


def test_trials_that_cannot_be_trained_do_not_end_the_others(tmp_path, tiny_config, swept):
    config = tiny_config(tmp_path).model_copy(update={"store": swept[0].config.store})
    space = "train.mapping.lr: {choice: [1.0e-3, 1.0e+30]}"
    points = ({"train.mapping.lr": 1e30}, {"train.mapping.lr": 1e-3})
    plan = SweepPlan("odd", config, Space.parse(space), trials=2, start=points, resources=HERE)
    summary = new_sweep(plan).as_json()
    assert (summary["trials"]["failed"], summary["trials"]["finished"]) == (1, 1)
    assert "0000" in summary["errors"]
    only_bad = replace(plan, name="bad", trials=1, start=points[:1], base_trial=False)
    with pytest.raises(NfbmrError, match="no trial finished"):
        new_sweep(only_bad)
    assert read_record(SweepPaths(config.output / "bad").journal).status == "failed"


def run_command(capsys, config_file: Path, *arguments: str) -> tuple[int, str, str]:
    code = main(["sweep", "--config", str(config_file), "--local", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_failed_trials_are_told_in_the_last_line_and_if_none_finished_it_exits_with_1(
    capsys, tmp_path, tiny_config, swept
):
    config = tiny_config(tmp_path).model_copy(update={"store": swept[0].config.store})
    file, space = tmp_path / "base.yaml", tmp_path / "space.yaml"
    file.write_text(dump_yaml(config))
    space.write_text(f"train.mapping.lr: {{choice: [{config.train.mapping.lr}, 1.0e+30]}}\n")
    asked = ["--space", str(space), "--start", "train.mapping.lr=1e30"]
    code, out, _ = run_command(capsys, file, *asked, "--name", "some", "--trials", "2")
    assert code == 0
    last = out.rstrip().splitlines()[-1]
    assert last.split()[0] == "FAILED"
    assert "1 of 2 trials failed (0001), the first with: " in last
    assert "1 of 2 trials failed (0001)" in SweepPaths(config.output / "some").table("md").read_text()
    asked += ["--name", "none", "--trials", "1", "--no-base-trial"]
    code, _, err = run_command(capsys, file, *asked)
    assert code == 1
    assert "no trial finished (1 failed)" in err


def test_going_on_keeps_what_makes_trials_comparable(capsys, swept):
    plan, _, _ = swept
    where = ["--output", str(plan.config.output), "--resume", "tiles", "--local"]
    assert main(["sweep", *where, "--sampler", "gp", "--set", "flow.blocks=4"]) == 2
    messages = capsys.readouterr().err
    assert "--sampler" in messages
    assert "flow.blocks" in messages


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_point_is_run_once_however_often_it_is_suggested(tmp_path, tiny_config, backend):
    resources = Resources(backend=backend, concurrent=2 if backend == "ray" else None)
    space = Space.parse("mapping.latent: {choice: [4, 8]}")
    plan = SweepPlan("twice", tiny_config(tmp_path), space, trials=4, prune=False, resources=resources)
    summary = new_sweep(plan)
    paths = SweepPaths(plan.config.output / "twice")
    assert summary.trials.finished == 4
    assert list(summary.repeats) == ["0002", "0003"]
    assert summary.trust is not None
    assert summary.trust.finished == 2
    sentence = "2 of 4 trials repeated an earlier point, took its result and were not run"
    assert sentence in headline(summary)
    assert sentence in paths.table("md").read_text()
    assert not RunPaths(paths.trial(2)).config.exists()  # nothing was run in its folder
    for key, first in summary.repeats.items():
        copy, original = (read_record(RunPaths(paths.trial(int(n))).journal) for n in (key, first))
        assert copy.tags["nfbmr.copy_of"] == f"{first:04d}"
        assert (copy.run_id, copy.parent_id, copy.status) == (f"twice-{key}", "twice", "finished")
        assert copy.params["mapping.latent"] == original.params["mapping.latent"]
        name = "validation/image_auroc"
        assert copy.metrics[name][-1].value == original.metrics[name][-1].value
        assert f"finished, as {first:04d}" in paths.table("csv").read_text()
    assert read_record(paths.journal).metrics["trials/finished"][-1].value == 4
    assert verify(paths).differences == []
    again = execute_sweep(replace(plan, trials=5), paths)
    assert list(again.repeats) == ["0002", "0003", "0004"]
    assert verify(paths).differences == []


def test_on_ray_trials_run_at_once_and_the_best_is_scored(tmp_path, tiny_config, swept):
    from cluster.connection import connect

    config = tiny_config(tmp_path).model_copy(update={"store": swept[0].config.store})

    def plan(name: str, **resources) -> SweepPlan:
        how = Resources(backend="ray", **resources)
        return SweepPlan(name, config, Space.parse(SPACE), trials=4, sampler="random", resources=how)

    with connect(cpus=2):
        with pytest.raises(ConfigError, match="GPU"):
            new_sweep(plan("none", gpus=1.0))
        assert not SweepPaths(config.output / "none").plan.exists()
        summary = new_sweep(plan("ray", concurrent=2, gpus="auto")).as_json()
    trials = summary["trials"]
    assert trials["finished"] + trials["pruned"] == 4
    assert summary["best"]["test"]["image_auroc"]["value"] is not None


@pytest.mark.slow
def test_an_earlier_sweep_is_found_in_mlflow_by_its_name(tmp_path, tiny_config, swept):
    pytest.importorskip("mlflow")
    config = tiny_config(tmp_path).model_copy(update={"store": swept[0].config.store})
    tracking = config.tracking.model_copy(
        update={"kind": "mlflow", "uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "log_model": False}
    )
    config = config.model_copy(update={"tracking": tracking})
    plan = SweepPlan("shared", config, Space.parse(SPACE), trials=2, prune=False, resources=HERE)
    new_sweep(plan)
    elsewhere = config.model_copy(update={"output": tmp_path / "elsewhere"})
    asking = SweepPlan("next", elsewhere, Space.parse(SPACE), trials=1)
    found = {one.source: one for one in trials_of("shared", asking)}
    assert set(found) == {"shared-0000", "shared-0001"}
    for number in range(2):
        fitted = read_json(RunPaths(config.output / "shared" / "trials" / f"{number:04d}").fitted)
        one = found[f"shared-{number:04d}"]
        assert one.values == (fitted["metrics"]["validation"]["image_auroc"]["value"],)
        assert one.settings["features.taps"] == fitted["config"]["features"]["taps"]
        assert one.settings["flow.hidden"] == fitted["config"]["flow"]["hidden"]
        assert asking.space.params_of(one.settings) is not None
    with pytest.raises(ConfigError, match="nor in MLflow"):
        trials_of("another", asking)

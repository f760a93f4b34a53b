"""An ablation, whole: cells that share flows, a table, more seeds later, and what happens when cells fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.api import configure
from nfbmr.cli.main import main
from nfbmr.data.synthesize import CLASSES
from nfbmr.errors import ConfigError, Interrupted
from nfbmr.methods.registry import MethodDefaults
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.resolve import Layer, resolve
from tests.stored_stages import stored_stages
from tune.ablation.ablation import Ablation, ablate, find_ablation, new_ablation
from tune.ablation.plan import AblationPlan, plan_ablation
from tune.ablation.spec import AblationSpec, Row, load_spec, parse_spec
from tune.execution.resources import Resources
from tune.execution.trial_spec import TrialResult

HERE = Resources(backend="local")
TINY = {
    "features.size": 64,
    "features.taps": ["blocks.1"],
    "features.scales": [1.0],
    "features.detail.taps": [],
    "flow.blocks": 1,
    "flow.hidden": 4,
    "flow.kernels": [3],
    "mapping.latent": 4,
    "mapping.pfm_latent": [4],
    "train.flow.epochs": 2,
    "train.mapping.epochs": 1,
    "train.precision": "fp32",
    "evaluation.bootstrap": 40,
    "evaluation.heatmaps": 0,
    "tracking.kind": "folder",
}


def resolved(root: Path, data: Path, **more):
    values = {"output": str(root / "runs"), "store": str(root / "store"), "data.path": str(data), **TINY}
    layers = [Layer("tiny.yaml", values | {key.replace("__", "."): v for key, v in more.items()})]
    return resolve(layers, methods=MethodDefaults())


def rows(text: str) -> AblationSpec:
    return parse_spec(text, "rows", "rows.yaml")


TWO_ROWS = "rows: {with: {method: nf-bmr}, without: {method: nf}}"


@pytest.fixture(scope="module")
def table5(tmp_path_factory, two_textures):
    """Table 5 on two categories with one seed, finished; its plan, its summary and its folder's root."""
    root = tmp_path_factory.mktemp("ablation")
    plan = plan_ablation(load_spec("paper-table5"), resolved(root, two_textures), name="t5", seeds=1)
    return plan, new_ablation(plan, HERE).as_json(), root


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_table5_trains_one_flow_a_category_for_all_its_rows(table5):
    plan, summary, root = table5
    assert summary["flows"]["trained"] == 2
    assert summary["flows"]["reused"] == 8
    assert stored_stages(root / "store")["flow"] == 2
    assert not summary["cells"]["missing"]
    assert [row.name for row in plan.spec.rows] == list(summary["rows"])
    methods = {row.name: plan.row_config(row).method for row in plan.spec.rows}
    assert methods["NF + B-PFM"] == "nf-b-pfm"
    assert methods["NF alone"] == "nf"


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_the_folder_holds_tables_pictures_and_records(table5):
    plan, summary, _ = table5
    json.dumps(summary)
    paths = plan.paths
    for kind in ("md", "csv", "tex"):
        assert "NF + B-PFM" in paths.table(kind).read_text(encoding="utf-8")
    drawn = {path.name for path in paths.pictures.iterdir()}
    assert drawn == {"bars.png", "differences.png", "lines.png", "sweep.png"}
    assert json.loads(paths.summary.read_text())["name"] == "t5"
    assert read_record(paths.journal).status == "finished"
    for cell in plan.cells():
        record = read_record(RunPaths(cell.task.folder).journal)
        assert (record.parent_id, record.run_id, record.status) == ("t5", cell.task.run_id, "finished")
        assert record.tags["nfbmr.row"] == cell.row


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_values_are_the_runs_own_and_differences_are_of_paired_cells(table5):
    plan, summary, _ = table5
    cells = {
        (c.row, c.category): json.loads(RunPaths(c.task.folder).summary.read_text()) for c in plan.cells()
    }
    value = {key: run["metrics"]["test"]["image_auroc"]["value"] for key, run in cells.items()}
    means = {row: sum(v for (r, _), v in value.items() if r == row) / 2 for row in summary["rows"]}
    for row, found in summary["rows"].items():
        entry = found["metrics"]["image_auroc"]
        assert entry["value"] == pytest.approx(means[row])
        for category, part in found["parts"].items():
            assert part["value"] == pytest.approx(value[row, category])
        if row != "n=2":
            assert entry["difference"]["value"] == pytest.approx(means[row] - means["n=2"])
            assert entry["difference"]["same_images"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_another_seed_costs_one_seed_and_a_finished_ablation_nothing(table5):
    plan, first, root = table5
    before = {cell.task.key: stamp(cell) for cell in plan.cells()}
    category = first["categories"][0]
    more = find_ablation("t5", root / "runs").extended(2, [category])
    summary = ablate(more, HERE).as_json()
    assert (summary["cells"]["asked"], summary["flows"]["trained"]) == (10, 2)
    assert {cell.task.key: stamp(cell) for cell in plan.cells()} == before
    assert summary["rows"]["n=2"]["metrics"]["image_auroc"]["seeds"] == 2

    stamps = {cell.task.key: stamp(cell) for cell in more.cells()}
    assert ablate(more, HERE).as_json()["rows"] == summary["rows"]
    assert {cell.task.key: stamp(cell) for cell in more.cells()} == stamps

    # with the first seed and all categories, the table is the one of before
    whole = find_ablation("t5", root / "runs").extended(1, first["categories"])
    assert ablate(whole, HERE).as_json()["rows"] == first["rows"]


def stamp(cell) -> int:
    return RunPaths(cell.task.folder).summary.stat().st_mtime_ns


def test_a_cell_that_fails_is_missing_with_its_reason_and_the_rest_is_whole(tmp_path, textures):
    spec = rows("rows: {fine: {method: nf}, wild: {method: nf-bmr, train.mapping.lr: 1e+30}}")
    one_category = textures / CLASSES[0]
    plan = plan_ablation(spec, resolved(tmp_path, one_category), name="wild", seeds=1)
    summary = new_ablation(plan, HERE).as_json()
    (key,) = summary["cells"]["missing"]
    assert key.startswith("wild/")
    assert summary["cells"]["missing"][key]
    assert summary["rows"]["fine"]["metrics"]["image_auroc"]["value"] is not None
    assert summary["rows"]["wild"]["metrics"]["image_auroc"]["value"] is None
    assert summary["rows"]["wild"]["metrics"]["image_auroc"]["difference"]["verdict"] == "unknown"
    text = plan.paths.table("md").read_text()
    assert key in text
    # without categories, numbers are broken down by kind of defect
    kinds = {path.name for path in (one_category / "test").iterdir()} - {"good"}
    assert summary["by"] == "kind"
    assert set(summary["rows"]["fine"]["parts"]) == kinds
    assert "by kind of defect" in text
    assert plan.paths.summary.exists()


def test_a_stop_keeps_what_is_done_and_says_how_to_go_on(tmp_path, textures):
    config = resolved(tmp_path, textures)
    plan = plan_ablation(rows(TWO_ROWS), config, name="half", seeds=1)
    with pytest.raises(Interrupted, match="--resume") as caught:
        ablate(plan, Resources(backend="local", time_budget=0.0))
    assert caught.value.exit_code == 130
    assert not plan.paths.summary.exists()
    assert "not run yet" in plan.paths.table("md").read_text()
    assert read_record(plan.paths.journal).status == "killed"
    with pytest.raises(ConfigError, match="differs in row with"):
        new_ablation(
            plan_ablation(rows(TWO_ROWS.replace("nf-bmr", "nf-b-pfm")), config, name="half", seeds=1), HERE
        )
    # the same plan again goes on with it
    assert not new_ablation(plan, HERE).cells.missing


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_ctrl_c_ends_with_130_and_resume_goes_on(tmp_path, textures):
    (tmp_path / "rows.yaml").write_text(TWO_ROWS)
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    line = [
        sys.executable, "-m", "nfbmr", "ablate", "rows.yaml", "--config", "tiny.yaml", "--data",
        str(textures), "--local", "--name", "stopped", "--seeds", "8", "--json",
    ]  # fmt: skip
    driver = subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cells = tmp_path / "runs" / "stopped" / "cells"
    while not list(cells.rglob("seed-0/summary.json")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.1)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, err
    assert json.loads(out)["error"]["type"] == "Interrupted"
    written_at = {path: path.stat().st_mtime_ns for path in cells.rglob("summary.json")}
    assert written_at
    assert len(written_at) < 16
    code = main(["ablate", "--resume", str(tmp_path / "runs" / "stopped"), "--seeds", "1", "--local", "-q"])
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in written_at} == written_at


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten whole runs and more, where the machine is busy
def test_on_ray_cells_at_once_share_their_flow(tmp_path, textures):
    plan = plan_ablation(rows(TWO_ROWS), resolved(tmp_path, textures), name="ray", seeds=2)
    from cluster.connection import connect

    with connect("local", cpus=2):
        summary = ablate(plan, Resources(concurrent=2)).as_json()
    assert summary["flows"] == {**summary["flows"], "trained": 2, "reused": 2}
    assert not summary["cells"]["missing"]


# -- the order of cells


def planned(spec: AblationSpec, categories=("x",), seeds=2, split_seeds="same") -> AblationPlan:
    return AblationPlan("a", spec, configure(settings={}), categories, seeds, split_seeds)


MIXED = AblationSpec(
    name="mixed",
    title="",
    metric="image_auroc",
    reference="a",
    rows=(
        Row("a", {"mapping.residual_blocks": 1}),
        Row("b", {"mapping.residual_blocks": 3}),
        Row("c", {"method": "nf"}),
        Row("d", {"flow.blocks": 8}),
    ),
)


def test_families_are_the_cells_that_share_a_flow():
    cells = planned(MIXED, ("x", "y"), 2).cells()
    families = Counter(cell.family for cell in cells)
    assert sorted(families.values()) == [1] * 4 + [3] * 4
    of = {(c.row, c.category, c.seed): c.family for c in cells}
    assert of["a", "x", 0] == of["b", "x", 0] == of["c", "x", 0] != of["d", "x", 0]
    assert of["a", "x", 0] not in (of["a", "y", 0], of["a", "x", 1])


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_cell_queues_for_a_flow_while_another_could_be_trained(workers, seeds, rng):
    cells = planned(MIXED, ("x", "y"), seeds).cells()
    ablation = Ablation(cells, "image_auroc")
    family = {cell.task.key: cell.family for cell in cells}
    running: list[str] = []
    flows: set[str] = set()
    handed: list[str] = []
    while True:
        while len(running) < workers and (task := ablation.next()) is not None:
            busy = {family[key] for key in running}
            waits = family[task.key] not in flows and family[task.key] in busy
            left = [c for c in cells if c.task.key not in handed and c.task.key != task.key]
            assert not (waits and any(c.family in flows or c.family not in busy for c in left))
            running.append(task.key)
            handed.append(task.key)
        if not running:
            break
        key = rng.choice(running)
        if family[key] not in flows and rng.random() < 0.5:
            flows.add(family[key])
            assert not ablation.report(key, cells[0].task.config.train.flow.epochs, {})
            continue
        running.remove(key)
        state = rng.choice(["finished", "failed"])
        if state == "finished":
            flows.add(family[key])
        ablation.done(TrialResult(key, state, error=None if state == "finished" else "broke"))
    assert sorted(handed) == sorted(family)
    assert ablation.next() is None
